package firestore

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"

	"sidegate/storage/audit"
)

// A pagedServer has so many documents of each shard, and answers as Firestore
// does: from behind the cursor on, as many as are asked for.
type pagedServer struct {
	*fakeServer
	docs int
}

func (s *pagedServer) RunQuery(req *firestorepb.RunQueryRequest, stream firestorepb.Firestore_RunQueryServer) error {
	q := req.GetStructuredQuery()
	collection := q.From[0].CollectionId
	shard := ""
	for _, f := range append(q.Where.GetCompositeFilter().GetFilters(), q.Where) {
		if x := f.GetFieldFilter(); x.GetField().GetFieldPath() == "shard" {
			shard = fmt.Sprint(x.Value.GetIntegerValue())
		}
	}
	var list []*firestorepb.Document
	for i := range s.docs {
		list = append(list, &firestorepb.Document{Name: fmt.Sprintf("%s/%s/%s-%08d", req.Parent, collection, shard, i), Fields: map[string]*firestorepb.Value{
			"chain": text("c"), "seq": integer(int64(i)), "sha256": text(fmt.Sprintf("%064d", i)),
			"time": instant(time.Unix(int64(i), 0)), "type": text(audit.TypeDecision), "note": text("n")}})
	}
	if len(q.OrderBy) > 0 && q.OrderBy[0].Direction == firestorepb.StructuredQuery_DESCENDING {
		slices.Reverse(list)
	}
	if q.StartAt != nil {
		last := q.StartAt.Values[len(q.StartAt.Values)-1].GetReferenceValue()
		list = list[1+slices.IndexFunc(list, func(d *firestorepb.Document) bool { return d.Name == last }):]
	}
	for _, d := range list[:min(len(list), int(q.Limit.GetValue()))] {
		if err := stream.Send(&firestorepb.RunQueryResponse{Document: d}); err != nil {
			return err
		}
	}
	return nil
}

// TestEveryPageIsRead: a verify that read one page of each shard would call a
// log intact that it has not seen.
func TestEveryPageIsRead(t *testing.T) {
	for _, n := range []int{0, 1, auditPage - 1, auditPage, auditPage + 1, 2*auditPage + 3} {
		log := serveAny(t, &pagedServer{&fakeServer{}, n}, nil).Audit("auditLog", 0)
		seen := map[string]bool{}
		for l, err := range log.Lines(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			seen[l.File] = true
		}
		if len(seen) != n*auditShards {
			t.Errorf("%d of %d lines are read", len(seen), n*auditShards)
		}
		notes, err := log.Checkpoints(t.Context())
		if err != nil || len(notes) != n {
			t.Errorf("%d of %d checkpoints are read (%v)", len(notes), n, err)
		}
		for _, limit := range []int{1, 100, 10_000} {
			s := newestFirst{a: log, f: &audit.Filter{}, size: min(auditPage, limit/auditShards+8)}
			got := 0
			for ; ; got++ {
				d, err := s.peek(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				if d == nil {
					break
				}
				s.pop()
			}
			if got != n {
				t.Errorf("limit %d: %d of %d decisions of a shard are read", limit, got, n)
			}
		}
	}
}

// TestCopyOfADocumentIsNamed: the same line under another id.
func TestCopyOfADocumentIsNamed(t *testing.T) {
	log := (&Client{database: "projects/p/databases/d"}).Audit("auditLog", 0)
	raw := []byte(`{"type":"system","id":"e1","time":"2026-03-02T10:00:00.000000Z","chain":"c","seq":1,"prev":"` + fmt.Sprintf("%x", [sha256.Size]byte{}) + `"}`)
	l, err := audit.ParseLine(raw)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := log.document(&l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.line(doc); err != nil {
		t.Fatal(err)
	}
	doc.Name += "0"
	if _, err := log.line(doc); !audit.IsCorrupt(err) {
		t.Errorf("it says %v", err)
	}
}
