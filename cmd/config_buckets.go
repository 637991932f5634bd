package cmd

import (
	"errors"
	"slices"
	"strings"

	"sidegate/policy/document"
	"sidegate/storage/s3"
)

var (
	// As AWS names general purpose buckets, with what other stores allow
	// besides: upper case and `_`.
	bucketName = newForm(`^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$`)
	regionName = newForm(`^[a-z0-9-]{1,64}$`)
)

// stsAudience is that of the ID tokens by which a role is assumed, as AWS's own
// tools have it.
const stsAudience = "sts.amazonaws.com"

func (l *configLoader) readBuckets(v document.Value, c *Config) {
	for _, e := range v.Entries() {
		if !e.At.CheckName(e.Key) {
			continue
		}
		m := e.Value.Map(l.keys["buckets.*"])
		b := BucketConfig{Name: e.Key}
		b.Bucket = l.matching(m.Need("bucket"), bucketName, "a bucket's name: 3 to 255 letters, digits and `.-_`")
		if strings.HasSuffix(b.Bucket, "--x-s3") {
			m.Get("bucket").Errorf("`buckets.%s.bucket`: S3 Express buckets sign in another way, which this version of sidegate does not have", e.Key)
		}
		b.Region = l.readRegion(m.Get("region"))
		b.Endpoint = l.readEndpoint(m.Get("endpoint"))
		b.PublicEndpoint = l.readEndpoint(m.Get("public_endpoint"))
		if b.PublicEndpoint == "" {
			b.PublicEndpoint = b.Endpoint
		}
		b.PathStyle = m.Get("path_style").Bool()
		if b.Store = s3.StoreOf(m.Get("store").String(), b.Endpoint); b.Store == "" {
			m.Get("endpoint").Errorf("`buckets.%s.endpoint`: say beside it what kind of store that is, with `store: minio`, versitygw, r2 or gcs, or with `store: other` "+
				"after a look whether it refuses x-amz- headers that nobody signed", e.Key)
		}
		b.Objects = l.readBucketObjects(m)
		l.readCredentials(m.Get("credentials"), &b)
		if !m.Failed() {
			checkBucket(m, b)
		}
		c.Buckets = append(c.Buckets, b)
	}
}

func (l *configLoader) readRegion(v document.Value) string {
	if v.Present() {
		return l.matching(v, regionName, "a region such as eu-central-1")
	}
	for _, name := range []string{"AWS_REGION", "AWS_DEFAULT_REGION"} {
		if region := l.env.get(name); region != "" {
			return region
		}
	}
	return "us-east-1"
}

// readEndpoint reads a base URL; an empty string is the default.
func (l *configLoader) readEndpoint(v document.Value) string {
	if s, ok := v.Text(); !ok || s == "" {
		return ""
	}
	if u := l.baseURL(v); u != nil {
		return u.String()
	}
	return ""
}

// readBucketObjects reads what is said of every object of a bucket; nil: nothing.
func (l *configLoader) readBucketObjects(m document.Map) *BucketObjects {
	var o BucketObjects
	if v := m.Get("sse"); v.IsMap() {
		key := v.Map(l.keys["buckets.*.sse"]).Need("kms_key")
		if s, ok := key.Text(); ok && s == "" {
			key.Errorf("`%s` is empty", key.Path())
		} else {
			o.KMSKey = s
		}
	} else if v.Present() {
		o.AES256 = v.OneOf("aes256") != ""
	}
	o.StorageClass = m.Get("storage_class").String()
	o.Tags, o.Metadata = texts(m.Get("tags")), texts(m.Get("metadata"))
	if o.AES256 || o.KMSKey != "" || o.StorageClass != "" || len(o.Tags) > 0 || len(o.Metadata) > 0 {
		return &o
	}
	return nil
}

// texts reads a mapping of the operator's own names to text.
func texts(v document.Value) map[string]string {
	if !v.Present() {
		return nil
	}
	out := map[string]string{}
	for _, e := range v.Entries() {
		if s, ok := e.Value.Text(); ok {
			out[e.Key] = s
		}
	}
	return out
}

// checkBucket says at its key what the store package cannot do, beside the
// mistakes that were found in reading.
func checkBucket(m document.Map, b BucketConfig) {
	o := b.options()
	var bad *s3.OptionError
	if !errors.As(o.Check(), &bad) || slices.Contains([]string{"bucket", "credentials", "public_endpoint"}, bad.Key) {
		return
	}
	if e := m.Get("endpoint"); bad.Key == "endpoint" && e.Present() && b.Endpoint == "" && e.Show() != "" {
		return
	}
	at := m.Value
	for _, key := range strings.SplitN(bad.Key, ".", 2) {
		if v := at.Field(key); v.Present() {
			at = v
		}
	}
	if !at.Failed() {
		at.Errorf("`%s.%s` %s", m.Path(), bad.Key, bad.Reason)
	}
}

// options are the bucket's as its package takes them; a role has no tokens yet.
func (b *BucketConfig) options() s3.Options {
	o := s3.Options{
		Bucket: b.Bucket, Region: b.Region, Endpoint: b.Endpoint, PublicEndpoint: b.PublicEndpoint, PathStyle: b.PathStyle, Store: b.Store,
		AccessKey: b.AccessKey.Reveal(), SecretKey: b.SecretKey.Reveal(),
	}
	if x := b.Objects; x != nil {
		o.AES256, o.KMSKey, o.StorageClass, o.Tags, o.Metadata = x.AES256, x.KMSKey, x.StorageClass, x.Tags, x.Metadata
	}
	if b.Role != nil && b.Role.ARN != "" {
		o.Role = &s3.Role{ARN: b.Role.ARN}
	}
	return o
}

func (l *configLoader) readCredentials(v document.Value, b *BucketConfig) {
	m := v.Map(l.keys["buckets.*.credentials"])
	if m.Get("role").Present() || m.Get("from").Present() || m.Get("audience").Present() {
		b.Role = l.readRole(m)
		return
	}
	access, secret := m.Get("access_key"), m.Get("secret_key")
	if access.Present() != secret.Present() {
		v.Errorf("`%s` needs both access_key and secret_key, or neither for AWS's default chain", v.Path())
	}
	b.AccessKey, b.SecretKey = l.secret(access), l.secret(secret)
	l.warnLiteral(secret)
}

// readRole reads a role that is assumed with the gateway's own ID tokens.
func (l *configLoader) readRole(m document.Map) *RoleConfig {
	for _, key := range []string{"access_key", "secret_key"} {
		if v := m.Get(key); v.Present() {
			v.Errorf("`%s` and `%s.role` exclude each other: a role needs no static key", v.Path(), m.Path())
		}
	}
	r := &RoleConfig{Audience: stsAudience}
	r.ARN, _ = m.Need("role").Text()
	if from := m.Need("from"); from.Present() {
		from.OneOf("google")
	}
	if v := m.Get("audience"); v.Present() {
		s, ok := v.Text()
		if ok && s == "" {
			v.Errorf("`%s` is empty", v.Path())
		}
		r.Audience = s
	}
	return r
}
