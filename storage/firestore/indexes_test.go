package firestore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// A need is the index that a query cannot do without in production; the
// emulator answers without any. The rules are Firestore's
// (firebase.google.com/docs/firestore/query-data/index-overview).
type need struct {
	collection string
	equal      []string // in any order
	order      []string // behind them: field and direction
}

func (n need) String() string {
	return fmt.Sprintf("%s: %s, then %s", n.collection, strings.Join(n.equal, "+"), strings.Join(n.order, " "))
}

// needOf derives it. It fails at what this package does not ask, rather than
// to guess what that would need.
func needOf(q *firestorepb.StructuredQuery) (need, error) {
	n := need{}
	if len(q.From) != 1 || q.From[0].AllDescendants {
		return n, fmt.Errorf("not of one collection: %v", q.From)
	}
	n.collection = q.From[0].CollectionId
	var ranges []string
	var walk func(*firestorepb.StructuredQuery_Filter) error
	walk = func(f *firestorepb.StructuredQuery_Filter) error {
		if c := f.GetCompositeFilter(); c != nil && c.Op == firestorepb.StructuredQuery_CompositeFilter_AND {
			for _, sub := range c.Filters {
				if err := walk(sub); err != nil {
					return err
				}
			}
			return nil
		}
		x := f.GetFieldFilter()
		switch x.GetOp() {
		case firestorepb.StructuredQuery_FieldFilter_EQUAL, firestorepb.StructuredQuery_FieldFilter_IN:
			n.equal = append(n.equal, x.Field.FieldPath)
		case firestorepb.StructuredQuery_FieldFilter_LESS_THAN, firestorepb.StructuredQuery_FieldFilter_LESS_THAN_OR_EQUAL, firestorepb.StructuredQuery_FieldFilter_GREATER_THAN_OR_EQUAL:
			ranges = append(ranges, x.Field.FieldPath)
		default:
			return fmt.Errorf("a filter whose index is not known here: %v", f)
		}
		return nil
	}
	if q.Where != nil {
		if err := walk(q.Where); err != nil {
			return n, err
		}
	}
	direction := "ASCENDING"
	for _, o := range q.OrderBy {
		direction = o.Direction.String()
		n.order = append(n.order, o.Field.FieldPath+":"+direction)
	}
	for _, field := range ranges {
		if len(n.order) == 0 || !strings.HasPrefix(n.order[0], field+":") {
			return n, fmt.Errorf("a range of %s, which is not first in the order %v", field, n.order)
		}
	}
	// Every index ends with the name, in the direction of what is before it.
	if last := len(n.order) - 1; last >= 0 && n.order[last] == "__name__:"+direction &&
		(last == 0 && direction == "ASCENDING" || last > 0 && strings.HasSuffix(n.order[last-1], ":"+direction)) {
		n.order = n.order[:last]
	}
	slices.Sort(n.equal)
	return n, nil
}

// covers says whether the file has what a query needs.
func (f *indexFile) covers(n need) bool {
	switch len(n.equal) + len(n.order) {
	case 0:
		return true // by name alone, as documents are stored
	case 1:
		return f.single(n)
	}
	return slices.ContainsFunc(f.Indexes, func(x compositeIndex) bool {
		if x.CollectionGroup != n.collection || x.QueryScope != "COLLECTION" || len(x.Fields) != len(n.equal)+len(n.order) {
			return false
		}
		var equal, order []string
		for i, field := range x.Fields {
			if i < len(n.equal) {
				equal = append(equal, field.FieldPath)
			} else {
				order = append(order, field.FieldPath+":"+field.Order)
			}
		}
		slices.Sort(equal)
		return slices.Equal(equal, n.equal) && slices.Equal(order, n.order)
	})
}

// single: Firestore indexes each field by itself, unless an override says
// otherwise.
func (f *indexFile) single(n need) bool {
	field, order := "", ""
	if len(n.equal) == 1 {
		field = n.equal[0]
	} else {
		field, order, _ = strings.Cut(n.order[0], ":")
	}
	for _, o := range f.FieldOverrides {
		if o.CollectionGroup == n.collection && o.FieldPath == field {
			for _, x := range o.Indexes {
				if x.QueryScope == "COLLECTION" && (order == "" || x.Order == order) {
					return true
				}
			}
			return false
		}
	}
	return true
}

// watchQueries lets every test fail that makes a query without an index, and
// notes what was asked.
func watchQueries(t testing.TB, seen func(*firestorepb.StructuredQuery)) grpc.StreamClientInterceptor {
	file := readIndexes(t)
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		s, err := streamer(ctx, desc, cc, method, opts...)
		return &watchedStream{s, t, file, seen}, err
	}
}

type watchedStream struct {
	grpc.ClientStream
	t    testing.TB
	file indexFile
	seen func(*firestorepb.StructuredQuery)
}

func (s *watchedStream) SendMsg(m any) error {
	if req, ok := m.(*firestorepb.RunQueryRequest); ok {
		q := req.GetStructuredQuery()
		n, err := needOf(q)
		if err != nil {
			s.t.Error(err)
		} else if !s.file.covers(n) {
			s.t.Errorf("configs/firestore.indexes.json has no index for %s", n)
		}
		if s.seen != nil {
			s.seen(q)
		}
	}
	return s.ClientStream.SendMsg(m)
}

// queries are all that the functions of this package can ask: each is called in
// each way that changes a query.
func queries(t *testing.T) []*firestorepb.StructuredQuery {
	t.Helper()
	var mu sync.Mutex
	var asked []*firestorepb.StructuredQuery
	s := &fakeServer{}
	c := serveWatched(t, s, func(q *firestorepb.StructuredQuery) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, proto.Clone(q).(*firestorepb.StructuredQuery))
	})
	a, ctx := c.Audit("auditLog", 0), context.Background()
	now := time.Now()
	fail := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range a.Lines(ctx) {
		fail(err)
	}
	for _, since := range []time.Time{{}, now} {
		for _, err := range a.Tail(ctx, 10, since) {
			fail(err)
		}
	}
	one := []string{"x"}
	for _, f := range []audit.Filter{
		{}, {UID: one}, {Key: one}, {Route: one}, {Record: one}, {Code: one},
		{Route: one, Effect: []string{"deny"}}, {Effect: []string{"deny"}}, {UID: one, Key: one, Route: one},
	} {
		for _, since := range []time.Time{{}, now} {
			for _, until := range []time.Time{{}, now.Add(time.Hour)} {
				f.Since, f.Until = since, until
				for _, err := range a.Decisions(ctx, &f, 10) {
					fail(err)
				}
			}
		}
	}
	for _, err := range a.Outcomes(ctx, one) {
		fail(err)
	}
	_, err := a.Checkpoints(ctx)
	fail(err)
	_, err = a.HasBefore(ctx, now)
	fail(err)
	uploads, err := NewSessions(c, "uploadSessions")
	fail(err)
	for _, cursor := range []string{"", "1.a"} {
		_, _, err = uploads.List(ctx, "users", "u1", cursor, 10)
		fail(err)
	}
	if _, err = uploads.Find(ctx, "users", "u1", "k"); err != upload.ErrNotFound {
		fail(err)
	}
	_, err = uploads.Due(ctx, now, 10)
	fail(err)
	return asked
}

// TestEveryQueryHasItsIndex holds what is asked against the file: every query
// has its index, and without any one of the indexes some query has none.
func TestEveryQueryHasItsIndex(t *testing.T) {
	file := readIndexes(t)
	var needs []need
	for _, q := range queries(t) {
		n, err := needOf(q)
		if err != nil {
			t.Fatal(err)
		}
		needs = append(needs, n)
	}
	all := func(f indexFile) bool {
		return !slices.ContainsFunc(needs, func(n need) bool { return !f.covers(n) })
	}
	if len(needs) < 50 || !all(file) {
		t.Fatalf("%d queries, not all have an index", len(needs))
	}
	for i, x := range file.Indexes {
		less := file
		less.Indexes = slices.Delete(slices.Clone(file.Indexes), i, i+1)
		if all(less) {
			t.Errorf("no query needs the index %v", x)
		}
		less.Indexes = slices.Clone(file.Indexes)
		less.Indexes[i].Fields = slices.Clone(x.Fields)
		last := &less.Indexes[i].Fields[len(x.Fields)-1]
		last.Order = map[string]string{"ASCENDING": "DESCENDING", "DESCENDING": "ASCENDING"}[last.Order]
		if all(less) {
			t.Errorf("the direction of the index %v does not matter", x)
		}
	}
	for i, o := range file.FieldOverrides {
		if len(o.Indexes) > 0 {
			less := file
			less.FieldOverrides = slices.Clone(file.FieldOverrides)
			less.FieldOverrides[i].Indexes = nil
			if all(less) {
				t.Errorf("no query needs the index of %s", o.FieldPath)
			}
		}
	}
}

// TestNoIndexIsAHotRange: what rises with time may only be indexed behind
// shard, also where something else is before it: all that is allowed on one
// busy route would be one range. Or it is behind the user whose sessions are
// asked for: a range for each, that grows no faster than one user begins uploads.
func TestNoIndexIsAHotRange(t *testing.T) {
	for _, x := range readIndexes(t).Indexes {
		users := x.CollectionGroup == "uploadSessions" && x.Fields[0].FieldPath == "uid" && x.Fields[1].FieldPath == "namespace"
		if x.Fields[0].FieldPath != "shard" && !users {
			t.Errorf("%v does not begin with shard", x)
		}
	}
}
