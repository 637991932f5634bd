package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Options say where a ledger lies and what it does beside writing.
type Options struct {
	Dir     string // the folder; made where it is missing
	Gateway Gateway
	Segment int64 // bytes after which a new file is begun; 0: 64 MiB

	// Sink is where events are shipped to; nil: nowhere. MaxSize bounds the
	// bytes that wait for it: beyond, Append refuses. 0: no bound.
	Sink    Sink
	MaxSize int64

	// Copy gets every line once more, from a goroutine of its own: however
	// slow it is, it delays nothing but itself.
	Copy io.Writer

	// LastResort is for a folder that ends with the process: Close writes to it
	// the lines that it could not ship, one Write a line. nil: the folder stays,
	// and the next Open ships them.
	LastResort io.Writer

	// Signer signs checkpoints; nil: there are none. One over the end of the log
	// is made every Checkpoint (0: one minute) where there is something new, and
	// one over each segment that is closed. A Sink that is a CheckpointStore
	// also gets one over what was shipped.
	Signer     note.Signer
	Checkpoint time.Duration

	// Retention is how old the last event of a closed segment may become before
	// the segment is deleted; 0: none is.
	Retention time.Duration

	Now func() time.Time // nil: time.Now

	passed func() time.Time                          // the monotonic clock; nil: time.Now
	open   func(name string, flag int) (file, error) // nil: the disk
	queue  int                                       // bytes; 0: queueSize
	pause  time.Duration                             // between tries after a failure; 0: one second
	linger time.Duration                             // 0: lingerTime

	remove  func(name string) error // deletes a segment; nil: os.Remove
	syncDir func(dir string) error  // fsyncs a folder; nil: syncDir
}

const (
	segmentSize = 64 << 20
	queueSize   = 4 << 20
)

var (
	// ErrFull means that events come faster than they can be written, or that
	// more of them wait for the Sink than MaxSize allows.
	ErrFull = errors.New("the audit log is full")
	// ErrClosed means that the ledger was closed.
	ErrClosed = errors.New("the audit log is closed")
	// ErrLocked means that another process writes to the folder.
	ErrLocked = errors.New("another process writes to this audit log")
	// ErrNoSink means that Machine was asked for where nothing is shipped.
	ErrNoSink = errors.New("the audit log is shipped nowhere")
	// ErrOutage means that the Sink does not take events now, or is so far
	// behind that waiting for it is no use.
	ErrOutage = errors.New("the audit log's sink is not reachable, or is behind")
	// ErrNotWritten means that the event could not be written: it is in no log.
	ErrNotWritten = errors.New("the event could not be written to the audit log")
	// ErrUnstorable means that the Sink will never take this event. A Sink
	// wraps it in its errors.
	ErrUnstorable = errors.New("the audit log's sink cannot store this event")
)

// A file is what the ledger needs of *os.File.
type file interface {
	io.ReaderAt
	io.WriterAt
	Stat() (os.FileInfo, error)
	Sync() error
	Truncate(size int64) error
	Close() error
}

// A Ledger is an audit log that is being written: the only writer of its
// folder. It is safe for concurrent use.
//
// Append chains an event and queues it. One goroutine writes what is queued
// with one write(2), and fsyncs where somebody waits for that: one fsync for
// all who wait. Nobody else writes: a disk that hangs holds this goroutine, and
// who waits for it can give up. Two more read the files behind it: one ships, one copies.
//
// After a failed fsync nobody knows what the disk holds, and a later fsync of
// the same pages may succeed without having written them. So the ledger then
// reads the segment back, verifies its chain, writes it to a new file, fsyncs
// that, and puts it in the old one's place; until then nothing counts as
// fsynced, and nothing is appended. It does the same where somebody took the
// file away while it was written, with gzip for example: what is written to a
// file without a name is gone with the process.
type Ledger struct {
	opt      Options
	lock     folderLock
	repaired *Repair

	mu      sync.Mutex
	closed  bool
	enc     *encoder
	pending []byte // lines not yet written
	batch   *batch // of pending; nil: nothing is pending
	head    link   // of the last line appended
	written link   // of the last line written
	synced  uint64 // seq up to which all is fsynced
	sealed  link   // the line of that seq
	want    uint64 // seq up to which somebody wants it
	next    *round // the fsync to come
	flight  *round // the one that runs
	failure error  // of the last write or fsync; nil: it went well
	lingers bool   // the timer that writes what nobody waits for runs
	lost    int    // events that failures took since the last success
	lostAll uint64 // those that failures took since Open
	noRoom  error  // why no new segment could be begun; nil: none is due
	total   int64  // bytes written, of those that are or were unshipped at Open
	seals   int    // fsyncs done, for tests and metrics

	linger  *time.Timer   // see Append
	wake    chan struct{} // to the writer; holds one
	stopped chan struct{} // the writer ended
	w       writer        // the writer's own

	ship *shipper // nil without Sink
	copy *copier  // nil without Copy
	keepers
}

// A round is one fsync.
type round struct {
	covers uint64
	done   chan struct{}
	err    error
}

// A Ticket stands for one event that was appended.
type Ticket struct {
	l   *Ledger
	b   *batch
	seq uint64
}

// Append chains the event and queues it to be written. It never waits for a
// disk or a network. The event is not kept: it may be reused at once. An error
// wraps ErrFull or ErrClosed, and the event is in no log then.
//
// Outcomes and system events still find room where decisions are refused:
// they end what was admitted.
//
// An outcome is written with what comes next, or after lingerTime, unless its
// Ticket is waited for: so it costs no write(2) of its own while there is traffic.
func (l *Ledger) Append(e *Event) (Ticket, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Ticket{}, ErrClosed
	}
	room, bound := l.opt.queue, l.opt.MaxSize
	if e.Type != TypeDecision {
		room += room / 8
		bound = 0
	}
	if len(l.pending) >= room {
		return Ticket{}, fmt.Errorf("%w: %d bytes wait to be written", ErrFull, len(l.pending))
	}
	if bound > 0 && l.ship != nil {
		if waiting := l.waiting(); waiting > bound {
			return Ticket{}, fmt.Errorf("%w: %d bytes wait to be shipped", ErrFull, waiting)
		}
	}
	return l.add(e), nil
}

// add appends to what is pending; the caller holds mu.
func (l *Ledger) add(e *Event) Ticket {
	from := len(l.pending)
	l.enc.buf = l.pending
	done := false
	defer func() {
		if !done { // a panic must not leave half a line behind
			l.pending = l.pending[:from]
		}
	}()
	l.enc.line(e, l.opt.Now, l.head.chain, l.head.seq+1, &l.head.hash)
	l.head.seq++
	l.head.hash = hash(l.enc.buf[from:])
	l.pending = append(l.enc.buf, '\n')
	done = true
	return Ticket{l: l, b: l.join(e.Type), seq: l.head.seq}
}

// waiting is how many bytes are not shipped yet; the caller holds mu.
func (l *Ledger) waiting() int64 {
	return l.total - l.ship.bytes + int64(len(l.pending))
}

func (l *Ledger) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Wait returns nil when the event outlives what s says, and an error when it
// may not. The error says nothing of the log: the event may be there. With
// Machine it fails at once, wrapping ErrOutage, while the Sink fails or is far
// behind: the event is shipped later all the same.
func (t Ticket) Wait(ctx context.Context, s Survive) error {
	l := t.l
	switch {
	case l == nil:
		return errors.New("audit: the zero Ticket stands for no event")
	case s > Machine:
		return fmt.Errorf("audit: no such level of survival: %d", s)
	case s == Machine && l.ship == nil:
		return ErrNoSink
	}
	if s != Crash {
		l.wantSynced(t.seq)
	}
	if err := l.waitWritten(ctx, t.b); err != nil {
		return err
	}
	if t.b.err != nil {
		return fmt.Errorf("%w: %w", ErrNotWritten, t.b.err)
	}
	switch s {
	case Power:
		return l.waitSynced(ctx, t.seq)
	case Machine:
		return l.ship.wait(ctx, t.seq)
	}
	return nil
}

// Shippable says before an event is appended whether waiting for Machine can
// succeed now: nil, ErrNoSink, or ErrOutage while the Sink fails or is behind.
// Whoever would append all the same only makes the backlog longer that is the
// reason to refuse.
func (l *Ledger) Shippable() error {
	if l.ship == nil {
		return ErrNoSink
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ship.hopeless(l.head.seq)
}

// wantSynced lets the writer fsync up to seq, without waiting.
func (l *Ledger) wantSynced(seq uint64) {
	l.mu.Lock()
	if seq > l.want {
		l.want = seq
		l.poke()
	}
	l.mu.Unlock()
}

// waitSynced waits until a line that was written is fsynced.
func (l *Ledger) waitSynced(ctx context.Context, seq uint64) error {
	for {
		l.mu.Lock()
		if l.synced >= seq {
			l.mu.Unlock()
			return nil
		}
		r := l.next
		if l.flight != nil && l.flight.covers >= seq {
			r = l.flight
		} else {
			l.want = max(l.want, seq)
			l.poke() // also where it was wanted before: that fsync may have failed
		}
		l.mu.Unlock()
		select {
		case <-r.done:
			if r.err != nil {
				return r.err
			}
		case <-l.stopped:
			l.mu.Lock()
			ok := l.synced >= seq
			l.mu.Unlock()
			if !ok {
				return ErrClosed
			}
		case <-ctx.Done():
			return fmt.Errorf("waiting for the audit log's fsync: %w", context.Cause(ctx))
		}
	}
}

// Recovered says what Open had to cut off; nil: nothing.
func (l *Ledger) Recovered() *Repair { return l.repaired }

// Healthy is nil while events can be appended, else why not. What failed is
// tried again once a second, so that it heals without traffic.
func (l *Ledger) Healthy() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closed:
		return ErrClosed
	case l.failure != nil:
		return l.failure
	case l.ship != nil && l.opt.MaxSize > 0 && l.waiting() > l.opt.MaxSize:
		return fmt.Errorf("%w: %d bytes wait to be shipped", ErrFull, l.waiting())
	}
	return nil
}

// Stats is what metrics and readiness want to know of a ledger.
type Stats struct {
	Chain   string
	Seq     uint64 // of the last event written
	Synced  uint64 // of the last event fsynced
	Fsyncs  int
	Queued  int    // bytes not yet written
	Lost    int    // events that a failing disk took and that are not yet reported in the log
	LostAll uint64 // events that a failing disk took since Open
	Failure error
	// Oversize is why the segment grows beyond its size: no new one can be made.
	Oversize error

	Shipped     uint64            // seq up to which the Sink has all
	ShippedHere uint64            // events shipped since Open
	ShippedAt   time.Time         // when that last happened; zero: not since Open
	Waiting     int64             // bytes not yet shipped
	Lag         time.Duration     // age of the oldest unshipped event
	Outage      error             // why the Sink takes nothing now; nil: it does
	Failures    map[string]uint64 // failed calls since Open, by the kind that the Sink's errors name; nil: none
	Unstorable  int               // events in the dead-letter file, since Open
	Rescued     uint64            // lines that the last resort got

	CopyError error  // why the copy stands still; nil: it does not, or it waits for its reader
	CopyLag   uint64 // lines that are not in the copy yet; 0 without one

	// Checkpoint and Head are the seqs of the newest checkpoints, in the folder
	// and at the Sink, that this process made. The errors are why the last one
	// could not be made, and why retention deletes nothing; nil: it went well.
	Checkpoint, Head                           uint64
	CheckpointError, HeadError, RetentionError error
}

// Stats is a snapshot.
func (l *Ledger) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Stats{
		Chain: l.head.chain, Seq: l.written.seq, Synced: l.synced, Fsyncs: l.seals,
		Queued: len(l.pending), Lost: l.lost, LostAll: l.lostAll, Failure: l.failure, Oversize: l.noRoom,
	}
	if h := l.ship; h != nil {
		s.Shipped, s.Waiting, s.Outage, s.Unstorable = h.shipped, l.waiting(), h.outage, h.unstorable
		s.ShippedHere, s.ShippedAt, s.Failures, s.Rescued = h.count, h.last, maps.Clone(h.failures), h.rescued
		if h.shipped < l.written.seq {
			s.Lag = max(0, l.opt.Now().Sub(h.since))
		}
	}
	if l.copy != nil {
		s.CopyError, s.CopyLag = l.copy.err, l.written.seq-l.copy.copied
	}
	l.keepers.stats(&s)
	return s
}

// Close refuses new events, writes and fsyncs what is queued, ships and copies
// what it can until ctx ends, and frees the folder. What could not be shipped
// is when the folder is opened again; where it will not be, LastResort gets it,
// and an error says that not all of it could be handed over. Only a disk that
// hangs keeps the folder locked after Close.
func (l *Ledger) Close(ctx context.Context) error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	l.want = l.head.seq
	l.poke()
	l.mu.Unlock()

	over := make(chan error, 1)
	go func() { over <- l.finish(ctx) }()
	select {
	case err := <-over:
		return err
	case <-ctx.Done():
	}
	hung := time.NewTimer(l.opt.pause)
	defer hung.Stop()
	select {
	case err := <-over:
		return err
	case <-hung.C:
		return fmt.Errorf("closing the audit log: %w", context.Cause(ctx))
	}
}

func (l *Ledger) finish(ctx context.Context) error {
	<-l.stopped
	kept := l.stopKeepers()
	var copied sync.WaitGroup
	if l.copy != nil { // beside the shipping, which may need all the time
		copied.Go(func() { l.copy.stop(ctx) })
	}
	var unshipped error
	if l.ship != nil {
		shipping, end := l.shippingTime(ctx)
		l.ship.stop(shipping)
		l.stopHeads(shipping)
		end()
		unshipped = l.rescue(ctx)
	}
	copied.Wait()
	l.mu.Lock()
	err := l.failure
	l.mu.Unlock()
	return errors.Join(err, kept, unshipped, l.w.file.Close(), l.lock.Close())
}
