package audit

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"
)

func hash(line []byte) [sha256.Size]byte { return sha256.Sum256(line) }

// A writer is what only the writing goroutine (and Open) touches.
type writer struct {
	file  file
	first uint64 // the segment's name
	size  int64  // of what was written whole
	// rotateAt is the size at which a rotation that failed is tried again.
	rotateAt int64
	torn     bool   // a failed write may have left bytes behind size
	damaged  bool   // a failed fsync, or the file is not in its place: see Ledger
	taken    bool   // it is not in its place
	unseen   bool   // something was written since it was last seen in its place
	spare    []byte // the buffer that is not pending
}

// run is the writing goroutine.
func (l *Ledger) run() {
	defer close(l.stopped)
	retry := time.NewTimer(l.opt.pause)
	retry.Stop()
	due := false // the timer runs
	for {
		probe := false
		select {
		case <-l.wake:
			// Requests that can run now append before the write, not behind it:
			// many share one write(2), and nobody waits for longer than those take.
			runtime.Gosched()
		case <-retry.C:
			probe, due = true, false
		}
		l.mu.Lock()
		closed := l.closed
		l.mu.Unlock()
		for last := probe || closed; l.step(last); {
			last = false
		}
		l.mu.Lock()
		failing := l.failure != nil
		over := closed && l.batch == nil && (failing || l.want <= l.synced)
		l.mu.Unlock()
		if over {
			return
		}
		if failing || l.w.unseen && !due {
			due = true
			retry.Reset(l.opt.pause)
		}
	}
}

// step writes what is pending and fsyncs where it is wanted; false: there was
// nothing to do, or it failed. A probe tries also where nobody asks, and looks
// whether the segment is in its place.
func (l *Ledger) step(probe bool) bool {
	l.mu.Lock()
	if l.lost > 0 && (l.batch != nil || probe) {
		l.add(l.lossReport())
		l.batch.count-- // if this is lost too, it is no event more
	}
	buf, b, head := l.pending, l.batch, l.head
	if b != nil && !b.woken && !probe && !l.closed { // it lingers
		b = nil
	}
	if b != nil {
		l.pending, l.batch = l.w.spare[:0], nil
	}
	l.mu.Unlock()
	if b != nil {
		l.w.spare = buf
		if err := l.write(b, buf, head); err != nil {
			l.fail(b, err)
			return false
		}
	}
	return l.sync(probe) && b != nil
}

// lossReport says in the log that events are missing from it.
func (l *Ledger) lossReport() *Event {
	return &Event{Type: TypeSystem, System: &System{Event: "repair", Detail: map[string]string{
		"problem": "events could not be written and are lost; whoever waited for one was refused",
		"events":  strconv.Itoa(l.lost),
	}}}
}

// write puts buf at the segment's end, publishes the new head, and ends the batch.
func (l *Ledger) write(b *batch, buf []byte, head link) error {
	if err := l.heal(); err != nil {
		return err
	}
	if l.w.size > 0 && l.w.size+int64(len(buf)) > max(l.opt.Segment, l.w.rotateAt) {
		err := l.rotate()
		if err != nil && !errors.Is(err, errNoSegment) {
			return err
		}
		if err != nil { // the old one holds more than it should; that is no reason to stop
			l.w.rotateAt = l.w.size + l.opt.Segment/16
		}
		l.mu.Lock()
		l.noRoom = err
		l.mu.Unlock()
	}
	if _, err := l.w.file.WriteAt(buf, l.w.size); err != nil {
		l.w.torn = true
		if l.w.file.Truncate(l.w.size) == nil {
			l.w.torn = false
		}
		return fmt.Errorf("writing the audit log: %w", err)
	}
	l.w.size += int64(len(buf))
	l.w.unseen = true

	l.mu.Lock()
	l.written = head
	l.total += int64(len(buf))
	l.failure = nil
	l.lost = 0
	b.end(nil)
	if l.ship != nil {
		l.ship.notice()
	}
	l.mu.Unlock()
	if l.copy != nil {
		l.copy.poke()
	}
	return nil
}

// fail ends the batch that could not be written, and with it all that was
// appended meanwhile: it continues a chain that is not there.
func (l *Ledger) fail(b *batch, err error) {
	l.mu.Lock()
	behind := l.batch
	l.pending, l.batch = l.pending[:0], nil
	l.head = l.written
	l.want = min(l.want, l.written.seq)
	for _, b := range []*batch{b, behind} {
		if b != nil {
			l.lost += b.count
			l.lostAll += uint64(b.count)
			b.end(err)
		}
	}
	l.failure = err
	r := l.next
	l.next = &round{done: make(chan struct{})}
	l.mu.Unlock()
	r.err = err
	close(r.done)
}

// heal brings the segment back to what was written, after a failure.
func (l *Ledger) heal() error {
	if l.w.torn {
		if err := l.w.file.Truncate(l.w.size); err != nil {
			return fmt.Errorf("cutting a half-written line off the audit log: %w", err)
		}
		l.w.torn = false
	}
	if l.w.damaged {
		if err := l.rewrite(); err != nil {
			return fmt.Errorf("rewriting the audit log's segment %s after %s: %w", segmentName(l.w.first), l.w.why(), err)
		}
		l.mu.Lock()
		l.synced, l.sealed = l.written.seq, l.written
		l.settled()
		if l.w.taken {
			l.add(&Event{Type: TypeSystem, System: &System{Event: "repair", Detail: map[string]string{
				"problem": "somebody removed, moved, compressed or replaced the segment that was being written; it was put back",
				"file":    segmentName(l.w.first),
			}}})
			if l.closed {
				l.want = l.head.seq
			}
		}
		l.mu.Unlock()
		l.w.damaged, l.w.taken = false, false
	}
	return nil
}

func (w *writer) why() string {
	if w.taken {
		return "somebody removed, moved or replaced it"
	}
	return "a failed fsync"
}

// look finds out whether the segment is still what its name stands for. Where
// it cannot be told it is put there: that shows what is wrong.
func (l *Ledger) look() {
	l.w.unseen = false
	mine, err := l.w.file.Stat()
	there, err2 := os.Lstat(filepath.Join(l.opt.Dir, segmentName(l.w.first)))
	if err != nil || err2 != nil || !os.SameFile(mine, there) {
		l.w.damaged, l.w.taken = true, true
	}
}

// settled wakes those who wait for an fsync: what they wait for may be fsynced
// without the one that they asked for. The caller holds mu.
func (l *Ledger) settled() {
	r := l.next
	l.next = &round{done: make(chan struct{})}
	close(r.done)
}

// sync fsyncs what is written, if somebody wants it.
func (l *Ledger) sync(probe bool) bool {
	if probe {
		l.look()
	}
	l.mu.Lock()
	if (l.want <= l.synced || l.written.seq <= l.synced) && !(probe && l.w.damaged) {
		l.mu.Unlock()
		return true
	}
	r := l.next
	sealed := l.written
	r.covers = sealed.seq
	l.flight, l.next = r, &round{done: make(chan struct{})}
	l.mu.Unlock()

	l.look()
	damaged := l.w.damaged
	err := l.heal()
	if err == nil && !damaged {
		if err = l.w.file.Sync(); err != nil {
			l.w.damaged = true
			err = fmt.Errorf("fsync of the audit log: %w", err)
		}
	}

	l.mu.Lock()
	l.seals++
	l.flight = nil
	if err == nil {
		l.synced, l.sealed = r.covers, sealed
	}
	if err != nil || l.lost == 0 {
		l.failure = err
	}
	l.mu.Unlock()
	r.err = err
	close(r.done)
	return err == nil
}

// rotate begins a new segment. The old one is fsynced first, and in its place:
// only the last segment can be torn.
func (l *Ledger) rotate() error {
	l.look()
	if err := l.heal(); err != nil {
		return err
	}
	if err := l.w.file.Sync(); err != nil {
		l.w.damaged = true
		return fmt.Errorf("fsync of the audit log: %w", err)
	}
	l.mu.Lock()
	l.seals++
	l.synced, l.sealed = l.written.seq, l.written
	l.settled()
	first := l.written.seq + 1
	l.mu.Unlock()
	f, err := l.create(segmentName(first))
	if err != nil {
		return fmt.Errorf("%w: %w", errNoSegment, err)
	}
	l.w.file.Close() // it is fsynced: closing cannot lose anything
	l.w.file, l.w.first, l.w.size, l.w.rotateAt = f, first, 0, 0
	l.pokeKeepers()
	return nil
}

// errNoSegment says that no new segment could be made, for lack of file
// descriptors for example; the old one is whole and fsynced.
var errNoSegment = errors.New("no new segment")

// create makes an empty segment whose name survives a power loss.
func (l *Ledger) create(name string) (file, error) {
	if err := l.lock.at(l.opt.Dir); err != nil {
		return nil, fmt.Errorf("a new segment of the audit log: %w", err)
	}
	name = filepath.Join(l.opt.Dir, name)
	f, err := l.opt.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return nil, fmt.Errorf("a new segment of the audit log: %w", err)
	}
	if err := l.opt.syncDir(l.opt.Dir); err != nil {
		f.Close()
		os.Remove(name)
		return nil, fmt.Errorf("a new segment of the audit log: %w", err)
	}
	return f, nil
}

const rewriteSuffix = ".new"

// rewrite puts a fresh copy of the segment in its place. It is the copy that is
// verified: what was read once the next read may not find, where the disk lost
// pages that were only in memory.
//
// In another folder than the one that is locked it is not put: the file of that
// name there may be another ledger's.
func (l *Ledger) rewrite() error {
	if err := l.lock.at(l.opt.Dir); err != nil {
		return err
	}
	name := filepath.Join(l.opt.Dir, segmentName(l.w.first))
	f, err := l.opt.open(name+rewriteSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(f, 0), io.NewSectionReader(l.w.file, 0, l.w.size))
	if err == nil {
		err = l.readBack(f)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(name+rewriteSuffix, name)
	}
	if err != nil {
		f.Close()
		os.Remove(name + rewriteSuffix)
		return err
	}
	l.w.file.Close()
	l.w.file = f
	return l.opt.syncDir(l.opt.Dir)
}

// readBack verifies that a copy of the segment holds what was written.
func (l *Ledger) readBack(f io.ReaderAt) error {
	r := lineReader{file: io.NewSectionReader(f, 0, l.w.size), name: segmentName(l.w.first), number: 1}
	var k link
	for {
		line, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = k.check(&line)
		}
		if err != nil {
			return err
		}
	}
	if l.w.size > 0 && k != l.written {
		return errors.New("the disk lost lines that it had accepted; start again to see what is left")
	}
	return nil
}

// syncDir makes the folder's names survive a power loss.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}
