package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sidegate/configs"
	"sidegate/policy"
)

// An awsRequest is a request as AWS judges it: an action on a resource, and what
// condition keys say of it. A key that is not there is absent from the request.
type awsRequest struct {
	action, resource string
	keys             map[string]string
}

// allows evaluates documents as AWS does: what is denied is denied, what nothing
// allows is, too. It knows the elements that are used here, and fails on others.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
func allows(t *testing.T, documents []iamDocument, q awsRequest) bool {
	t.Helper()
	allowed := false
	for _, d := range documents {
		for _, s := range d.Statement {
			if !s.about(t, q) {
				continue
			}
			switch s.Effect {
			case "Deny":
				return false
			case "Allow":
				allowed = true
			default:
				t.Fatalf("%+v", s)
			}
		}
	}
	return allowed
}

func (s iamStatement) about(t *testing.T, q awsRequest) bool {
	t.Helper()
	like := func(pattern string) bool { return matchesAWS(pattern, q.action) }
	if !slices.ContainsFunc(s.Action, like) || !slices.ContainsFunc(s.Resource, func(p string) bool { return matchesAWS(p, q.resource) }) {
		return false
	}
	for operator, keys := range s.Condition {
		for key, values := range keys {
			have, there := q.keys[key]
			var holds func(want string) bool
			switch operator {
			case "StringLike":
				holds = func(want string) bool { return there && matchesAWS(want, have) }
			case "StringEquals", "Bool", "ForAnyValue:StringEquals":
				holds = func(want string) bool { return there && have == want }
			case "NumericGreaterThan":
				holds = func(want string) bool {
					a, _ := strconv.Atoi(have)
					b, err := strconv.Atoi(want)
					return there && err == nil && a > b
				}
			case "Null":
				holds = func(want string) bool { return strconv.FormatBool(!there) == want }
			default:
				t.Fatalf("the operator %s", operator)
			}
			if !slices.ContainsFunc(values, holds) {
				return false
			}
		}
	}
	return true
}

// matchesAWS matches a pattern with * and ?, and with variables for these two.
func matchesAWS(pattern, s string) bool {
	var form strings.Builder
	for rest := pattern; rest != ""; {
		switch {
		case strings.HasPrefix(rest, "${*}"), strings.HasPrefix(rest, "${?}"), strings.HasPrefix(rest, "${$}"):
			form.WriteString(regexp.QuoteMeta(rest[2:3]))
			rest = rest[4:]
			continue
		case rest[0] == '*':
			form.WriteString("(?s:.*)")
		case rest[0] == '?':
			form.WriteString("(?s:.)")
		default:
			form.WriteString(regexp.QuoteMeta(rest[:1]))
		}
		rest = rest[1:]
	}
	return regexp.MustCompile("^" + form.String() + "$").MatchString(s)
}

const iamTestPolicy = `version: sidegate-policy/v1
identities: [users]
claims: {roles: list(string)}
routes:
  - {id: put, path: /put, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "users/${auth.uid}/${uuid}", late: delete, expires: {max: 10m}}}
  - {id: form, path: /form, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "forms/${auth.uid}/${uuid}", method: POST}}
  - {id: parts, path: "/parts/{op...}", methods: [GET, POST, DELETE], serve: multipart, allow: [{who: [users]}], object: {key: "media/${auth.uid}/${uuid}"}}
  - {id: logo, path: /logo, methods: [POST], serve: presign_upload, allow: [{roles: [staff]}], object: {key: "site/a*b?c.png", overwrite: true}}
  - {id: get, path: "/get/{key...}", methods: [GET], serve: presign_download, allow: [{who: [users], key_prefix: "users/${auth.uid}/"}, {roles: [staff], key_prefix: reports/}], object: {key: "${params.key}"}}
  - {id: remove, path: "/get/{key...}", methods: [DELETE], serve: delete_object, allow: [{who: [users], key_prefix: "drafts/${auth.uid}/"}], object: {key: "${params.key}"}}
  - {id: list, path: /list, methods: [GET], serve: list_objects, allow: [{who: [users]}], object: {prefix: "public/${auth.uid}/"}}
`

func iamGrants(t *testing.T, text string) []policy.Grant {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return p.Grants()
}

// TestIAMAllowsWhatRoutesDo holds the documents against every request that the
// gateway signs or makes for these routes, and against neighbours of each.
func TestIAMAllowsWhatRoutesDo(t *testing.T) {
	b := iamBucket{name: "default", arn: "arn:aws:s3:::acme", region: "eu-west-1", kmsKey: "arn:aws:kms:eu-west-1:111122223333:key/k", tagged: true}
	grants := iamGrants(t, iamTestPolicy)
	identity := []iamDocument{{Statement: b.allow(grants)}}
	both := append(identity, iamDocument{Statement: b.guard(grants)})
	object := func(action, key string, more ...string) awsRequest {
		q := awsRequest{"s3:" + action, "arn:aws:s3:::acme/" + key, map[string]string{"aws:SecureTransport": "true", "s3:authType": "REST-QUERY-STRING", "s3:signatureAge": "1000"}}
		for i := 0; i < len(more); i += 2 {
			q.keys[more[i]] = more[i+1]
		}
		return q
	}
	bucket := func(action string, more ...string) awsRequest {
		q := object(action, "", more...)
		q.resource = "arn:aws:s3:::acme"
		return q
	}
	key := func(action, via string) awsRequest {
		return awsRequest{"kms:" + action, "arn:aws:kms:eu-west-1:111122223333:key/k", map[string]string{"aws:SecureTransport": "true", "kms:ViaService": via}}
	}
	const creates, free = "s3:ObjectCreationOperation", "s3:if-none-match"
	for name, q := range map[string]awsRequest{
		"the PUT of an upload":              object("PutObject", "users/a/1", creates, "true", free, "*"),
		"its tags":                          object("PutObjectTagging", "users/a/1"),
		"the HEAD of a confirmation":        object("GetObject", "users/a/1"),
		"a missing object is a 404":         bucket("ListBucket", "s3:prefix", "users/a/1"),
		"what came too late is deleted":     object("DeleteObject", "users/a/1"),
		"its version":                       object("DeleteObjectVersion", "users/a/1"),
		"a form":                            object("PutObject", "forms/a/1", creates, "true", "s3:authType", "POST"),
		"a multipart upload is begun":       object("PutObject", "media/a/1", creates, "false"),
		"a part":                            object("PutObject", "media/a/1", creates, "false"),
		"it is completed":                   object("PutObject", "media/a/1", creates, "true", free, "*", "s3:authType", "REST-HEADER"),
		"its parts are listed":              object("ListMultipartUploadParts", "media/a/1"),
		"it is aborted":                     object("AbortMultipartUpload", "media/a/1"),
		"what is open is found":             bucket("ListBucketMultipartUploads"),
		"an object is replaced":             object("PutObject", "site/a*b?c.png", creates, "true"),
		"a download":                        object("GetObject", "users/a/1", "s3:signatureAge", "600000"),
		"a report":                          object("GetObject", "reports/1"),
		"a draft is deleted":                object("DeleteObject", "drafts/a/1"),
		"a folder is listed":                bucket("ListBucket", "s3:prefix", "public/a/"),
		"a data key":                        key("GenerateDataKey", "s3.eu-west-1.amazonaws.com"),
		"what is encrypted is read":         key("Decrypt", "s3.eu-west-1.amazonaws.com"),
		"a call of ours by a clock that is": object("GetObject", "users/a/1", "s3:authType", "REST-HEADER", "s3:signatureAge", "840000"),
	} {
		if !allows(t, identity, q) || !allows(t, both, q) {
			t.Errorf("refused: %s: %+v", name, q)
		}
	}
	for name, q := range map[string]awsRequest{
		"an upload beside the folder":       object("PutObject", "user/a/1", creates, "true", free, "*"),
		"an upload of a report":             object("PutObject", "reports/1", creates, "true", free, "*"),
		"a download of a draft":             object("GetObject", "drafts/a/1"),
		"a listed object is read":           object("GetObject", "public/a/1"),
		"a draft's version is deleted":      object("DeleteObjectVersion", "drafts/a/1"),
		"a form's object is deleted":        object("DeleteObject", "forms/a/1"),
		"a report is deleted":               object("DeleteObject", "reports/1"),
		"all is listed":                     bucket("ListBucket", "s3:prefix", ""),
		"all is listed, with no word of it": bucket("ListBucket"),
		"drafts are listed":                 bucket("ListBucket", "s3:prefix", "drafts/"),
		"a single PUT is aborted":           object("AbortMultipartUpload", "users/a/1"),
		"a name that a pattern would match": object("PutObject", "site/aXXbYc.png", creates, "true"),
		"an ACL":                            object("PutObjectAcl", "users/a/1"),
		"the bucket is deleted":             bucket("DeleteBucket"),
		"the bucket's policy":               bucket("PutBucketPolicy"),
		"another bucket":                    {"s3:GetObject", "arn:aws:s3:::acme2/users/a/1", nil},
		"a key without S3":                  key("Decrypt", "ec2.eu-west-1.amazonaws.com"),
		"the key is deleted":                key("ScheduleKeyDeletion", "s3.eu-west-1.amazonaws.com"),
	} {
		if allows(t, identity, q) {
			t.Errorf("allowed: %s: %+v", name, q)
		}
	}
	for name, q := range map[string]awsRequest{
		"without TLS":                      object("GetObject", "users/a/1", "aws:SecureTransport", "false"),
		"an old URL":                       object("GetObject", "users/a/1", "s3:signatureAge", "900001"),
		"an old form":                      object("PutObject", "forms/a/1", creates, "true", "s3:authType", "POST", "s3:signatureAge", "900001"),
		"an upload over what is there":     object("PutObject", "users/a/1", creates, "true"),
		"a completion over what is there":  object("PutObject", "media/a/1", creates, "true"),
		"an upload that anybody may read":  object("PutObject", "users/a/1", creates, "true", free, "*", "s3:x-amz-acl", "public-read"),
		"the ACL of an object, by anybody": object("PutObjectAcl", "users/a/1"),
	} {
		everything := iamDocument{Statement: []iamStatement{{Effect: "Allow", Action: []string{"*"}, Resource: []string{"*"}}}}
		if allows(t, []iamDocument{everything, both[1]}, q) {
			t.Errorf("the bucket allows: %s: %+v", name, q)
		}
	}
}

// TestIAMOfTheDefaultPolicy: what a policy for users/* needs, and no more.
func TestIAMOfTheDefaultPolicy(t *testing.T) {
	got := bucketOf(BucketConfig{Name: "default", Bucket: "YOUR_BUCKET", Region: "us-east-1"}).allow(iamGrants(t, configs.Policy))
	want := []iamStatement{
		{Sid: "DefaultObjects", Effect: "Allow", Action: []string{"s3:GetObject", "s3:PutObject"}, Resource: []string{"arn:aws:s3:::YOUR_BUCKET/users/*"}},
		{Sid: "DefaultList", Effect: "Allow", Action: []string{"s3:ListBucket"}, Resource: []string{"arn:aws:s3:::YOUR_BUCKET"}, Condition: map[string]map[string][]string{"StringLike": {"s3:prefix": {"users/*"}}}},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v", got)
	}
}

func TestIAMIsMinimalAndDeterministic(t *testing.T) {
	b := bucketOf(BucketConfig{Name: "my-files", Bucket: "acme", Region: "cn-north-1"})
	grants := iamGrants(t, iamTestPolicy)
	first, _ := json.Marshal(b.allow(grants))
	for range 20 {
		if again, _ := json.Marshal(b.allow(iamGrants(t, iamTestPolicy))); !bytes.Equal(first, again) {
			t.Fatalf("%s\n%s", first, again)
		}
	}
	if strings.Contains(string(first), "kms:") || strings.Contains(string(first), "Tagging") || !strings.Contains(string(first), `"arn:aws-cn:s3:::acme/users/*"`) || !strings.Contains(string(first), `"MyFilesObjects"`) {
		t.Errorf("%s", first)
	}
	// Without any of its statements something that is needed is refused.
	seen := map[string]bool{}
	for _, s := range append(b.allow(grants), b.guard(grants)...) {
		if seen[s.Sid] || !regexp.MustCompile(`^[A-Za-z0-9]+$`).MatchString(s.Sid) {
			t.Errorf("the id %q", s.Sid)
		}
		seen[s.Sid] = true
	}
	// A folder within another is no statement of its own.
	wide := iamGrants(t, strings.Replace(iamTestPolicy, "key_prefix: reports/", "key_prefix: users/", 1))
	if text, _ := json.Marshal(b.allow(wide)); strings.Contains(string(text), "reports") {
		t.Errorf("%s", text)
	}
	// What cannot be bounded is the whole bucket, and is not listed under a prefix.
	whole := iamGrants(t, strings.Replace(iamTestPolicy, `key: "users/${auth.uid}/${uuid}"`, `key: "${auth.uid}/${uuid}"`, 1))
	text, _ := json.Marshal(b.allow(whole))
	if !strings.Contains(string(text), `"arn:aws-cn:s3:::acme/*"`) || strings.Contains(string(text), "s3:prefix") {
		t.Errorf("%s", text)
	}
	var errors bytes.Buffer
	if err := (&program{stdout: io.Discard, stderr: &errors}).printIAM([]BucketConfig{{Name: "default", Bucket: "acme", Store: "minio"}}, whole, false); err != nil ||
		!strings.Contains(errors.String(), "route `put` can put any key") || !strings.Contains(errors.String(), "is not at AWS") {
		t.Errorf("%v %s", err, &errors)
	}
}

func TestIAMKeys(t *testing.T) {
	grants := iamGrants(t, iamTestPolicy)
	for key, want := range map[string]string{
		"arn:aws:kms:eu-west-1:1:key/k":        "arn:aws:kms:eu-west-1:1:key/k",
		"1234abcd-12ab-34cd-56ef-1234567890ab": "arn:aws:kms:eu-west-1:*:key/1234abcd-12ab-34cd-56ef-1234567890ab",
		"alias/files":                          "arn:aws:kms:eu-west-1:*:key/*",
		"arn:aws:kms:eu-west-1:1:alias/files":  "arn:aws:kms:eu-west-1:1:key/*",
	} {
		b := bucketOf(BucketConfig{Name: "default", Bucket: "acme", Region: "eu-west-1"})
		b.kmsKey = key
		all := b.allow(grants)
		s := all[len(all)-1]
		if s.Resource[0] != want || fmt.Sprint(s.Action) != "[kms:Decrypt kms:GenerateDataKey]" {
			t.Errorf("%s: %+v", key, s)
		}
		if alias := s.Condition["ForAnyValue:StringEquals"]["kms:ResourceAliases"]; strings.Contains(key, "alias/") != (fmt.Sprint(alias) == "[alias/files]") {
			t.Errorf("%s: %+v", key, s)
		}
	}
	for region, want := range map[string]string{"eu-west-1": "aws", "cn-north-1": "aws-cn", "us-gov-west-1": "aws-us-gov", "us-iso-east-1": "aws-iso", "eusc-de-east-1": "aws-eusc"} {
		if got := awsPartition(region); got != want {
			t.Errorf("%s: %s", region, got)
		}
	}
}

// TestBucketPolicyLeavesFormsAlone: a form has no header that asks for a free
// key, so that a rule which asks for it must not be about what forms write.
func TestBucketPolicyLeavesFormsAlone(t *testing.T) {
	for _, c := range []struct {
		routes string
		want   string
	}{
		{`put users/${auth.uid}/${uuid}`, "[users/*]"},
		{`put users/${auth.uid}/${uuid}|form users/${auth.uid}/f/${uuid}`, "[]"},
		{`put users/${auth.uid}/${uuid}|form users2/${auth.uid}/${uuid}`, "[users/*]"},
		{`put users/${auth.uid}/${uuid}|over ${auth.uid}/${uuid}`, "[]"},
		{`put users/${auth.uid}/${uuid}|over users/logo.png`, "[]"},
		{`put site/a.png|over site/b.png`, "[site/a.png]"},
	} {
		text := "version: sidegate-policy/v1\nidentities: [users]\nroutes:\n"
		for i, r := range strings.Split(c.routes, "|") {
			how, key, _ := strings.Cut(r, " ")
			more := map[string]string{"put": "", "form": ", method: POST", "over": ", overwrite: true"}[how]
			text += fmt.Sprintf("  - {id: r%d, path: /r%d, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: %q%s}}\n", i, i, key, more)
		}
		if got := fmt.Sprint(neverReplaced(iamGrants(t, text))); got != c.want {
			t.Errorf("%s: %s", c.routes, got)
		}
	}
}

// AWS refuses a document in which two statements have one id.
func TestIAMIDsOfBucketsWithLikeNames(t *testing.T) {
	text := "version: sidegate-policy/v1\nidentities: [users]\nroutes:\n"
	var buckets []BucketConfig
	for i, name := range []string{"photos-1", "photos1", "photos-b", "photos--b", "photos"} {
		buckets = append(buckets, BucketConfig{Name: name, Bucket: "acme", Region: "eu-west-1", Store: "aws"})
		text += fmt.Sprintf("  - {id: r%d, path: /r%d, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {bucket: %s, key: \"a/${uuid}\"}}\n", i, i, name)
	}
	var out bytes.Buffer
	if err := (&program{stdout: &out, stderr: io.Discard}).printIAM(buckets, iamGrants(t, text), false); err != nil {
		t.Fatal(err)
	}
	var doc iamDocument
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil || len(doc.Statement) != 2*len(buckets) {
		t.Fatalf("%v\n%s", err, &out)
	}
	seen := map[string]bool{}
	for _, s := range doc.Statement {
		if seen[s.Sid] {
			t.Errorf("%s comes twice", s.Sid)
		}
		seen[s.Sid] = true
	}
}
