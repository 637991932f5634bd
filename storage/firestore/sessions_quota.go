package firestore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sidegate/storage/upload"
)

// quotasSuffix names the collection of counts after that of the sessions.
const quotasSuffix = "Quotas"

// keptAfter is how long a count outlives its window, before a TTL policy on
// expireAt may delete it: clocks of gateways differ.
const keptAfter = 24 * time.Hour

// A storedCount is what an account has counted in one window: a document that
// is made with the first session, and that changes with each.
type storedCount struct {
	upload.Usage
	name    string
	of      map[string]*firestorepb.Value // for people: whose it is
	expires time.Time
	updated *timestamppb.Timestamp // nil: there is no document
}

// countName is the full name of the document that s counts in: a hash, since a
// uid can be what no document's name can.
func (s *Sessions) countName(x *upload.Session) string {
	h := sha256.New()
	for _, part := range []string{x.Namespace, x.UID, x.Quota, strconv.FormatInt(x.QuotaWindow.Unix(), 10)} {
		fmt.Fprintf(h, "%d:%s", len(part), part) // so that no two lists are one
	}
	return s.quotas + hex.EncodeToString(h.Sum(nil))
}

// decodeCount reads the count that x belongs to; doc nil: nothing is counted yet.
func (s *Sessions) decodeCount(x *upload.Session, doc *firestorepb.Document) (*storedCount, error) {
	c := &storedCount{name: s.countName(x), of: map[string]*firestorepb.Value{
		"namespace": text(x.Namespace), "uid": text(x.UID), "quota": text(x.Quota), "quotaWindow": instant(x.QuotaWindow)}}
	if doc == nil {
		return c, nil
	}
	for name, v := range map[string]*int64{"objects": &c.Objects, "bytes": &c.Bytes} {
		field, ok := doc.Fields[name].GetValueType().(*firestorepb.Value_IntegerValue)
		if !ok || field.IntegerValue < 0 {
			return nil, fmt.Errorf("the count %s: field %s is not a number of what was counted", doc.Name, name)
		}
		*v = field.IntegerValue
	}
	expires := doc.Fields["expireAt"].GetTimestampValue()
	if expires == nil {
		return nil, errors.New("the count " + doc.Name + ": field expireAt is not a timestamp")
	}
	c.expires, c.updated = expires.AsTime(), updateTime(doc)
	return c, nil
}

// add is the write that counts x too, or a QuotaError.
func (c *storedCount) add(x *upload.Session, q *upload.Quota) (*firestorepb.Write, error) {
	sum, err := c.Add(x, q)
	if err != nil {
		return nil, err
	}
	expires := x.QuotaWindow.Add(q.Window + keptAfter)
	if expires.Before(c.expires) { // a policy made the window shorter meanwhile
		expires = c.expires
	}
	return c.write(sum, expires), nil
}

// sub is the write that gives x back.
func (c *storedCount) sub(x *upload.Session) *firestorepb.Write { return c.write(c.Sub(x), c.expires) }

func (c *storedCount) write(sum upload.Usage, expires time.Time) *firestorepb.Write {
	fields := map[string]*firestorepb.Value{
		"objects": integer(sum.Objects), "bytes": integer(sum.Bytes), "expireAt": instant(expires)}
	for name, v := range c.of {
		fields[name] = v
	}
	when := absent()
	if c.updated != nil {
		when = unchanged(c.updated)
	}
	return &firestorepb.Write{
		Operation:       &firestorepb.Write_Update{Update: &firestorepb.Document{Name: c.name, Fields: fields}},
		CurrentDocument: when,
	}
}
