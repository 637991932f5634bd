package firestore

import (
	"context"
	"encoding/json"
	"iter"
	"slices"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"

	"sidegate/storage/audit"
)

// Decisions yields the decisions that f asks for, newest first. Firestore finds
// them by key, uid, or route and effect, whichever is asked for first in this
// order, and by time; the rest is looked at here, in documents that were read.
// limit is about how many the caller wants, so that not more are read. A
// document that is not as it was stored is an *audit.CorruptError, and the
// decisions go on behind it. Any other error is the last.
func (a *Audit) Decisions(ctx context.Context, f *audit.Filter, limit int) iter.Seq2[audit.Line, error] {
	return func(yield func(audit.Line, error) bool) {
		if len(f.Record) > 0 {
			a.decisionsOf(ctx, f, yield)
			return
		}
		var streams []*newestFirst
		for _, equal := range branches(f) {
			for n := range int64(auditShards) {
				streams = append(streams, &newestFirst{a: a, f: f, shard: n, equal: equal, size: min(auditPage, limit/auditShards+8)})
			}
		}
		for {
			var first *newestFirst
			for _, s := range streams {
				doc, err := s.peek(ctx)
				if err != nil {
					yield(audit.Line{}, err)
					return
				}
				if doc != nil && (first == nil || newer(doc, first.page[0])) {
					first = s
				}
			}
			if first == nil {
				return
			}
			if l, err, ok := a.asked(first.pop(), f); ok && !yield(l, err) {
				return
			}
		}
	}
}

// decisionsOf are found by their records, of which there are few.
func (a *Audit) decisionsOf(ctx context.Context, f *audit.Filter, yield func(audit.Line, error) bool) {
	docs, err := a.byRecord(ctx, spelled(f.Record))
	if err != nil {
		yield(audit.Line{}, err)
		return
	}
	slices.SortFunc(docs, func(x, y *firestorepb.Document) int {
		if newer(x, y) {
			return -1
		}
		return 1
	})
	for _, d := range docs {
		if l, err, ok := a.asked(d, f); ok && !yield(l, err) {
			return
		}
	}
}

// asked reads a document; ok is false where nothing is to be told of it.
func (a *Audit) asked(d *firestorepb.Document, f *audit.Filter) (l audit.Line, err error, ok bool) {
	l, err = a.line(d)
	if err != nil || l.Stub {
		return l, err, err != nil
	}
	ok, err = f.Match(&l)
	return l, err, ok || err != nil
}

// Outcomes yields the outcomes of records. A document of theirs that is not as it
// was stored, whatever it says that it is, is an *audit.CorruptError, and the
// outcomes go on behind it. Any other error is the last.
func (a *Audit) Outcomes(ctx context.Context, records []string) iter.Seq2[audit.Line, error] {
	return func(yield func(audit.Line, error) bool) {
		for chunk := range slices.Chunk(records, maxIn) {
			docs, err := a.byRecord(ctx, chunk)
			if err != nil {
				yield(audit.Line{}, err)
				return
			}
			for _, d := range docs {
				l, err := a.line(d)
				if (err != nil || l.Type == audit.TypeOutcome) && !yield(l, err) {
					return
				}
			}
		}
	}
}

// maxIn is how many values `in` takes
// (firebase.google.com/docs/firestore/query-data/queries).
const maxIn = 30

// byRecord asks for the events of at most maxIn records.
func (a *Audit) byRecord(ctx context.Context, records []string) ([]*firestorepb.Document, error) {
	return a.run(ctx, a.ofRecords(records))
}

// ofRecords has the index of the field alone: records are random, so it has no
// hot range.
func (a *Audit) ofRecords(records []string) *firestorepb.StructuredQuery {
	var values []*firestorepb.Value
	for _, r := range records {
		values = append(values, text(r))
	}
	list := &firestorepb.Value{ValueType: &firestorepb.Value_ArrayValue{ArrayValue: &firestorepb.ArrayValue{Values: values}}}
	return &firestorepb.StructuredQuery{
		From:  []*firestorepb.StructuredQuery_CollectionSelector{{CollectionId: a.collection}},
		Where: compare("record", firestorepb.StructuredQuery_FieldFilter_IN, list),
	}
}

// severalRoutes stands in a document's field route for a summary of refusals,
// which is about several. No route can be named so.
const severalRoutes = "*"

// branches are what is asked of Firestore to find all that f asks for: each one
// is a set of fields and their values. Only what is here has its indexes in
// configs/firestore.indexes.json.
func branches(f *audit.Filter) (list []map[string]string) {
	switch {
	case len(f.Key) > 0:
		for _, v := range spelled(f.Key) {
			list = append(list, map[string]string{"key": v})
		}
	case len(f.UID) > 0:
		for _, v := range spelled(f.UID) {
			list = append(list, map[string]string{"uid": v})
		}
	case len(f.Route) > 0:
		effects := f.Effect
		if len(effects) == 0 {
			effects = []string{"allow", "deny", "preflight"}
		}
		for _, effect := range effects {
			for _, route := range append(spelled(f.Route), severalRoutes) {
				if route != severalRoutes || effect == "deny" {
					list = append(list, map[string]string{"effect": effect, "route": route})
				}
			}
		}
	default:
		list = append(list, nil)
	}
	return list
}

// spelled are values as a document's field has them: what is no UTF-8 is
// escaped there.
func spelled(values []string) (list []string) {
	for _, v := range values {
		var s string
		if json.Unmarshal([]byte(`"`+audit.Printable(v)+`"`), &s) == nil && !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

func newer(x, y *firestorepb.Document) bool {
	tx, ty := timeOf(x), timeOf(y)
	if !tx.Equal(ty) {
		return tx.After(ty)
	}
	return before(y, x)
}

// timeOf is by what documents are ordered. Firestore puts most of what is no
// time behind all times. So must this: such a document would else hold up those
// of its shard, the newest first, until nobody asks for more.
func timeOf(d *firestorepb.Document) time.Time {
	if t := d.Fields["time"].GetTimestampValue(); t != nil {
		return t.AsTime()
	}
	return noTime
}

var noTime = time.Unix(1<<40, 0) // later than any of Firestore's

// A newestFirst reads one shard's documents of one branch, page by page. Each
// shard is asked alone, and merged here: an equality filter is what an index
// that begins with shard is sure to serve, in one range.
type newestFirst struct {
	a     *Audit
	f     *audit.Filter
	shard int64
	equal map[string]string
	size  int
	page  []*firestorepb.Document
	last  *firestorepb.Document
	over  bool
}

func (s *newestFirst) peek(ctx context.Context) (*firestorepb.Document, error) {
	if len(s.page) == 0 && !s.over {
		var err error
		if s.page, err = s.a.run(ctx, s.query()); err != nil {
			return nil, err
		}
		s.over = len(s.page) < s.size
		s.size = auditPage // who comes back reads on
	}
	if len(s.page) == 0 {
		return nil, nil
	}
	return s.page[0], nil
}

func (s *newestFirst) query() *firestorepb.StructuredQuery {
	q := s.a.query(s.shard, s.size, descending("time"), descending("__name__"))
	where := []*firestorepb.StructuredQuery_Filter{q.Where}
	for field, v := range s.equal {
		where = append(where, compare(field, firestorepb.StructuredQuery_FieldFilter_EQUAL, text(v)))
	}
	if !s.f.Since.IsZero() {
		where = append(where, compare("time", firestorepb.StructuredQuery_FieldFilter_GREATER_THAN_OR_EQUAL, instant(s.f.Since)))
	}
	if !s.f.Until.IsZero() {
		where = append(where, compare("time", firestorepb.StructuredQuery_FieldFilter_LESS_THAN, instant(s.f.Until)))
	}
	if len(where) > 1 {
		q.Where = and(where...)
	}
	if s.last != nil {
		q.StartAt = &firestorepb.Cursor{Values: []*firestorepb.Value{s.last.Fields["time"], reference(s.last.Name)}}
	}
	return q
}

func (s *newestFirst) pop() *firestorepb.Document {
	s.last = s.page[0]
	s.page = s.page[1:]
	return s.last
}
