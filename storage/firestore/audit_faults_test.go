package firestore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sidegate/storage/audit"
)

// wantDocuments fails unless the server has exactly the folder's lines.
func (s *fakeServer) wantDocuments(t *testing.T, dir string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for l, err := range audit.Lines(dir) {
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, d := range s.docs {
			if d.Fields["seq"].GetIntegerValue() == int64(l.Seq) {
				found++
				if got := d.Fields["line"].GetStringValue(); got != string(l.Raw) {
					t.Errorf("seq %d is %q", l.Seq, got)
				}
			}
		}
		if found != 1 {
			t.Errorf("seq %d is there %d times", l.Seq, found)
		}
		n++
	}
	if len(s.docs) != n || s.doubts > 0 {
		t.Errorf("%d documents, the log has %d; %d writes without precondition", len(s.docs), n, s.doubts)
	}
}

// TestF29AnswerThatDoesNotCome: Firestore stores the batch and says nothing
// until the call's time is over, twice; then it goes on.
func TestF29AnswerThatDoesNotCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeServer{
			call:   func(int) (codes.Code, bool) { return codes.OK, true },
			answer: func(n int, _ *firestorepb.BatchWriteResponse) bool { return n <= 2 },
		}
		dir := t.TempDir()
		l := open(t, audit.Options{Dir: dir, Sink: serve(t, s).Audit("auditLog", 0)})
		begin := time.Now()
		ticket, err := l.Append(decision(1))
		if err != nil {
			t.Fatal(err)
		}
		if err := ticket.Wait(t.Context(), audit.Machine); !errors.Is(err, audit.ErrOutage) || time.Since(begin) != 10*time.Second {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		for i := range 9 {
			if _, err := l.Append(decision(i)); err != nil {
				t.Fatal(err)
			}
		}
		closed(t, l)
		if got := l.Stats(); got.Failures["DEADLINE_EXCEEDED"] != 2 || got.Shipped != 10 {
			t.Errorf("%+v", got)
		}
		s.wantDocuments(t, dir)
	})
}

// TestF29AnswerOfAnotherLength is no answer.
func TestF29AnswerOfAnotherLength(t *testing.T) {
	for _, change := range []func(*firestorepb.BatchWriteResponse){
		func(r *firestorepb.BatchWriteResponse) { r.Status = nil },
		func(r *firestorepb.BatchWriteResponse) { r.Status = r.Status[1:] },
		func(r *firestorepb.BatchWriteResponse) { r.Status = append(r.Status, &rpcstatus.Status{}) },
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &fakeServer{call: func(int) (codes.Code, bool) { return codes.OK, true }}
			s.answer = func(n int, r *firestorepb.BatchWriteResponse) bool {
				if n <= 2 {
					change(r)
				}
				return false
			}
			dir := t.TempDir()
			l := ship(t, dir, serve(t, s).Audit("auditLog", 0))
			if got := l.Stats(); got.Failures["other"] != 2 || got.Shipped != 10 {
				t.Errorf("%+v", got)
			}
			s.wantDocuments(t, dir)
		})
	}
}

// TestF3RandomCodes mixes codes of calls and of writes, stored or not, with
// answers that do not come and with restarts.
func TestF3RandomCodes(t *testing.T) {
	base := rand.Uint64()
	t.Logf("seeds from %d", base)
	for seed := base; seed < base+10; seed++ {
		synctest.Test(t, func(t *testing.T) { shipThroughCodes(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// anyCode is a failure that a healthy event can get.
func anyCode(r *rand.Rand) codes.Code {
	for {
		if c := codes.Code(1 + r.IntN(int(codes.Unauthenticated))); c != codes.InvalidArgument && c != codes.AlreadyExists {
			return c
		}
	}
}

func shipThroughCodes(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 0))
	calm := false
	s := &fakeServer{}
	s.call = func(int) (codes.Code, bool) {
		if calm || r.IntN(2) == 0 {
			return codes.OK, true
		}
		return anyCode(r), r.IntN(2) == 0
	}
	s.write = func(*firestorepb.Document) codes.Code {
		if calm || r.IntN(8) > 0 {
			return codes.OK
		}
		return anyCode(r)
	}
	s.answer = func(_ int, resp *firestorepb.BatchWriteResponse) bool {
		for _, status := range resp.Status { // stored, and said not to be
			if !calm && r.IntN(20) == 0 {
				status.Code = int32(anyCode(r))
			}
		}
		return !calm && r.IntN(10) == 0
	}
	log := serve(t, s).Audit("auditLog", time.Hour)
	dir := t.TempDir()
	for run := range 3 {
		l := open(t, audit.Options{Dir: dir, Sink: log, Segment: 10_000})
		for i := range 40 {
			ticket, err := l.Append(decision(i))
			if err != nil {
				t.Fatal(err)
			}
			if i%10 == 9 {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				if err := ticket.Wait(ctx, audit.Machine); err != nil && !errors.Is(err, audit.ErrOutage) {
					t.Error(fmt.Errorf("run %d: %w", run, err))
				}
				cancel()
			}
		}
		if run == 2 {
			s.mu.Lock()
			calm = true
			s.mu.Unlock()
			closed(t, l)
			continue
		}
		over, cancel := context.WithCancel(t.Context())
		cancel()
		_ = l.Close(over)
	}
	s.wantDocuments(t, dir)
}

// TestLineThatNoCallCanCarry: a disk can change a line that waits. What cannot be
// sent at all is no outage, which would hold up all that is behind it for good.
func TestLineThatNoCallCanCarry(t *testing.T) {
	s := &fakeServer{call: func(int) (codes.Code, bool) { return codes.OK, true }}
	log := serve(t, s).Audit("auditLog", 0)
	const line = `{"type":"decision","id":"1","time":"2026-11-23T12:00:00Z","chain":"c","seq":1,"prev":"0000000000000000000000000000000000000000000000000000000000000000","record":"%s"}`
	for value, storable := range map[string]bool{"a": true, "\xff": false} {
		l, err := audit.ParseLine(fmt.Appendf(nil, line, value))
		if err != nil {
			t.Fatal(err)
		}
		if _, err = log.Store(t.Context(), []audit.Line{l}); errors.Is(err, audit.ErrUnstorable) == storable {
			t.Errorf("%q: %v", value, err)
		}
	}
}

// A failingReads answers queries with an error so many times.
type failingReads struct {
	*fakeServer
	left atomic.Int64
	code codes.Code
}

func (s *failingReads) RunQuery(req *firestorepb.RunQueryRequest, stream firestorepb.Firestore_RunQueryServer) error {
	if s.left.Add(-1) >= 0 {
		return status.Error(s.code, "as asked")
	}
	return s.fakeServer.RunQuery(req, stream)
}

// TestReadingGivesUp: whoever reads the log rides out a short outage, and is told
// of a long one instead of waiting for ever.
func TestReadingGivesUp(t *testing.T) {
	read := func(c *Client) (n int, err error) {
		for _, e := range c.Audit("auditLog", 0).Tail(t.Context(), 8, time.Time{}) {
			if e != nil {
				return n, e
			}
			n++
		}
		return n, nil
	}
	s := &failingReads{fakeServer: &fakeServer{}, code: codes.Unavailable}
	c := serveAny(t, s, nil)
	s.left.Store(3)
	if n, err := read(c); err != nil || n != 8 {
		t.Errorf("behind a short outage: %d events, %v", n, err)
	}
	c.patience = time.Millisecond
	s.left.Store(1 << 30)
	if _, err := read(c); status.Code(err) != codes.Unavailable {
		t.Errorf("in a long one: %v", err)
	}
	s.code = codes.PermissionDenied
	c.patience = patience
	s.left.Store(1)
	if _, err := read(c); status.Code(err) != codes.PermissionDenied {
		t.Errorf("what waiting does not mend: %v", err)
	}
}
