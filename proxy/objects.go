package proxy

import (
	"errors"
	"strings"
	"time"

	"sidegate/storage/audit"
)

// planObject decides on what is done to what lies in a bucket already: the object
// under a key, or those below a prefix.
func (p *Proxy) planObject(x *exchange, operation string, complaint *problem) (decision, bool) {
	asked := x.ask()
	d := x.judged(asked)
	x.object = &audit.Object{Bucket: x.match.Route.Object.Bucket, Key: asked.Key, Operation: operation, Size: -1}
	if !d.allow {
		x.object.Key = asked.AskedKey
		return d, false
	}
	if complaint == nil {
		complaint = x.slashed(asked.Key)
	}
	if complaint != nil {
		return refuse(complaint.code, complaint).by(d), false
	}
	return x.spend(d)
}

// slashed refuses a path that ends in the key and a slash. Routes do not tell
// /a/ from /a, and no capture holds the slash: here it would be another key.
func (x *exchange) slashed(key string) *problem {
	if key != "" && strings.HasSuffix(x.target.path, key+"/") {
		return wrongField("key", "a key does not end in a slash")
	}
	return nil
}

func (p *Proxy) decideDelete(x *exchange) (decision, action) {
	d, ok := p.planObject(x, opDelete, noQuery(x))
	if !ok {
		return d, nil
	}
	return d, func(x *exchange) error {
		if err := p.o.Uploads.Delete(x.ctx, x.object.Bucket, x.object.Key); err != nil {
			return storeFailure(err)
		}
		return x.answerNothing()
	}
}

// Pages of what lies below a prefix: a store gives at most 1000 at once.
const (
	usualObjects = 100
	mostObjects  = 1000
)

func (p *Proxy) decideList(x *exchange) (decision, action) {
	x.upload.page.size = usualObjects
	pr := readQuery(x.target.query, func(name, value string) (*problem, bool) {
		if name == "prefix" {
			x.input.Prefix = value
			if value == "" || !strings.HasSuffix(value, "/") {
				return wrongField(name, "prefix ends in a slash"), true
			}
			return nil, true
		}
		return x.upload.page.set(name, value, mostObjects)
	})
	d, ok := p.planObject(x, opList, pr)
	if !ok {
		return d, nil
	}
	return d, p.listObjects
}

// listedObject is one of those below a prefix.
type listedObject struct {
	Key          string     `json:"key"`
	Size         int64      `json:"size"`
	ETag         string     `json:"etag"`
	LastModified *time.Time `json:"lastModified,omitempty"`
}

func (p *Proxy) listObjects(x *exchange) error {
	prefix := x.object.Key
	found, next, err := p.o.Uploads.ListObjects(x.ctx, x.object.Bucket, prefix, x.upload.page.token, x.upload.page.size)
	if err != nil {
		return storeFailure(err)
	}
	objects := make([]listedObject, len(found))
	for i := range found {
		o := &found[i]
		if !strings.HasPrefix(o.Key, prefix) { // names alone tell too much
			return unavailable("the store cannot be asked now", errors.New("the store listed a key outside of the prefix"))
		}
		objects[i] = listedObject{Key: o.Key, Size: o.Size, ETag: o.ETag}
		if !o.Modified.IsZero() {
			at := o.Modified.UTC()
			objects[i].LastModified = &at
		}
	}
	return x.answer(struct {
		Objects       []listedObject `json:"objects"`
		NextPageToken string         `json:"nextPageToken,omitempty"`
	}{objects, next})
}
