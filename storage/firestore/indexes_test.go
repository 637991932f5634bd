package firestore

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"sidegate/storage/audit"
	"sidegate/storage/firestore/indextest"
	"sidegate/storage/upload"
)

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
	file *indextest.File
	seen func(*firestorepb.StructuredQuery)
}

func (s *watchedStream) SendMsg(m any) error {
	if req, ok := m.(*firestorepb.RunQueryRequest); ok {
		q := req.GetStructuredQuery()
		if err := s.file.Check(q); err != nil {
			s.t.Errorf("configs/firestore.indexes.json: %v", err)
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
	asked, file := queries(t), readIndexes(t)
	if len(asked) < 50 {
		t.Fatalf("only %d queries", len(asked))
	}
	for _, q := range asked {
		if err := file.Check(q); err != nil {
			t.Error(err)
		}
	}
	for _, what := range file.Unneeded(asked) {
		t.Errorf("no query needs %s", what)
	}
}

// TestKindsOfQueries: what an Inspector asks needs every index that there is, so
// that a missing one shows.
func TestKindsOfQueries(t *testing.T) {
	client, file := &Client{}, readIndexes(t)
	kinds := slices.Collect(maps.Values(client.kinds("auditLog", "uploadSessions")))
	for _, q := range kinds {
		if err := file.Check(q); err != nil || q.GetLimit().GetValue() > 1 {
			t.Error(err, q)
		}
	}
	for _, what := range file.Unneeded(kinds) {
		t.Errorf("without %s nothing is missed", what)
	}
	if n := len(client.kinds("auditLog", "")) + len(client.kinds("", "uploadSessions")); n != len(kinds) {
		t.Errorf("%d queries of %d", n, len(kinds))
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
