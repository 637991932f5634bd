package audit

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// A Sink stores lines on another machine. Only one call runs at a time.
//
// Store stores each line under its event id and reports for each whether it
// is stored: nil also where it was stored already. An error beside the list
// concerns the whole call, and says nothing of what was stored. An error that
// wraps ErrUnstorable means that the same line will never be taken; every
// other one that it may be later. Of a Line with Stub set only the chain, seq
// and hash are stored, in the line's place. Store returns when ctx ends, and
// keeps no line.
type Sink interface {
	Store(ctx context.Context, lines []Line) ([]error, error)
}

const (
	shipLines   = 100 // measured: larger batches gain nothing
	shipBytes   = 4 << 20
	shipTimeout = 10 * time.Second // of one call, counted while the process runs
	shipBehind  = 5000             // events; more than that is not waited for
)

// A shipper brings the ledger's lines to the Sink, in order, one batch at a
// time: fsynced here, stored there, then noted in the resume file.
type shipper struct {
	l      *Ledger
	cursor cursor
	ctx    context.Context // ends the shipping
	cancel context.CancelCauseFunc
	wake   chan struct{}
	hurry  chan struct{} // ends a back-off; holds one
	done   chan struct{}
	ramp   ramp
	dead   deadLetters
	most   int    // lines of the next call
	saved  resume // what the resume file says

	// The rest is guarded by the ledger's mu.
	shipped    uint64
	bytes      int64     // shipped, of the ledger's total
	count      uint64    // events shipped since Open
	last       time.Time // when that last happened
	since      time.Time // of the oldest unshipped line; zero: there is none
	moved      chan struct{}
	outage     error
	fails      int               // failures in a row
	failures   map[string]uint64 // since Open, by kind
	due        time.Time         // when the call, or the pause, that runs should end
	unstorable int
	refused    refusals // lines that only a stub stands for
	rescued    uint64   // lines that the last resort got
	tip        tip      // the last line shipped by this process
}

var errDrained = errors.New("everything is shipped, and the ledger is closed")

func newShipper(l *Ledger, list []uint64, from resume) (*shipper, error) {
	s := &shipper{
		l: l, cursor: from.cursor(l.opt.Dir), wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1), done: make(chan struct{}),
		moved: make(chan struct{}), shipped: from.Seq, saved: from, most: shipLines,
		ramp: newRamp(from, l.opt.Now()), refused: refusals{}, failures: map[string]uint64{},
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	var err error
	if s.dead, err = openDeadLetters(l.opt.Dir, l.head.chain, from.Seq); err != nil {
		return nil, err
	}
	if from.Seq > 0 {
		if from.Chain != l.head.chain || from.Seq > l.head.seq {
			return nil, fmt.Errorf("%s says that %d events of chain %s are shipped, but the log has %d of chain %s: "+
				"lines were removed, or files of another log were mixed in", resumeFile, from.Seq, from.Chain, l.head.seq, l.head.chain)
		}
	}
	for _, first := range list {
		if first < from.Segment {
			continue
		}
		size, err := textSize(l.opt.Dir, first)
		if err != nil {
			return nil, err
		}
		switch {
		case first == from.Segment:
			if from.Offset > size {
				return nil, fmt.Errorf("%s points behind the end of %s: lines were removed", resumeFile, segmentName(first))
			}
			l.total += size - from.Offset
		default:
			l.total += size
		}
	}
	if s.shipped < l.head.seq {
		s.since = s.oldest()
	}
	s.poke()
	return s, nil
}

// oldest is the time of the first line that is not shipped. Where it cannot be
// read, shipping will say so.
func (s *shipper) oldest() time.Time {
	place := s.cursor
	defer s.rewind(&place)
	if l, err := s.cursor.next(); err == nil {
		return l.Time
	}
	return s.l.opt.Now()
}

func (s *shipper) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// notice is called with the ledger's mu when lines were written.
func (s *shipper) notice() {
	if s.since.IsZero() {
		s.since = s.l.opt.Now()
	}
	s.poke()
}

// wait waits until the Sink has the line.
func (s *shipper) wait(ctx context.Context, seq uint64) error {
	for {
		s.l.mu.Lock()
		shipped, refused := s.shipped, s.refused[seq]
		hopeless := s.hopeless(seq)
		moved := s.moved
		s.l.mu.Unlock()
		switch {
		case refused:
			return ErrUnstorable
		case shipped >= seq:
			return nil
		case hopeless != nil:
			return hopeless
		}
		select {
		case <-moved:
		case <-s.done:
			s.l.mu.Lock()
			ok := s.shipped >= seq && !s.refused[seq]
			s.l.mu.Unlock()
			if ok {
				return nil
			}
			return ErrClosed
		case <-ctx.Done():
			return fmt.Errorf("waiting for the audit log's sink: %w", context.Cause(ctx))
		}
	}
}

// hopeless says why it is no use to wait for a line, or nil. The caller holds
// the ledger's mu.
func (s *shipper) hopeless(seq uint64) error {
	if s.stale() {
		s.thaw()
	}
	switch {
	case s.outage != nil:
		return fmt.Errorf("%w: %w", ErrOutage, s.outage)
	case seq > s.shipped && seq-s.shipped > shipBehind:
		return fmt.Errorf("%w: %d events wait to be shipped", ErrOutage, seq-s.shipped)
	}
	return nil
}

// change sets what is guarded and tells those who wait.
func (s *shipper) change(f func()) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	f()
	s.tell()
}

// tell wakes those who wait; the caller holds the ledger's mu.
func (s *shipper) tell() {
	close(s.moved)
	s.moved = make(chan struct{})
}

// run is the shipping goroutine.
func (s *shipper) run() {
	defer close(s.done)
	defer s.cursor.release()
	for s.ctx.Err() == nil {
		lines, at, err := s.read()
		if err == nil && len(lines) == 0 {
			select {
			case <-s.wake:
			case <-s.ctx.Done():
			}
			continue
		}
		if err == nil {
			err = s.deliver(lines)
		}
		for err == nil {
			if err = s.save(lines, at); err == nil {
				break
			}
			s.failed(ownError{err})
			err = s.sleep()
		}
		if err != nil && s.ctx.Err() == nil {
			s.failed(ownError{err})
			s.sleep()
		}
	}
}

// read is the next batch, fsynced here, and the place behind it.
func (s *shipper) read() ([]Line, resume, error) {
	s.l.mu.Lock()
	written, shipped := s.l.written, s.shipped
	s.l.mu.Unlock()
	if shipped == written.seq {
		return nil, resume{}, nil
	}
	// Whatever is not shipped is read again: a try may have failed.
	defer s.cursor.release()
	if s.cursor.first != 0 && s.cursor.last != shipped {
		return nil, resume{}, fmt.Errorf("the shipper is at seq %d, not behind %d", s.cursor.last, shipped)
	}
	place := s.cursor
	var lines []Line
	size := 0
	for s.cursor.last < written.seq && len(lines) < shipLines && size < shipBytes {
		l, err := s.cursor.next()
		if errors.Is(err, io.EOF) {
			err = errors.New("the log is shorter than what was written: lines were removed")
		}
		if err == nil && l.Seq != shipped+uint64(len(lines))+1 {
			err = &CorruptError{File: l.File, Offset: l.Offset, Seq: l.Seq, Reason: fmt.Sprintf("shipping expected seq %d here", shipped+uint64(len(lines))+1)}
		}
		if err != nil {
			s.rewind(&place)
			return nil, resume{}, err
		}
		l.Raw = append([]byte(nil), l.Raw...)
		lines = append(lines, l)
		size += len(l.Raw)
	}
	s.l.mu.Lock()
	s.since = lines[0].Time
	s.l.mu.Unlock()
	at := resume{Chain: written.chain, Seq: s.cursor.last, Segment: s.cursor.first, Offset: s.cursor.lines.offset}
	if err := s.l.waitSynced(s.ctx, at.Seq); err != nil {
		s.rewind(&place)
		return nil, resume{}, err
	}
	return lines, at, nil
}

// rewind goes back to a place.
func (s *shipper) rewind(to *cursor) {
	s.cursor.release()
	s.cursor.first, s.cursor.last = to.first, to.last
	s.cursor.lines.name, s.cursor.lines.offset, s.cursor.lines.number = to.lines.name, to.lines.offset, to.lines.number
}

// deliver repeats until every line is stored; an error: the ledger closes.
func (s *shipper) deliver(lines []Line) error {
	half := len(lines) // how many may go together, since one among them is never taken
	for len(lines) > 0 {
		n := min(len(lines), s.most, half)
		s.ramp.age(s.ctx, s.l.opt.Sink, s.l.opt.Now(), lines[0].Time)
		if err := s.ramp.wait(s.ctx, s.l.opt.Now, n); err != nil {
			return err
		}
		t := s.try(lines[:n])
		if len(t.left) < n {
			s.ramp.begin(s.l.opt.Now())
		}
		lines = append(t.left, lines[n:]...)
		switch {
		case len(t.left) == 0:
			s.recovered()
			continue
		case t.unstorable && n > 1:
			half = n / 2 // which one it is shows when it is sent alone
			continue
		case t.frozen && !t.unstorable && s.ctx.Err() == nil: // that it failed says nothing of the sink
			s.change(s.thaw)
			continue
		}
		err := t.err
		if t.unstorable && !lines[0].Stub {
			if err = s.bury(&lines[0]); err == nil {
				half = len(lines)
				continue
			}
			err = ownError{err}
		}
		if s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		s.failed(err)
		if err := s.sleep(); err != nil {
			return err
		}
	}
	return nil
}

// A trial is what became of one call.
type trial struct {
	left       []Line // what is not known to be stored, in order
	unstorable bool   // some of it never will be
	frozen     bool   // the process stood still meanwhile
	err        error
}

// try sends lines once. That a line is stored which another try had stored
// counts as stored: ids are random, so that it cannot be another line's, and
// verify compares what is there with its chain.
func (s *shipper) try(lines []Line) (t trial) {
	ctx, end := s.callTime()
	each, err := s.l.opt.Sink.Store(ctx, lines)
	t.frozen = end()
	switch {
	case err != nil && errors.Is(context.Cause(ctx), errSlow):
		err = errSlow
	case err == nil && len(each) != len(lines):
		err = fmt.Errorf("the sink answered for %d events of %d", len(each), len(lines))
	}
	if err != nil {
		t.left, t.unstorable, t.err = append(t.left, lines...), errors.Is(err, ErrUnstorable), err
		return t
	}
	for i, e := range each {
		if e != nil {
			t.left = append(t.left, lines[i])
			t.unstorable = t.unstorable || errors.Is(e, ErrUnstorable)
			t.err = e
		}
	}
	return t
}

// bury writes the line to the dead-letter file and makes it a stub.
func (s *shipper) bury(l *Line) error {
	if err := s.dead.add(l); err != nil {
		return err
	}
	l.Stub, l.SHA256 = true, sha256.Sum256(l.Raw)
	s.change(func() {
		s.unstorable++
		s.refused.add(l.Seq)
	})
	return nil
}

// A refusal is known as long as somebody may wait for it: those who wait for
// one that is so many behind have long been told.
const refusedKept = 1024

type refusals map[uint64]bool // by seq

func (r refusals) add(seq uint64) {
	if len(r) >= refusedKept {
		for old := range r {
			if old+refusedKept/2 < seq {
				delete(r, old)
			}
		}
	}
	r[seq] = true
}

// save moves the resume point behind the batch.
func (s *shipper) save(lines []Line, at resume) error {
	at.Since = s.ramp.noted()
	data, err := json.Marshal(at)
	if err == nil {
		err = s.l.writeFile(resumeFile, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("noting what is shipped: %w", err)
	}
	s.saved = at
	s.dead.forget(at.Seq)
	if h := s.l.heads; h != nil && s.tip.seq == 0 {
		defer h.poke() // who dies soon, and often, must not leave chains without any
	}
	s.change(func() {
		s.outage, s.fails = nil, 0
		s.shipped = at.Seq
		s.count += uint64(len(lines))
		s.last = s.l.opt.Now()
		last := &lines[len(lines)-1]
		s.tip = tip{link{at.Chain, at.Seq, last.Hash()}, last.Time}
		for _, l := range lines {
			s.bytes += int64(len(l.Raw)) + 1
		}
		// The next line is about as old, until it is read.
		s.since = lines[len(lines)-1].Time
		if at.Seq == s.l.written.seq {
			s.since = time.Time{}
		}
	})
	return nil
}

// stop ships what is left until ctx ends. The writer has stopped.
func (s *shipper) stop(ctx context.Context) {
	s.push() // there is no time for a long pause
	for {
		s.l.mu.Lock()
		over, moved := s.shipped == s.l.written.seq, s.moved
		s.l.mu.Unlock()
		if over || ctx.Err() != nil {
			break
		}
		select {
		case <-moved:
		case <-ctx.Done():
		}
	}
	s.cancel(errDrained)
	<-s.done
}
