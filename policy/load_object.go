package policy

import (
	"slices"
	"strings"
	"time"

	"sidegate/policy/document"
)

// readObject reads what a served route signs, or does itself.
func (l *loader) readObject(m document.Map, r *Route) {
	v := m.Get("object")
	op := r.operation()
	if m.Get("serve").Present() && r.Serve == "" {
		return // refused already
	}
	if v.Present() && !op.signs() {
		v.Errorf("`object` is for routes that serve %s", anyOfWords(operationsOf("bucket")))
		return
	}
	if !op.signs() {
		return
	}
	name := "key"
	if r.Serve == ListObjects {
		name = "prefix"
	}
	if !v.Present() {
		m.Errorf("`serve: %s` needs an `object` with a `%s`", r.Serve, name)
		return
	}
	obj := &Object{Bucket: "default", ConfirmWithin: time.Hour}
	r.Object = obj
	o := v.Map(objectKeys)
	if !o.IsMap() {
		return
	}
	bucket := l.readBucket(o, obj)
	obj.Inline = o.Get("disposition").OneOf("attachment", "inline") == "inline"
	readExpires(o.Get("expires"), obj)
	for _, e := range o.Entries() {
		if slices.Contains(objectKeys.Known, e.Key) && !slices.Contains(op.object, e.Key) {
			e.Value.Errorf("%s", misplaced(e.Key, r.Serve))
		}
	}
	if name == "prefix" {
		readPrefix(o.Need("prefix"), r)
		return
	}
	readKey(o.Need("key"), r)
	if op.begins() {
		l.readUpload(o, r, bucket)
	}
}

// misplaced says of a key of `object` what it is for, and not the operation.
func misplaced(key, serve string) string {
	switch {
	case key == "key":
		return "`serve: " + serve + "` has a `prefix` and no `key`"
	case key == "checksum" && serve == Uppy:
		return "`checksum`: Uppy's clients name none, so that nothing could be uploaded here"
	case key == "disposition":
		return "`disposition` is for downloads"
	case slices.Contains([]string{"content_types", "max_bytes", "checksum", "overwrite", "confirm_within", "late", "metadata"}, key):
		return "`" + key + "` is for uploads"
	}
	return "`" + key + "` is for " + anyOfWords(operationsOf(key))
}

// anyOfWords is a list as a sentence has it.
func anyOfWords(words []string) string {
	n := len(words) - 1
	if n < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:n], ", ") + " or " + words[n]
}

// lacksObject reports whether a route has no object, and was not meant to have
// one: where `serve` or `object` has a mistake of its own, that is told. Of a
// guard, which is of no route, it cannot be told.
func (l *loader) lacksObject(r *Route) bool {
	if r == nil || r.Object != nil {
		return false
	}
	at := l.places[r]
	return !at.Field("object").Present() && (!at.Field("serve").Present() || r.Serve != "" && !r.operation().signs())
}

// readBucket gives what is known of the object's bucket: nothing speaks against
// one where that is not defined, or no sidegate.yaml is at hand.
func (l *loader) readBucket(o document.Map, obj *Object) Bucket {
	at := o.Value
	if b := o.Get("bucket"); b.Present() {
		obj.Bucket, at = b.Name(), b
	}
	if l.env == nil || obj.Bucket == "" {
		return Bucket{}
	}
	bucket, ok := l.env.Buckets[obj.Bucket]
	if !ok {
		at.Errorf("bucket `%s` is not defined in sidegate.yaml%s", obj.Bucket, document.DidYouMean(obj.Bucket, keysOf(l.env.Buckets)))
	}
	return bucket
}

// readPrefix reads where list_objects lists. The template is that of the folder,
// without the slash at its end.
func readPrefix(v document.Value, r *Route) {
	text, ok := v.Text()
	if !ok {
		return
	}
	folder, slash := strings.CutSuffix(text, "/")
	if !slash {
		v.Errorf("SG007 `%s` must end in `/`: users/a would also be the start of users/ab", v.Path())
		return
	}
	t, err := parseTemplate(folder)
	if err == nil {
		err = t.check()
	}
	if err != nil {
		v.Errorf("%s: %v", v.Path(), onPath(err, &r.path))
		return
	}
	r.Object.prefix = t
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
