package cmd

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"sidegate/policy"
)

// guard are the statements of a bucket policy: each refuses, to everybody, what
// the gateway never does in this bucket.
func (b iamBucket) guard(grants []policy.Grant) []iamStatement {
	if len(grants) == 0 {
		return nil
	}
	all := []string{b.arn, b.arn + "/*"}
	deny := func(name string, actions, resources []string, condition map[string]map[string][]string) iamStatement {
		return iamStatement{Sid: name, Effect: "Deny", Principal: "*", Action: actions, Resource: resources, Condition: condition}
	}
	out := []iamStatement{
		deny("OnlyTLS", []string{"s3:*"}, all, map[string]map[string][]string{"Bool": {"aws:SecureTransport": {"false"}}}),
		deny("NoACLWithAnObject", []string{"s3:PutObject"}, all[1:], map[string]map[string][]string{"Null": {"s3:x-amz-acl": {"false"}}}),
		deny("NoACLOfAnObject", []string{"s3:PutObjectAcl", "s3:PutObjectVersionAcl"}, all[1:], nil),
	}
	longest := time.Duration(0)
	for _, g := range grants {
		longest = max(longest, g.Expires)
	}
	if longest > 0 {
		// In milliseconds. Of presigned URLs and of forms: what is signed for at
		// once is as old as clocks differ.
		// https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-policy-s3-sigv4-conditions.html
		age := strconv.FormatInt(longest.Milliseconds(), 10)
		out = append(out, deny("NoOldSignatures", []string{"s3:*"}, all[1:], map[string]map[string][]string{
			"NumericGreaterThan": {"s3:signatureAge": {age}},
			"StringEquals":       {"s3:authType": {"POST", "REST-QUERY-STRING"}},
		}))
	}
	if keys := neverReplaced(grants); keys != nil {
		// The calls that begin a multipart upload and send its parts take no such
		// header: for them ObjectCreationOperation is false.
		// https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
		out = append(out, deny("NoObjectIsReplaced", []string{"s3:PutObject"}, b.objects(keys), map[string]map[string][]string{
			"Bool": {"s3:ObjectCreationOperation": {"true"}},
			"Null": {"s3:if-none-match": {"true"}},
		}))
	}
	return out
}

// neverReplaced are the patterns of the keys that the gateway has written only
// where they are free. A form has no header that could say so, and so what forms
// write is not among them, nor is what may be replaced.
func neverReplaced(grants []policy.Grant) []string {
	free := func(g policy.Grant) bool { return g.Does != policy.GrantPut || !g.Form }
	writes := slices.DeleteFunc(slices.Clone(grants), func(g policy.Grant) bool {
		return g.Does != policy.GrantPut && g.Does != policy.GrantMultipart
	})
	others := slices.DeleteFunc(slices.Clone(writes), func(g policy.Grant) bool { return free(g) && !g.Overwrite })
	meets := func(a, o policy.Grant) bool {
		return strings.HasPrefix(a.Prefix, o.Prefix) && !(o.Exact && a.Prefix != o.Prefix) ||
			strings.HasPrefix(o.Prefix, a.Prefix) && !(a.Exact && a.Prefix != o.Prefix)
	}
	kept := slices.DeleteFunc(writes, func(g policy.Grant) bool {
		return !free(g) || g.Overwrite || slices.ContainsFunc(others, func(o policy.Grant) bool { return meets(g, o) })
	})
	return grantPatterns(kept, policy.GrantPut, policy.GrantMultipart)
}
