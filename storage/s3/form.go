package s3

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"sidegate/storage/upload"
)

// signForm signs a form (a POST policy). Each field has a condition that says
// its whole value, and a store refuses fields that have none, so that nothing
// can be changed, added or left out; the length of the file has a range.
//
// A form cannot say If-None-Match: the API has no such field. So p.Overwrite
// means nothing here, and until it ends a form can be sent again, with another
// file where no checksum is bound.
// https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html
// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-HTTPPOSTConstructPolicy.html
func (b *Bucket) signForm(ctx context.Context, p upload.Put) (upload.Signed, error) {
	if b.limits.NoForm {
		return upload.Signed{}, fmt.Errorf("%w: bucket %s: the store %s takes no forms", upload.ErrUnavailable, b.name, b.store)
	}
	if err := checkFormKey(p.Key); err != nil {
		return upload.Signed{}, err
	}
	extra, err := b.formFields(p)
	if err != nil {
		return upload.Signed{}, err
	}
	creds, last, err := b.credentials.lasting(ctx, p.Expires)
	if err != nil {
		return upload.Signed{}, fmt.Errorf("bucket %s: %w", b.name, err)
	}
	begin, life, err := b.window(p.At, p.Expires, last)
	if err != nil {
		return upload.Signed{}, err
	}
	fields, err := b.postPolicy(creds, p, extra, begin, begin.Add(life))
	if err != nil {
		return upload.Signed{}, err
	}
	return upload.Signed{URL: b.public.origin + b.public.path + "/", Method: "POST", Fields: fields, Expires: begin.Add(life)}, nil
}

// checkFormKey also refuses what a form's key can hold and mean something else
// by: the store puts the file's name in the place of ${filename}.
func checkFormKey(key string) error {
	if err := upload.CheckKey(key); err != nil {
		return err
	}
	for i := range len(key) {
		if key[i] == '$' && i+1 < len(key) && key[i+1] == '{' {
			return &upload.InvalidError{Field: "key", Reason: "has ${, which a form replaces"}
		}
	}
	return nil
}

// formFields are the fields beside key and signature, in the order of their
// conditions.
func (b *Bucket) formFields(p upload.Put) ([]field, error) {
	_, sum, err := b.checksum(p)
	if err != nil {
		return nil, err
	}
	caller, err := b.callerFields(p.Metadata)
	if err != nil {
		return nil, err
	}
	plain := func(name, value string) field { return field{form: name, formValue: value} }
	out := []field{plain("Content-Type", p.ContentType), plain("success_action_status", "201")}
	if sum != "" {
		name := "x-amz-checksum-sha256"
		if p.Checksum64 != "" {
			name = "x-amz-checksum-crc64nvme"
		}
		out = append(out, plain(name, sum))
	}
	out = append(out, caller...)
	return append(out, b.fixed...), nil
}

// postPolicy signs the fields. The document is the SDK's, condition by condition.
func (b *Bucket) postPolicy(creds aws.Credentials, p upload.Put, extra []field, begin, end time.Time) (map[string]string, error) {
	date := begin.Format(dateFormat)
	d := b.signer.derive(creds, begin.AppendFormat(nil, dayFormat))
	fields := map[string]string{
		"X-Amz-Algorithm":  algorithm,
		"X-Amz-Credential": d.credential,
		"X-Amz-Date":       date,
	}
	eq := func(name, value string) map[string]string { return map[string]string{name: value} }
	conditions := []any{
		eq("X-Amz-Algorithm", algorithm), eq("bucket", b.name), eq("X-Amz-Credential", d.credential), eq("X-Amz-Date", date),
	}
	if creds.SessionToken != "" {
		fields["X-Amz-Security-Token"] = creds.SessionToken
		conditions = append(conditions, eq("X-Amz-Security-Token", creds.SessionToken))
	}
	conditions = append(conditions, sizeCondition(p))
	for _, f := range extra {
		fields[f.form] = f.formValue
		conditions = append(conditions, eq(f.form, f.formValue))
	}
	document, err := json.Marshal(map[string]any{
		"conditions": append(conditions, eq("key", p.Key)),
		"expiration": end.Format(time.RFC3339),
	})
	if err != nil {
		return nil, fmt.Errorf("%w: bucket %s: write a form's policy: %w", upload.ErrUnavailable, b.name, err)
	}
	policy := base64.StdEncoding.EncodeToString(document)
	fields["key"], fields["policy"] = p.Key, policy
	fields["X-Amz-Signature"] = d.sign(policy)
	return fields, nil
}

// sizeCondition bounds the file's length, not the form's.
func sizeCondition(p upload.Put) []any {
	if p.Size >= 0 {
		return []any{"content-length-range", p.Size, p.Size}
	}
	most := p.MaxSize
	if most <= 0 || most > upload.MaxPut {
		most = upload.MaxPut
	}
	return []any{"content-length-range", 0, most}
}
