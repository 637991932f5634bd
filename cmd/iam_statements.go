package cmd

import (
	"slices"
	"strconv"
	"strings"

	"sidegate/policy"
)

// An iamBucket is what statements say of a bucket.
type iamBucket struct {
	name   string // in sidegate.yaml
	arn    string
	region string
	// kmsKey is the key of KMS that new objects are encrypted by; empty: none.
	kmsKey string
	tagged bool // new objects get tags
}

func bucketOf(b BucketConfig) iamBucket {
	out := iamBucket{name: b.Name, arn: "arn:" + awsPartition(b.Region) + ":s3:::" + b.Bucket, region: b.Region}
	if o := b.Objects; o != nil {
		out.kmsKey, out.tagged = o.KMSKey, len(o.Tags) > 0
	}
	return out
}

// awsPartition is AWS's part of the world that a region is in.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
func awsPartition(region string) string {
	for _, p := range []struct{ prefix, name string }{
		{"cn-", "aws-cn"}, {"us-gov-", "aws-us-gov"}, {"us-iso-", "aws-iso"}, {"us-isob-", "aws-iso-b"},
		{"us-isof-", "aws-iso-f"}, {"eu-isoe-", "aws-iso-e"}, {"eusc-", "aws-eusc"},
	} {
		if strings.HasPrefix(region, p.prefix) {
			return p.name
		}
	}
	return "aws"
}

// grantKeys is the pattern of a grant's keys. IAM reads `*`, `?` and `$` in another
// way, but as variables.
func grantKeys(g policy.Grant) string {
	pattern := strings.NewReplacer("*", "${*}", "?", "${?}", "$", "${$}").Replace(g.Prefix)
	if !g.Exact {
		pattern += "*"
	}
	return pattern
}

// grantPatterns are those of the grants that do any of this, without those that lie
// within another.
func grantPatterns(grants []policy.Grant, does ...string) []string {
	var some []policy.Grant
	for _, g := range grants {
		if slices.Contains(does, g.Does) {
			some = append(some, g)
		}
	}
	var out []string
	for _, g := range some {
		within := func(o policy.Grant) bool {
			return !o.Exact && strings.HasPrefix(g.Prefix, o.Prefix) && (o.Prefix != g.Prefix || g.Exact)
		}
		if !slices.ContainsFunc(some, within) {
			out = append(out, grantKeys(g))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// What each permission is for. HEAD, by which the gateway looks what landed, is
// s3:GetObject; every call of a multipart upload that writes is s3:PutObject.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
var objectActions = []struct {
	action string
	does   []string
}{
	{"s3:AbortMultipartUpload", []string{policy.GrantMultipart}},
	{"s3:DeleteObject", []string{policy.GrantDelete, policy.GrantPurge}},
	{"s3:DeleteObjectVersion", []string{policy.GrantPurge}},
	{"s3:GetObject", []string{policy.GrantGet, policy.GrantPut, policy.GrantMultipart}},
	{"s3:ListMultipartUploadParts", []string{policy.GrantMultipart}},
	{"s3:PutObject", []string{policy.GrantPut, policy.GrantMultipart}},
	{"s3:PutObjectTagging", []string{policy.GrantPut, policy.GrantMultipart}},
}

// allow are the least permissions for the grants, all of this bucket.
func (b iamBucket) allow(grants []policy.Grant) (out []iamStatement) {
	for _, a := range objectActions {
		if a.action == "s3:PutObjectTagging" && !b.tagged {
			continue
		}
		if resources := b.objects(grantPatterns(grants, a.does...)); resources != nil {
			out = mergeStatement(out, iamStatement{Effect: "Allow", Action: []string{a.action}, Resource: resources})
		}
	}
	for i := range out {
		if out[i].Sid = statementID(b.name, "objects"); i > 0 {
			out[i].Sid += strconv.Itoa(i + 1)
		}
	}
	// Without it a missing object is 403 and not 404, which tells nobody whether
	// it is missing.
	if prefixes := grantPatterns(grants, policy.GrantGet, policy.GrantPut, policy.GrantMultipart, policy.GrantList); prefixes != nil {
		list := iamStatement{Sid: statementID(b.name, "list"), Effect: "Allow", Action: []string{"s3:ListBucket"}, Resource: []string{b.arn}}
		if !slices.Contains(prefixes, "*") {
			list.Condition = map[string]map[string][]string{"StringLike": {"s3:prefix": prefixes}}
		}
		out = append(out, list)
	}
	if grantPatterns(grants, policy.GrantMultipart) != nil { // it takes no condition on the prefix
		out = append(out, iamStatement{Sid: statementID(b.name, "uploads"), Effect: "Allow", Action: []string{"s3:ListBucketMultipartUploads"}, Resource: []string{b.arn}})
	}
	return append(out, b.allowKey(grants)...)
}

// mergeStatement adds a statement, or its action to one for the same resources.
func mergeStatement(all []iamStatement, s iamStatement) []iamStatement {
	for i := range all {
		if slices.Equal(all[i].Resource, s.Resource) {
			all[i].Action = append(all[i].Action, s.Action...)
			return all
		}
	}
	return append(all, s)
}

func (b iamBucket) objects(patterns []string) (out []string) {
	for _, p := range patterns {
		out = append(out, b.arn+"/"+p)
	}
	return out
}

// allowKey are the permissions of the key that objects are encrypted by: a new
// data key for what is written; and to decrypt, for what is read, for parts, and
// for the checksum that HEAD asks for.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html
func (b iamBucket) allowKey(grants []policy.Grant) []iamStatement {
	reads := grantPatterns(grants, policy.GrantGet, policy.GrantPut, policy.GrantMultipart) != nil
	if b.kmsKey == "" || !reads {
		return nil
	}
	actions := []string{"kms:Decrypt"}
	if grantPatterns(grants, policy.GrantPut, policy.GrantMultipart) != nil {
		actions = append(actions, "kms:GenerateDataKey")
	}
	s := iamStatement{
		Sid: statementID(b.name, "key"), Effect: "Allow", Action: actions,
		Condition: map[string]map[string][]string{"StringEquals": {"kms:ViaService": {"s3." + b.region + "." + awsDomain(b.region)}}},
	}
	key, alias := b.kmsKey, ""
	account := "arn:" + awsPartition(b.region) + ":kms:" + b.region + ":*:"
	if arn, name, ok := strings.Cut(key, "alias/"); ok { // the key behind it can be any
		if key, alias = account+"key/*", "alias/"+name; arn != "" {
			key = arn + "key/*"
		}
	} else if !strings.HasPrefix(key, "arn:") {
		key = account + "key/" + key
	}
	if s.Resource = []string{key}; alias != "" {
		s.Condition["ForAnyValue:StringEquals"] = map[string][]string{"kms:ResourceAliases": {alias}}
	}
	return []iamStatement{s}
}

// awsDomain is that of AWS's hosts in a region.
func awsDomain(region string) string {
	switch awsPartition(region) {
	case "aws-cn":
		return "amazonaws.com.cn"
	case "aws-eusc":
		return "amazonaws.eu"
	case "aws-iso":
		return "c2s.ic.gov"
	case "aws-iso-b":
		return "sc2s.sgov.gov"
	case "aws-iso-e":
		return "cloud.adc-e.uk"
	case "aws-iso-f":
		return "csp.hci.ic.gov"
	}
	return "amazonaws.com"
}
