package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t testing.TB, o Options) *Ledger {
	t.Helper()
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closed(t, l) })
	return l
}

func closed(t testing.TB, l *Ledger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	l.Close(ctx)
}

// put appends an event with that record id and waits.
func put(t testing.TB, l *Ledger, record string, s Survive) error {
	t.Helper()
	e := request()
	e.Record = record
	ticket, err := l.Append(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return ticket.Wait(ctx, s)
}

func mustPut(t testing.TB, l *Ledger, record string, s Survive) {
	t.Helper()
	if err := put(t, l, record, s); err != nil {
		t.Fatal(err)
	}
}

// fill makes a closed ledger of n events.
func fill(t testing.TB, o Options, n int) {
	t.Helper()
	l := open(t, o)
	for i := range n {
		mustPut(t, l, fmt.Sprint(i+1), Crash)
	}
	closed(t, l)
}

// verified fails unless the folder's chain is whole.
func verified(t testing.TB, dir string) Report {
	t.Helper()
	r, err := VerifyDir(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if r.Broken != nil {
		t.Fatal(r.Broken)
	}
	return r
}

// events reads a folder whole.
func events(t testing.TB, dir string) []*Event {
	t.Helper()
	var list []*Event
	for l, err := range Lines(dir) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := l.Event()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

func lastSegment(t testing.TB, dir string) string {
	t.Helper()
	list, err := segments(dir)
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	return filepath.Join(dir, segmentName(list[len(list)-1]))
}

func TestReopenedLedgerGoesOn(t *testing.T) {
	dir := t.TempDir()
	for i := range 4 {
		l := open(t, Options{Dir: dir, Segment: 3000})
		for j := range 10 {
			mustPut(t, l, fmt.Sprintf("%d.%d", i, j), Survive(j%2))
		}
		closed(t, l)
		if _, err := l.Append(request()); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	}
	r := verified(t, dir)
	list, err := segments(dir)
	if r.First != 1 || r.Last != 40 || err != nil || len(list) < 5 {
		t.Errorf("%+v, %d segments, %v", r, len(list), err)
	}
	for i, e := range events(t, dir) {
		if want := fmt.Sprintf("%d.%d", i/10, i%10); e.Record != want || e.Seq != uint64(i+1) {
			t.Errorf("line %d is %s, seq %d", i, e.Record, e.Seq)
		}
	}
	for _, n := range []int{0, 1, 7, 39, 40, 100} {
		lines, err := Tail(dir, n)
		if err != nil || len(lines) != min(n, 40) || n > 0 && lines[len(lines)-1].Seq != 40 {
			t.Errorf("tail %d: %d lines, %v", n, len(lines), err)
		}
	}
}

func TestTwoWritersOnOneFolder(t *testing.T) {
	dir := t.TempDir()
	open(t, Options{Dir: dir})
	if _, err := Open(Options{Dir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("the second writer got %v", err)
	}
}

func TestTornTailAtEveryByte(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 2)
	l := open(t, Options{Dir: dir})
	if _, err := l.Append(&Event{Type: TypeOutcome}); err != nil { // a short one
		t.Fatal(err)
	}
	closed(t, l)
	name := lastSegment(t, dir)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for cut := last; cut < len(whole); cut++ {
		if err := os.WriteFile(name, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		l := open(t, Options{Dir: dir})
		r := l.Recovered()
		if (r != nil) != (cut > last) || r != nil && (r.Offset != int64(last) || len(r.Text) != cut-last) {
			t.Fatalf("cut at %d: %+v", cut, r)
		}
		mustPut(t, l, "after", Crash)
		closed(t, l)
		list := events(t, dir)
		want := []string{"1", "2", "", "after"}
		if cut == last {
			want = []string{"1", "2", "after"}
		}
		if len(list) != len(want) {
			t.Fatalf("cut at %d: %d events", cut, len(list))
		}
		for i := range want {
			if list[i].Record != want[i] || want[i] == "" && list[i].System.Event != "repair" {
				t.Fatalf("cut at %d: event %d is %+v", cut, i, list[i])
			}
		}
		verified(t, dir)
	}
}

func TestFlippedByteRefusesToOpen(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 5)
	name := lastSegment(t, dir)
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	start := int64(len(lines[0]) + len(lines[1]))
	for i := range len(lines[2]) {
		bad := bytes.Clone(whole)
		bad[start+int64(i)] ^= 0x04
		if err := os.WriteFile(name, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(Options{Dir: dir})
		if err == nil {
			closed(t, l)
			t.Fatalf("byte %d flipped: it opens", i)
		}
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.File != filepath.Base(name) ||
			corrupt.Offset < start {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
}

func TestEmptyLastSegment(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 3)
	if err := os.WriteFile(filepath.Join(dir, segmentName(4)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, Options{Dir: dir})
	mustPut(t, l, "4", Power)
	closed(t, l)
	if r := verified(t, dir); r.Last != 4 {
		t.Errorf("%+v", r)
	}
	if err := os.WriteFile(filepath.Join(dir, segmentName(9)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var corrupt *CorruptError
	if _, err := Open(Options{Dir: dir}); !errors.As(err, &corrupt) {
		t.Errorf("a missing segment: %v", err)
	}
}

func TestQueueIsBounded(t *testing.T) {
	disk := newDisk()
	l := open(t, Options{Dir: t.TempDir(), open: disk.open, queue: 4000})
	release := disk.block()
	var err error
	var tickets []Ticket
	for range 1000 {
		var ticket Ticket
		if ticket, err = l.Append(request()); err != nil {
			break
		}
		tickets = append(tickets, ticket)
	}
	if !errors.Is(err, ErrFull) {
		t.Errorf("a full queue says %v", err)
	}
	e := request()
	e.Type = TypeOutcome
	if _, err := l.Append(e); err != nil {
		t.Errorf("an outcome finds no room: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := tickets[len(tickets)-1].Wait(ctx, Crash); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting with an ended context: %v", err)
	}
	release()
	for _, ticket := range tickets {
		if err := ticket.Wait(context.Background(), Crash); err != nil {
			t.Error(err)
		}
	}
}

func TestZeroTicketAndUnknownLevel(t *testing.T) {
	if err := (Ticket{}).Wait(context.Background(), Crash); err == nil {
		t.Error("the zero ticket is on record")
	}
	l := open(t, Options{Dir: t.TempDir()})
	if err := put(t, l, "1", 9); err == nil {
		t.Error("level 9 survives")
	}
	if err := put(t, l, "2", Machine); !errors.Is(err, ErrNoSink) {
		t.Errorf("machine without a sink: %v", err)
	}
}

// A blockedWriter is a pipe nobody reads until it is told.
type blockedWriter struct {
	gate chan struct{}
	mu   sync.Mutex
	got  bytes.Buffer
	half bool
	want int           // lines
	all  chan struct{} // closed when they are here
}

func (w *blockedWriter) Write(p []byte) (int, error) {
	<-w.gate
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.half = !w.half; w.half { // a pipe may take a part, and fail
		n, _ := w.got.Write(p[:len(p)/2])
		return n, io.ErrClosedPipe
	}
	n, err := w.got.Write(p)
	if bytes.Count(w.got.Bytes(), []byte("\n")) == w.want {
		close(w.all)
	}
	return n, err
}

func TestCopyGetsEveryLineOnce(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir, Segment: 5000}, 20)
	w := &blockedWriter{gate: make(chan struct{}), want: 250, all: make(chan struct{})}
	l := open(t, Options{Dir: dir, Segment: 5000, Copy: w, pause: time.Microsecond})
	for i := range 200 {
		mustPut(t, l, fmt.Sprint(i), Crash)
	}
	close(w.gate)
	for range 50 {
		mustPut(t, l, "more", Crash)
	}
	<-w.all // Close would end a copy that fails
	closed(t, l)
	var want []byte
	for line, err := range Lines(dir) {
		if err != nil {
			t.Fatal(err)
		}
		if line.Seq > 20 {
			want = append(append(want, line.Raw...), '\n')
		}
	}
	if !bytes.Equal(w.got.Bytes(), want) {
		t.Errorf("the copy has %d bytes, the log %d", w.got.Len(), len(want))
	}
}

func TestFollowSeesWhatComes(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 5)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	tick := make(chan time.Time)
	seen := make(chan uint64)
	go func() {
		defer close(seen)
		for l, err := range Follow(ctx, dir, 2, tick) {
			if err != nil {
				t.Error(err)
				return
			}
			seen <- l.Seq
		}
	}()
	want := func(seq uint64) {
		t.Helper()
		for { // it may have seen the line before it was told to look
			select {
			case tick <- time.Time{}:
				continue
			case got := <-seen:
				if got != seq {
					t.Errorf("got seq %d, want %d", got, seq)
				}
			}
			return
		}
	}
	want(4)
	want(5)
	l := open(t, Options{Dir: dir, Segment: 1})
	for i := range 5 {
		mustPut(t, l, "more", Crash)
		want(uint64(6 + i))
	}
	cancel()
	if _, more := <-seen; more {
		t.Error("it goes on")
	}
}

func TestFastStart(t *testing.T) {
	if testing.Short() {
		t.Skip("it writes 100,000 events")
	}
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, queue: 256 << 20})
	var last Ticket
	for range 100_000 {
		var err error
		if last, err = l.Append(request()); err != nil {
			t.Fatal(err)
		}
	}
	if err := last.Wait(context.Background(), Crash); err != nil {
		t.Fatal(err)
	}
	closed(t, l)
	began := time.Now()
	sink := &fakeSink{down: errors.New("down")}
	l = open(t, Options{Dir: dir, Sink: sink})
	t.Logf("opened with 100,000 unshipped events in %v", time.Since(began))
	if s := l.Stats(); s.Seq != 100_000 || s.Waiting < 40<<20 {
		t.Errorf("%+v", s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l.Close(ctx)
}

func TestOpenNamesTheFolder(t *testing.T) {
	_, err := Open(Options{Dir: filepath.Join(os.DevNull, "x")})
	if err == nil || !strings.Contains(err.Error(), os.DevNull) {
		t.Error(err)
	}
}

func request() *Event {
	return &Event{
		Type: TypeDecision, Record: "0123456789abcdef0123456789abcdef", Time: noon,
		Request:  &Request{Method: "POST", Host: "photos.acme.dev", Path: "/v1/uploads/photos", IP: "203.0.113.7", UserAgent: "curl/8.5.0", QueryKeys: []string{"page"}},
		Identity: &Identity{Name: "users", Namespace: "users", UID: "u1", Issuer: "https://securetoken.google.com/acme-prod", AuthTime: noon, TokenHash: "ab"},
		Decision: &Decision{Effect: "allow", Route: "upload", Rule: "owner", Code: "entry", Policy: Policy{Name: "photos", SHA256: "cd"}},
	}
}
