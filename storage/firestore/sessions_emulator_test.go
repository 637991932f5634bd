package firestore

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sidegate/storage/upload"
)

func TestSessionsOnTheEmulator(t *testing.T) {
	client, err := Connect(t.Context(), Options{Project: "demo-sessions", Emulator: emulator(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	s, err := NewSessions(client, "uploadSessions")
	if err != nil {
		t.Fatal(err)
	}
	// The first answer of a cold emulator takes longer than a session's time-out.
	if _, err := s.read(t.Context(), "warm"); err != upload.ErrNotFound {
		t.Fatal(err)
	}

	t.Run("a life", func(t *testing.T) {
		one := aSession()
		if _, err := s.Get(t.Context(), one.ID); err != upload.ErrNotFound {
			t.Errorf("before: %v", err)
		}
		if err := s.Transition(t.Context(), upload.Issued, one); err != upload.ErrNotFound {
			t.Errorf("Transition before: %v", err)
		}
		if err := s.Create(t.Context(), one, nil); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(t.Context(), one.ID); err != nil || *got != *one {
			t.Errorf("got %+v, %v, want %+v", got, err, one)
		}
		other := *one
		other.UID = "u2"
		if err := s.Create(t.Context(), &other, nil); err != upload.ErrExists {
			t.Errorf("Create again: %v", err)
		}
		if err := s.Transition(t.Context(), upload.Ready, readied(one)); err != upload.ErrConflict {
			t.Errorf("Transition from another state: %v", err)
		}
		next := readied(one)
		if err := s.Transition(t.Context(), upload.Issued, next); err != nil || next.Changes != 1 {
			t.Error(next.Changes, err)
		}
		if got, err := s.Get(t.Context(), one.ID); err != nil || *got != *next {
			t.Errorf("got %+v, %v, want %+v", got, err, next)
		}
	})

	// The field names are what apps read: those of the first FastAPI version.
	t.Run("fields", func(t *testing.T) {
		one := aSession()
		if err := s.Create(t.Context(), one, nil); err != nil {
			t.Fatal(err)
		}
		doc, err := client.api.GetDocument(t.Context(), &firestorepb.GetDocumentRequest{
			Name: "projects/demo-sessions/databases/(default)/documents/uploadSessions/" + one.ID,
		})
		if err != nil {
			t.Fatal(err)
		}
		f := doc.Fields
		if f["uid"].GetStringValue() != "u1" || f["key"].GetStringValue() != one.Key || f["contentType"].GetStringValue() != "image/jpeg" ||
			f["status"].GetStringValue() != "issued" || !f["createdAt"].GetTimestampValue().AsTime().Equal(one.CreatedAt) {
			t.Errorf("fields %v", f)
		}
		// What an app adds, a transition leaves.
		doc.Fields = map[string]*firestorepb.Value{"seen": {ValueType: &firestorepb.Value_TimestampValue{TimestampValue: timestamppb.New(one.CreatedAt)}}}
		doc.UpdateTime, doc.CreateTime = nil, nil
		if _, err := client.api.UpdateDocument(t.Context(), &firestorepb.UpdateDocumentRequest{
			Document: doc, UpdateMask: &firestorepb.DocumentMask{FieldPaths: []string{"seen"}},
		}); err != nil {
			t.Fatal(err)
		}
		if err := s.Transition(t.Context(), upload.Issued, readied(one)); err != nil {
			t.Fatal(err)
		}
		doc, err = client.api.GetDocument(t.Context(), &firestorepb.GetDocumentRequest{Name: doc.Name})
		if err != nil || doc.Fields["seen"] == nil || doc.Fields["status"].GetStringValue() != "ready" {
			t.Errorf("%v, %v", doc, err)
		}
	})

	// F24: two gateways confirm at once.
	t.Run("at once", func(t *testing.T) {
		one := aSession()
		var made, moved atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				mine := *one
				mine.Record = string(rune('a' + i))
				switch err := s.Create(t.Context(), &mine, nil); {
				case err == nil:
					made.Add(1)
				case err != upload.ErrExists:
					t.Error(err)
				}
				next := readied(&mine)
				next.ReadyAt = next.ReadyAt.Add(time.Duration(i) * time.Second)
				switch err := s.Transition(t.Context(), upload.Issued, next); {
				case err == nil:
					moved.Add(1)
				case err != upload.ErrConflict:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if made.Load() != 1 || moved.Load() != 1 {
			t.Errorf("%d made, %d moved", made.Load(), moved.Load())
		}
	})
}
