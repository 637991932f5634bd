package audit

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
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
	shipTimeout = 10 * time.Second
	shipBehind  = 5000 // events; more than that is not waited for
	backoffMin  = 50 * time.Millisecond
	backoffMax  = 5 * time.Second
	outageAfter = 3 // failures in a row
)

// deadFile gets the lines that the Sink will never take.
const deadFile = "dead-letter.jsonl"

// A shipper brings the ledger's lines to the Sink, in order, one batch at a
// time: fsynced here, stored there, then noted in the resume file.
type shipper struct {
	l      *Ledger
	cursor cursor
	ctx    context.Context // ends the shipping
	cancel context.CancelCauseFunc
	wake   chan struct{}
	done   chan struct{}
	ramp   ramp
	dead   map[uint64]bool // lines that are in the dead-letter file
	fails  int             // failures in a row

	// The rest is guarded by the ledger's mu.
	shipped    uint64
	bytes      int64     // shipped, of the ledger's total
	since      time.Time // of the oldest unshipped line
	moved      chan struct{}
	outage     error
	unstorable int
	refused    map[uint64]bool // seqs that only a stub stands for
}

var errDrained = errors.New("everything is shipped, and the ledger is closed")

func newShipper(l *Ledger, list []uint64, from resume) (*shipper, error) {
	s := &shipper{
		l: l, cursor: cursor{dir: l.opt.Dir}, wake: make(chan struct{}, 1), done: make(chan struct{}),
		moved: make(chan struct{}), since: l.opt.Now(), shipped: from.Seq,
		dead: map[uint64]bool{}, refused: map[uint64]bool{},
	}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	if from.Seq == 0 {
		s.ramp.start = l.opt.Now()
	}
	if from.Seq > 0 {
		if from.Chain != l.head.chain || from.Seq > l.head.seq {
			return nil, fmt.Errorf("%s says that %d events of chain %s are shipped, but the log has %d of chain %s: "+
				"lines were removed, or files of another log were mixed in", resumeFile, from.Seq, from.Chain, l.head.seq, l.head.chain)
		}
		s.cursor.start(from.Segment)
		s.cursor.lines.offset, s.cursor.last = from.Offset, from.Seq
	}
	for _, first := range list {
		info, err := os.Stat(filepath.Join(l.opt.Dir, segmentName(first)))
		if err != nil {
			return nil, err
		}
		switch {
		case first == from.Segment:
			if from.Offset > info.Size() {
				return nil, fmt.Errorf("%s points behind the end of %s: lines were removed", resumeFile, segmentName(first))
			}
			l.total += info.Size() - from.Offset
		case first > from.Segment:
			l.total += info.Size()
		}
	}
	s.poke()
	return s, nil
}

func (s *shipper) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// notice is called with the ledger's mu when lines were written.
func (s *shipper) notice() {
	s.poke()
}

// wait waits until the Sink has the line.
func (s *shipper) wait(ctx context.Context, seq uint64) error {
	for {
		s.l.mu.Lock()
		shipped, refused, outage, moved := s.shipped, s.refused[seq], s.outage, s.moved
		s.l.mu.Unlock()
		switch {
		case refused:
			return ErrUnstorable
		case shipped >= seq:
			return nil
		case outage != nil:
			return fmt.Errorf("%w: %w", ErrOutage, outage)
		case seq-shipped > shipBehind:
			return fmt.Errorf("%w: %d events wait to be shipped", ErrOutage, seq-shipped)
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

// change sets what is guarded and tells those who wait.
func (s *shipper) change(f func()) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	f()
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
			s.failed(err)
			err = s.sleep()
		}
		if err != nil {
			s.failed(err)
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
	alone := false
	for len(lines) > 0 {
		n := len(lines)
		if alone {
			n = 1
		}
		if err := s.ramp.wait(s.ctx, s.l.opt.Now, n); err != nil {
			return err
		}
		left, unstorable, err := s.try(lines[:n])
		if len(left) == 0 {
			s.recovered()
		} else if unstorable && n > 1 {
			alone = true // which one it is shows when each is sent alone
			lines = append(left, lines[n:]...)
			continue
		} else if unstorable && !left[0].Stub {
			if err = s.bury(&left[0]); err == nil {
				lines = append(left, lines[n:]...)
				continue
			}
		}
		if len(left) > 0 {
			s.failed(err)
			if err := s.sleep(); err != nil {
				return err
			}
		}
		lines = append(left, lines[n:]...)
	}
	return nil
}

// try sends lines once; what is left of them is not known to be stored.
func (s *shipper) try(lines []Line) (left []Line, unstorable bool, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, shipTimeout)
	defer cancel()
	each, err := s.l.opt.Sink.Store(ctx, lines)
	if err == nil && len(each) != len(lines) {
		err = fmt.Errorf("the sink answered for %d events of %d", len(each), len(lines))
	}
	if err != nil {
		return append(left, lines...), errors.Is(err, ErrUnstorable), err
	}
	for i, e := range each {
		if e != nil {
			left = append(left, lines[i])
			unstorable = unstorable || errors.Is(e, ErrUnstorable)
			err = e
		}
	}
	return left, unstorable, err
}

// bury writes the line to the dead-letter file and makes it a stub.
func (s *shipper) bury(l *Line) error {
	if !s.dead[l.Seq] {
		f, err := os.OpenFile(filepath.Join(s.l.opt.Dir, deadFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return err
		}
		_, err = f.Write(append(l.Raw[:len(l.Raw):len(l.Raw)], '\n'))
		if err = errors.Join(err, f.Sync(), f.Close(), syncDir(s.l.opt.Dir)); err != nil {
			return fmt.Errorf("the dead-letter file: %w", err)
		}
		s.dead[l.Seq] = true
	}
	l.Stub, l.SHA256 = true, sha256.Sum256(l.Raw)
	s.change(func() {
		s.unstorable++
		if len(s.refused) >= 1024 { // who waited for those has long been answered
			clear(s.refused)
		}
		s.refused[l.Seq] = true
	})
	return nil
}

// save moves the resume point behind the batch.
func (s *shipper) save(lines []Line, at resume) error {
	data, err := json.Marshal(at)
	if err == nil {
		err = writeFile(s.l.opt.Dir, resumeFile, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("noting what is shipped: %w", err)
	}
	s.recovered()
	s.change(func() {
		s.shipped = at.Seq
		for _, l := range lines {
			s.bytes += int64(len(l.Raw)) + 1
			delete(s.dead, l.Seq)
		}
	})
	return nil
}

// failed counts a failure; several in a row, or one time-out, are an outage.
func (s *shipper) failed(err error) {
	s.fails++
	if s.fails >= outageAfter || errors.Is(err, context.DeadlineExceeded) {
		s.change(func() { s.outage = err })
	}
}

func (s *shipper) recovered() {
	s.fails = 0
	s.change(func() { s.outage = nil })
}

// sleep is a back-off with full jitter: a random part of a span that doubles
// with every failure.
func (s *shipper) sleep() error {
	span := min(backoffMax, backoffMin<<min(s.fails, 10))
	t := time.NewTimer(rand.N(span))
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
	}
	return s.ctx.Err()
}

// stop ships what is left until ctx ends. The writer has stopped.
func (s *shipper) stop(ctx context.Context) {
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

// A ramp keeps to Firestore's 500/50/5 rule for new collections: 500 writes a
// second, half as many more every five minutes
// (firebase.google.com/docs/firestore/best-practices, "ramping up traffic").
// It ends where it no longer bounds anything real.
type ramp struct {
	start time.Time // zero: the collection is not new
	free  time.Time // when the writes sent so far are used up
}

const rampEnd = 20_000 // writes a second

func (r *ramp) rate(now time.Time) float64 {
	if r.start.IsZero() {
		return rampEnd
	}
	rate := 500.0
	for t := now.Sub(r.start); t >= 5*time.Minute && rate < rampEnd; t -= 5 * time.Minute {
		rate *= 1.5
	}
	return rate
}

// wait waits until n more writes may be sent.
func (r *ramp) wait(ctx context.Context, now func() time.Time, n int) error {
	t := now()
	rate := r.rate(t)
	if rate >= rampEnd {
		return ctx.Err()
	}
	if r.free.Before(t) {
		r.free = t
	}
	pause := r.free.Sub(t)
	r.free = r.free.Add(time.Duration(float64(n) / rate * float64(time.Second)))
	if pause <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
