package policy

import (
	"strings"
	"time"

	"sidegate/policy/document"
)

// readObject reads what a presign route signs.
func (l *loader) readObject(m document.Map, r *Route) {
	v := m.Get("object")
	signs := r.Serve == PresignUpload || r.Serve == PresignDownload
	if m.Get("serve").Present() && r.Serve == "" {
		return // refused already
	}
	if v.Present() && !signs {
		v.Errorf("`object` is for routes that serve %s or %s", PresignUpload, PresignDownload)
		return
	}
	if !signs {
		return
	}
	if !v.Present() {
		m.Errorf("`serve: %s` needs an `object` with a `key`", r.Serve)
		return
	}
	obj := &Object{Bucket: "default", ConfirmWithin: time.Hour}
	r.Object = obj
	o := v.Map(objectKeys)
	if !o.IsMap() {
		return
	}
	l.readBucket(o, obj)
	obj.MaxBytes = o.Get("max_bytes").SizeIn(1, maxPut)
	obj.NeedChecksum = o.Get("checksum").OneOf("sha256")
	obj.Overwrite = o.Get("overwrite").Bool()
	obj.Inline = o.Get("disposition").OneOf("attachment", "inline") == "inline"
	if c := o.Get("confirm_within"); c.Present() {
		obj.ConfirmWithin = c.Duration()
	}
	readContentTypes(o.Get("content_types"), obj)
	readExpires(o.Get("expires"), obj)
	if r.Serve == PresignDownload {
		for _, key := range []string{"content_types", "max_bytes", "checksum", "overwrite", "confirm_within"} {
			if k := o.Get(key); k.Present() {
				k.Errorf("`%s` is for uploads", key)
			}
		}
	} else if k := o.Get("disposition"); k.Present() {
		k.Errorf("`disposition` is for downloads")
	}
	readKey(o.Need("key"), r)
}

// lacksObject reports whether a route has no object, and was not meant to have
// one: where `serve` or `object` has a mistake of its own, that is told. Of a
// guard, which is of no route, it cannot be told.
func (l *loader) lacksObject(r *Route) bool {
	if r == nil || r.Object != nil {
		return false
	}
	at := l.places[r]
	return !at.Field("object").Present() && (!at.Field("serve").Present() || r.Serve == ConfirmUpload)
}

func (l *loader) readBucket(o document.Map, obj *Object) {
	at := o.Value
	if b := o.Get("bucket"); b.Present() {
		obj.Bucket, at = b.Name(), b
	}
	if l.env != nil && !l.env.Buckets[obj.Bucket] && obj.Bucket != "" {
		at.Errorf("bucket `%s` is not defined in sidegate.yaml%s", obj.Bucket, document.DidYouMean(obj.Bucket, keysOf(l.env.Buckets)))
	}
}

func readKey(v document.Value, r *Route) {
	text, ok := v.Text()
	if !ok {
		return
	}
	t, err := parseTemplate(text)
	if err == nil {
		err = t.check()
	}
	if err != nil {
		v.Errorf("%s: %v", v.Path(), onPath(err, &r.path))
		return
	}
	r.Object.key = t
}

func readContentTypes(v document.Value, obj *Object) {
	for _, e := range texts(v) {
		t := e.Show()
		probe := t
		if start, wild := strings.CutSuffix(t, "/*"); wild {
			probe = start + "/x"
		}
		if t != "*/*" && mediaType(probe) != probe {
			e.Errorf("%q is no media type: lower case and without parameters, as image/png, image/* or */*", t)
		}
		obj.ContentTypes = append(obj.ContentTypes, t)
	}
}

// maxExpiry is the longest that S3 lets a signature hold (Signature Version 4
// query parameters: X-Amz-Expires at most 604800).
const maxExpiry = 7 * 24 * time.Hour

// minExpiry is the shortest that is of use: a signature's time has no
// fractions, so that of its first second next to nothing can be left.
const minExpiry = 2 * time.Second

// maxPut is the largest object that one PUT can store in S3 (PutObject: 5 GiB).
const maxPut = 5 << 30

func readExpires(v document.Value, obj *Object) {
	m := v.Map(expiresKeys)
	ok := true
	read := func(key string, otherwise time.Duration) time.Duration {
		e := m.Get(key)
		if !e.Present() {
			return otherwise
		}
		d := e.DurationIn(minExpiry, maxExpiry)
		if ok = ok && d > 0; d%time.Second != 0 {
			e.Errorf("`%s` must be whole seconds", e.Path())
		}
		return d
	}
	obj.MaxExpiry = read("max", 15*time.Minute)
	obj.MinExpiry = read("min", min(time.Minute, obj.MaxExpiry))
	obj.DefaultExpiry = read("default", max(min(15*time.Minute, obj.MaxExpiry), obj.MinExpiry))
	if ok && (obj.MinExpiry > obj.DefaultExpiry || obj.DefaultExpiry > obj.MaxExpiry) {
		v.Errorf("`%s`: min %s, default %s, max %s must not decrease", v.Path(),
			document.FormatDuration(obj.MinExpiry), document.FormatDuration(obj.DefaultExpiry), document.FormatDuration(obj.MaxExpiry))
	}
}
