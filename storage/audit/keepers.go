package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// A CheckpointStore is a Sink that also keeps the newest checkpoint of each
// chain, which makes a removed end of the chain show there. StoreCheckpoint
// never puts an older one in a newer one's place: that is an error, as it is
// where the one that is there is about another line of the same seq. It may
// run beside Store.
type CheckpointStore interface {
	StoreCheckpoint(ctx context.Context, h Head) error
}

// A Head is a signed checkpoint of what the Sink has.
type Head struct {
	Checkpoint
	Note  []byte
	Event time.Time // of the line that it is about
}

// A tip is the last line that was shipped.
type tip struct {
	link
	time time.Time
}

// keepers are the ledger's goroutines beside the writer, the shipper and the
// copier. They read what these did, and delay none of them.
type keepers struct {
	notes  *noteKeeper   // nil without Signer
	heads  *headKeeper   // nil without Signer or CheckpointStore
	retire *retireKeeper // nil without Retention
}

// A loop is a goroutine that does its work now and then.
type loop struct {
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{}
	done   chan struct{}
}

func newLoop() loop {
	ctx, cancel := context.WithCancel(context.Background())
	return loop{ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

func (p *loop) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// firstTick is when a checkpoint is made at first: verify holds a chain that has
// none for one that somebody else made.
const firstTick = time.Second

// run calls woken at first and when it is poked, and ticked at firstTick and at
// each tick. While ticked says that there was nothing to do yet, as in a new
// folder whose gateway still fetches keys, firstTick comes again.
func (p *loop) run(every time.Duration, woken func(), ticked func() bool) {
	defer close(p.done)
	tick := time.NewTicker(every)
	defer tick.Stop()
	soon := min(every, firstTick)
	first := time.NewTimer(soon)
	defer first.Stop()
	woken()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-p.wake:
			woken()
		case <-first.C:
			if !ticked() {
				first.Reset(soon)
			}
		case <-tick.C:
			ticked()
		}
	}
}

func (p *loop) stop() {
	p.cancel()
	<-p.done
}

// retireEvery is how often retention looks at the clock.
const retireEvery = time.Hour

// startKeepers makes all of them before any runs: they and the writer wake each
// other.
func (l *Ledger) startKeepers() {
	if l.opt.Signer != nil {
		l.notes = &noteKeeper{l: l, loop: newLoop()}
		if store, ok := l.opt.Sink.(CheckpointStore); ok {
			l.heads = &headKeeper{l: l, store: store, loop: newLoop()}
		}
	}
	if l.opt.Retention > 0 {
		l.retire = newRetireKeeper(l)
	}
	if k := l.notes; k != nil {
		go k.run(l.opt.Checkpoint, k.segments, func() bool { k.segments(); return k.head() })
	}
	if h := l.heads; h != nil {
		go h.run(l.opt.Checkpoint, func() { h.keep(h.ctx) }, func() bool { return h.keep(h.ctx) })
	}
	if r := l.retire; r != nil {
		go r.run(retireEvery, r.sweep, func() bool { r.sweep(); return true })
	}
}

// pokeKeepers says that a segment was closed.
func (l *Ledger) pokeKeepers() {
	if l.notes != nil {
		l.notes.poke()
	}
	if l.retire != nil {
		l.retire.poke()
	}
}

// stopKeepers is called when the writer has stopped: all is fsynced, unless the
// disk fails.
func (l *Ledger) stopKeepers() error {
	if l.retire != nil {
		l.retire.stop()
	}
	if l.notes == nil {
		return nil
	}
	l.notes.stop()
	l.notes.segments()
	l.notes.head()
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.notes.err, l.notes.closedErr)
}

// stopHeads is called when all is shipped that could be.
func (l *Ledger) stopHeads(ctx context.Context) {
	if l.heads != nil {
		l.heads.stop()
		l.heads.keep(ctx)
	}
}

// stats is called with the ledger's mu.
func (k *keepers) stats(s *Stats) {
	if k.notes != nil {
		s.Checkpoint, s.CheckpointError = k.notes.last, errors.Join(k.notes.err, k.notes.closedErr)
	}
	if k.heads != nil {
		s.Head, s.HeadError = k.heads.last, k.heads.err
	}
	if k.retire != nil {
		s.RetentionError = k.retire.err
	}
}

// A noteKeeper writes the folder's checkpoints.
type noteKeeper struct {
	l *Ledger
	loop
	noted uint64 // every closed segment up to this one has its note

	// Guarded by the ledger's mu.
	last      uint64 // seq of head.note
	err       error  // of head.note
	closedErr error  // of the segments' notes
}

// head signs the end of what is fsynced, which it asks for; false: there is
// nothing yet that could be signed.
func (k *noteKeeper) head() bool {
	l := k.l
	l.mu.Lock()
	want, last, failing := l.written.seq, k.last, k.err
	l.mu.Unlock()
	if want == last && failing == nil {
		return last > 0
	}
	if k.ctx.Err() == nil && l.waitSynced(k.ctx, want) != nil {
		return last > 0 // the ledger's own failure, or it closes: then this is called again
	}
	l.mu.Lock()
	at := l.sealed
	l.mu.Unlock()
	if at.seq == 0 || at.seq == last && failing == nil {
		return last > 0
	}
	err := k.write(headNote, at)
	l.mu.Lock()
	if k.err = err; err == nil {
		k.last = at.seq
	}
	l.mu.Unlock()
	return true
}

// segments signs the ends of closed segments that have no note yet: of those
// that were closed just now, and of what a crash left.
func (k *noteKeeper) segments() {
	err := k.missing()
	k.l.mu.Lock()
	k.closedErr = err
	k.l.mu.Unlock()
}

func (k *noteKeeper) missing() error {
	list, err := segments(k.l.opt.Dir)
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(list); i++ {
		if list[i] <= k.noted {
			continue
		}
		_, err := os.Stat(filepath.Join(k.l.opt.Dir, noteName(list[i])))
		if errors.Is(err, os.ErrNotExist) {
			if err = k.segment(list[i], list[i+1]); err == nil && k.l.retire != nil {
				k.l.retire.poke() // it may go now
			}
		}
		if errors.Is(err, errNoLine) {
			return nil // it comes in a moment, or with the next start
		}
		if err != nil {
			return err
		}
		k.noted = list[i]
	}
	return nil
}

var errNoLine = errors.New("the segment holds no line yet")

// segment signs the last line of a segment, whose hash the next one's first
// line holds.
func (k *noteKeeper) segment(first, next uint64) error {
	k.l.mu.Lock()
	at := k.l.sealed
	k.l.mu.Unlock()
	if at.seq+1 != next {
		l, err := firstLine(k.l.opt.Dir, next)
		if err != nil {
			return err
		}
		if l.Seq != next {
			return &CorruptError{File: l.File, Line: 1, Seq: l.Seq, Reason: "the file's name is not the seq of its first line"}
		}
		at = link{l.Chain, l.Seq - 1, l.Prev}
	}
	return k.write(noteName(first), at)
}

func (k *noteKeeper) write(name string, at link) error {
	c := Checkpoint{Chain: at.chain, Seq: at.seq, Hash: at.hash, Time: k.l.opt.Now().UTC().Truncate(time.Second)}
	data, err := c.sign(k.l.opt.Signer)
	if err == nil {
		err = k.l.writeFile(name, data)
	}
	if err != nil {
		return fmt.Errorf("checkpoint %s: %w", name, err)
	}
	return nil
}

// firstLine reads a segment's first line; errNoLine where there is none.
func firstLine(dir string, first uint64) (Line, error) {
	f, name, err := openSegment(dir, first)
	if err != nil {
		return Line{}, err
	}
	defer f.Close()
	r := lineReader{file: f, name: name, number: 1}
	l, err := r.next()
	if errors.Is(err, io.EOF) {
		return Line{}, errNoLine
	}
	return l, err
}

// headTimeout bounds one call of the CheckpointStore.
const headTimeout = 10 * time.Second

// A headKeeper brings checkpoints of what was shipped to the Sink.
type headKeeper struct {
	l     *Ledger
	store CheckpointStore
	loop

	// Guarded by the ledger's mu.
	last uint64
	err  error
}

// keep stores a checkpoint of the last line shipped, where there is a new one;
// false: nothing was shipped yet.
func (k *headKeeper) keep(ctx context.Context) bool {
	l := k.l
	l.mu.Lock()
	at, last := l.ship.tip, k.last
	l.mu.Unlock()
	if at.seq == 0 || at.seq == last || ctx.Err() != nil {
		return at.seq > 0
	}
	err := k.storeOne(ctx, at)
	l.mu.Lock()
	if k.err = err; err == nil {
		k.last = at.seq
	}
	l.mu.Unlock()
	return true
}

func (k *headKeeper) storeOne(ctx context.Context, at tip) error {
	c := Checkpoint{Chain: at.chain, Seq: at.seq, Hash: at.hash, Time: k.l.opt.Now().UTC().Truncate(time.Second)}
	data, err := c.sign(k.l.opt.Signer)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, headTimeout)
	defer cancel()
	if err := k.store.StoreCheckpoint(ctx, Head{Checkpoint: c, Note: data, Event: at.time}); err != nil {
		return fmt.Errorf("checkpoint of seq %d: %w", at.seq, err)
	}
	return nil
}
