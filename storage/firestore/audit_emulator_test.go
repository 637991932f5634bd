package firestore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc"

	"sidegate/storage/audit"
)

func connect(t testing.TB, o Options) *Client {
	t.Helper()
	if o.Project == "" {
		o.Project = "demo-" + audit.NewID()[:8]
	}
	if o.Emulator != "" {
		o.dial = grpc.WithStreamInterceptor(watchQueries(t, nil))
	}
	c, err := Connect(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func open(t testing.TB, o audit.Options) *audit.Ledger {
	t.Helper()
	l, err := audit.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func closed(t testing.TB, l *audit.Ledger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
}

func decision(i int) *audit.Event {
	return &audit.Event{
		Type: audit.TypeDecision, Record: audit.NewID(),
		Request:  &audit.Request{Method: "PUT", Path: "/\xff\x1b[2J"},
		Identity: &audit.Identity{Namespace: "users", UID: fmt.Sprintf("u%d\xfe", i%3)},
		Decision: &audit.Decision{Effect: "deny", Status: 403, Route: "files"},
		Object:   &audit.Object{Bucket: "default", Key: fmt.Sprintf("k%d", i)},
	}
}

// TestShippedToEmulator writes two ledgers into one collection, restarts one,
// reads everything back, and then changes what is stored.
func TestShippedToEmulator(t *testing.T) {
	c := connect(t, Options{Emulator: emulator(t)})
	log := c.Audit("auditLog", 24*time.Hour)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()

	dirs := []string{t.TempDir(), t.TempDir(), ""}
	dirs[2] = dirs[0]
	for round, dir := range dirs {
		l := open(t, audit.Options{Dir: dir, Sink: log})
		var wg sync.WaitGroup
		for i := range 250 {
			ticket, err := l.Append(decision(i))
			if err != nil {
				t.Fatal(err)
			}
			if i%50 == 49 {
				wg.Go(func() {
					if err := ticket.Wait(ctx, audit.Machine); err != nil {
						t.Errorf("round %d: %v", round, err)
					}
				})
			}
		}
		wg.Wait()
		closed(t, l)
	}

	for at, want := range map[time.Time]bool{time.Now().Add(time.Hour): true, time.Unix(0, 0): false} {
		if old, err := log.HasBefore(ctx, at); err != nil || old != want {
			t.Errorf("an event before %v: %v, %v", at, old, err)
		}
	}
	reports, err := audit.Verify(ctx, log.Lines(ctx), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	lasts := map[uint64]bool{}
	for _, r := range reports {
		if r.Broken != nil || r.First != 1 || len(r.Gaps)+len(r.Stubs) > 0 {
			t.Errorf("%+v", r)
		}
		lasts[r.Last] = true
	}
	if len(reports) != 2 || !lasts[250] || !lasts[500] {
		t.Errorf("%d chains, ends %v", len(reports), lasts)
	}
	tail, named := tailOf(t, log, 7)
	if len(tail) != 7 || len(named) != 0 {
		t.Fatalf("%d lines, %v", len(tail), named)
	}
	for i := range tail[1:] {
		if tail[i+1].Time.Before(tail[i].Time) {
			t.Error("the tail is not in order")
		}
	}
	folder, err := audit.Tail(dirs[2], 1)
	if err != nil || string(folder[0].Raw) != string(tail[6].Raw) {
		t.Errorf("the collection ends with %s, the folder with %s", tail[6].Raw, folder[0].Raw)
	}
	changeField(t, c, "auditLog", &tail[3])
	if lines, named := tailOf(t, log, 7); len(lines) != 6 || !slices.Equal(named, []uint64{tail[3].Seq}) {
		t.Errorf("a document was changed: the tail is %d lines and names seqs %v", len(lines), named)
	}
	reports, err = audit.Verify(ctx, log.Lines(ctx), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	broken := 0
	for _, r := range reports {
		if r.Broken != nil {
			broken++
			if r.Broken.Seq != tail[3].Seq {
				t.Errorf("seq %d was changed, verify names %v", tail[3].Seq, r.Broken)
			}
		}
	}
	if broken != 1 {
		t.Errorf("%d chains are broken", broken)
	}
}

// tailOf is the tail, and the seqs of what is broken in it.
func tailOf(t *testing.T, log *Audit, n int) (lines []audit.Line, named []uint64) {
	t.Helper()
	for l, err := range log.Tail(context.Background(), n, time.Time{}) {
		var corrupt *audit.CorruptError
		switch {
		case errors.As(err, &corrupt):
			named = append(named, corrupt.Seq)
		case err != nil:
			t.Fatal(err)
		default:
			lines = append(lines, l)
		}
	}
	return lines, named
}

// changeField lets a document's route say something else than its line.
func changeField(t *testing.T, c *Client, collection string, l *audit.Line) {
	t.Helper()
	_, err := c.api.UpdateDocument(context.Background(), &firestorepb.UpdateDocumentRequest{
		Document: &firestorepb.Document{
			Name:   c.documents() + "/" + collection + "/" + l.File,
			Fields: map[string]*firestorepb.Value{"route": text("innocent")},
		},
		UpdateMask: &firestorepb.DocumentMask{FieldPaths: []string{"route"}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestSameLinesTwiceAreStoredOnce is the answer that got lost on its way.
func TestSameLinesTwiceAreStoredOnce(t *testing.T) {
	log := connect(t, Options{Emulator: emulator(t)}).Audit("auditLog", 0)
	dir := t.TempDir()
	l := open(t, audit.Options{Dir: dir})
	for i := range 20 {
		if _, err := l.Append(decision(i)); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, l)
	lines, err := audit.Tail(dir, 20)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		each, err := log.Store(context.Background(), lines)
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range each {
			if err != nil {
				t.Error(err)
			}
		}
	}
	n := 0
	for _, err := range log.Lines(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 20 {
		t.Errorf("%d documents", n)
	}
}
