package cmd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sidegate/policy"
	"sidegate/policy/document"
)

func (p *program) newIAM() *cobra.Command {
	var bucketPolicy bool
	var name string
	c := &cobra.Command{
		Use:   "iam",
		Short: "Print the least permissions in AWS that the gateway needs",
		Long: `Print an IAM policy with the least that sidegate.yaml and policy.yaml need of S3,
and of the keys of KMS that buckets name: for the role or user whose credentials
the gateway has. What a signed URL may do, whoever signed it must be allowed.

With --bucket-policy print a bucket policy instead, for one bucket: it lets nobody
in, and refuses what this gateway never signs. It is about everybody who uses the
bucket, its owner too: read it before you put it there.

The JSON is for AWS. Nothing is opened, asked or changed.`,
		Example: "  sidegate iam > policy.json\n  sidegate iam --bucket default\n  sidegate iam --bucket-policy --bucket default",
		Args:    cobra.NoArgs,
	}
	flags := addSettingsFlags(c)
	c.Flags().BoolVar(&bucketPolicy, "bucket-policy", false, "print a bucket policy instead")
	c.Flags().StringVar(&name, "bucket", "", "only this bucket, by its name in sidegate.yaml")
	c.RunE = func(*cobra.Command, []string) error {
		s, err := p.loadSettings(flags)
		if err != nil {
			return err
		}
		loaded, err := loadPolicy(s.policy, s.config)
		if err != nil {
			return err
		}
		buckets, err := chosenBuckets(s.config.Buckets, name)
		if err != nil {
			return err
		}
		if bucketPolicy && len(buckets) != 1 {
			return usageError{errors.New("--bucket-policy is about one bucket: name it by --bucket")}
		}
		return p.printIAM(buckets, loaded.Grants(), bucketPolicy)
	}
	return c
}

// chosenBuckets are all buckets, or the one of that name.
func chosenBuckets(all []BucketConfig, name string) ([]BucketConfig, error) {
	if name == "" {
		return all, nil
	}
	var names []string
	for _, b := range all {
		if b.Name == name {
			return []BucketConfig{b}, nil
		}
		names = append(names, b.Name)
	}
	return nil, usageError{fmt.Errorf("sidegate.yaml has no bucket %q%s", name, document.DidYouMean(name, names))}
}

func (p *program) printIAM(buckets []BucketConfig, grants []policy.Grant, bucketPolicy bool) error {
	var doc iamDocument
	var asks bool
	for _, b := range buckets {
		at := bucketOf(b)
		own := slices.DeleteFunc(slices.Clone(grants), func(g policy.Grant) bool { return g.Bucket != b.Name })
		asks = asks || len(own) > 0
		p.noteIAM(b, own)
		if bucketPolicy {
			doc.Statement = append(doc.Statement, at.guard(own)...)
		} else {
			doc.Statement = append(doc.Statement, at.allow(own)...)
		}
	}
	if !asks {
		return errors.New("the policy signs nothing there: the gateway needs no permissions of S3")
	}
	doc.distinguish()
	return doc.write(p.stdout)
}

// noteIAM says what of a bucket's permissions its reader should know.
func (p *program) noteIAM(b BucketConfig, grants []policy.Grant) {
	if b.Store != "aws" && len(grants) > 0 {
		fmt.Fprintf(p.stderr, "bucket `%s` is not at AWS (%s): this JSON is written for AWS, and its store may know other permissions, or none\n", b.Name, b.Store)
	}
	for _, g := range grants {
		if g.Prefix == "" {
			fmt.Fprintf(p.stderr, "route `%s` can %s any key of bucket `%s`: nothing that is the same for every request begins its keys, so that the permission is for the whole bucket\n", g.Route, g.Does, b.Name)
		}
	}
}

// An iamDocument is a policy in AWS's language.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
type iamDocument struct {
	Version   string
	Statement []iamStatement
}

type iamStatement struct {
	Sid       string
	Effect    string
	Principal string `json:",omitempty"` // of bucket policies
	Action    []string
	Resource  []string
	Condition map[string]map[string][]string `json:",omitempty"`
}

func (d iamDocument) write(w io.Writer) error {
	d.Version = "2012-10-17"
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(d); err != nil {
		return err
	}
	_, err := w.Write(out.Bytes())
	return err
}

// distinguish adds a letter to an id that another statement has: buckets' names
// can differ in hyphens only, which ids cannot hold.
func (d iamDocument) distinguish() {
	taken := map[string]bool{}
	for i := range d.Statement {
		s := &d.Statement[i]
		for taken[s.Sid] {
			s.Sid += "X"
		}
		taken[s.Sid] = true
	}
}

// statementID makes a statement's id of words: letters and digits.
func statementID(words ...string) string {
	var out strings.Builder
	for _, word := range words {
		for part := range strings.FieldsFuncSeq(word, func(r rune) bool { return r == '-' }) {
			out.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return out.String()
}
