package audit

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// systemRetention is the event that announces the deletion of a segment.
const systemRetention = "retention"

// A retireKeeper deletes closed segments that are older than Retention, the
// oldest first: at the start, when a segment was closed, and every hour. What
// it cannot read, or what does not continue, it keeps: that is evidence.
type retireKeeper struct {
	l *Ledger
	loop
	ends map[uint64]time.Time // of segments that were too young: their last events
	jump clockJump
	err  error // guarded by the ledger's mu
}

// A clock that is put ahead makes young events old. Who does that, or whose
// time server is wrong, has a day in which to see it.
const (
	jumpAhead = time.Hour
	jumpHold  = 24 * time.Hour
)

// A clockJump notices that the clock on the wall went ahead of the time that
// passed. The zero value has seen nothing yet.
type clockJump struct {
	wall, passed time.Time // of the last look; passed by the monotonic clock
	hold         time.Time // until then, by the monotonic clock, nothing is deleted
}

// look is nil where the clock can be believed.
func (j *clockJump) look(wall, passed time.Time) error {
	wall = wall.Round(0)
	ahead := wall.Sub(j.wall) - passed.Sub(j.passed)
	if !j.wall.IsZero() && ahead > jumpAhead {
		j.hold = passed.Add(jumpHold)
	}
	j.wall, j.passed = wall, passed
	if passed.Before(j.hold) {
		return fmt.Errorf("the clock was put ahead by more than %s: nothing is deleted for a day; put it right, if it is wrong", jumpAhead)
	}
	return nil
}

func newRetireKeeper(l *Ledger) *retireKeeper {
	r := &retireKeeper{l: l, loop: newLoop(), ends: map[uint64]time.Time{}}
	_ = r.jump.look(l.opt.Now(), l.opt.passed()) // the first look believes the clock
	return r
}

// sweep deletes what is due.
func (r *retireKeeper) sweep() {
	err := r.due()
	if r.ctx.Err() != nil {
		return
	}
	if err != nil {
		err = fmt.Errorf("retention deletes nothing more: %w", err)
	}
	r.l.mu.Lock()
	r.err = err
	r.l.mu.Unlock()
}

func (r *retireKeeper) due() error {
	list, err := segments(r.l.opt.Dir)
	if err != nil {
		return err
	}
	if err := r.jump.look(r.l.opt.Now(), r.l.opt.passed()); err != nil {
		return err
	}
	oldest := r.l.opt.Now().Add(-r.l.opt.Retention)
	for i := 0; i+1 < len(list); i++ { // never the last one
		first, next := list[i], list[i+1]
		if end, ok := r.ends[first]; ok && end.After(oldest) {
			return r.future(first, end)
		}
		if sink := r.l.ship; sink != nil {
			r.l.mu.Lock()
			shipped := sink.shipped
			r.l.mu.Unlock()
			if shipped < next-1 {
				return nil
			}
		}
		if noted, err := r.noted(first); err != nil || !noted {
			return err
		}
		if end, ok := lastTime(r.l.opt.Dir, first, next); ok && end.After(oldest) {
			r.ends[first] = end
			return r.future(first, end)
		}
		last, name, err := r.read(first, next)
		if err != nil {
			return err
		}
		if last.time.After(oldest) {
			r.ends[first] = last.time
			return r.future(first, last.time)
		}
		if err := r.remove(first, name, last); err != nil {
			return err
		}
		delete(r.ends, first)
	}
	return nil
}

// future says why a segment stays, and all behind it, for longer than anybody
// meant: a clock that was a year ahead for a minute must not fill the disk in
// silence.
func (r *retireKeeper) future(first uint64, end time.Time) error {
	if !end.After(r.l.opt.Now().Add(24 * time.Hour)) {
		return nil
	}
	return fmt.Errorf("the last event of %s is of %s, which is yet to come: the clock was wrong then, or is now; "+
		"if it was then, move that file out of the folder, with all before it, and leave their notes", segmentName(first), end.UTC().Format(time.RFC3339))
}

// lastTime is the time of a segment's last event where it can be read by itself.
// It is enough to keep a segment, and so to verify it once, when it is due, and
// not also while the log grows; never to delete one.
func lastTime(dir string, first, next uint64) (time.Time, bool) {
	f, name, err := openSegment(dir, first)
	if err != nil {
		return time.Time{}, false
	}
	defer f.Close()
	plain, ok := f.(*os.File)
	if !ok {
		return time.Time{}, false
	}
	info, err := plain.Stat()
	if err != nil {
		return time.Time{}, false
	}
	end := make([]byte, min(info.Size(), readSize))
	if _, err := plain.ReadAt(end, info.Size()-int64(len(end))); err != nil {
		return time.Time{}, false
	}
	text, whole := bytes.CutSuffix(end, []byte("\n"))
	l, err := ParseLine(text[bytes.LastIndexByte(text, '\n')+1:])
	return l.Time, whole && err == nil && l.Seq+1 == next && l.Chain != "" && name == segmentName(first)
}

// read verifies a segment, and that the next one continues it: its last line.
func (r *retireKeeper) read(first, next uint64) (tip, string, error) {
	f, name, err := openSegment(r.l.opt.Dir, first)
	if err != nil {
		return tip{}, "", err
	}
	defer f.Close()
	lines := lineReader{file: f, name: name, number: 1}
	var last tip
	for r.ctx.Err() == nil {
		l, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && last.seq == 0 && l.Seq != first {
			err = &CorruptError{File: name, Line: 1, Seq: l.Seq, Reason: "the file's name is not the seq of its first line"}
		}
		if err == nil {
			err = last.check(&l)
		}
		if err != nil {
			return tip{}, "", err
		}
		last.time = l.Time
	}
	if err := r.ctx.Err(); err != nil {
		return tip{}, "", err
	}
	if n := len(lines.rest()); n > 0 || last.seq+1 != next {
		return tip{}, "", &CorruptError{File: name, Seq: last.seq + 1, Offset: lines.offset, Reason: "it does not lead to the next segment"}
	}
	l, err := firstLine(r.l.opt.Dir, next)
	switch {
	case errors.Is(err, errNoLine): // just made
	case err != nil:
		return tip{}, "", err
	case l.Chain != last.chain || l.Prev != last.hash:
		return tip{}, "", &CorruptError{File: l.File, Line: 1, Seq: l.Seq, Reason: "it does not continue " + name}
	}
	return last, name, nil
}

// noted reports whether the segment's checkpoint is there, where there are
// any: without it nothing would vouch for the first line that is left. Whoever
// writes it wakes this goroutine.
func (r *retireKeeper) noted(first uint64) (bool, error) {
	if r.l.opt.Signer == nil {
		return true, nil
	}
	_, err := os.Stat(filepath.Join(r.l.opt.Dir, noteName(first)))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// remove puts the deletion on record, durably, and only then deletes. A crash
// between the two has it done again, and announced again, by the next start.
func (r *retireKeeper) remove(first uint64, name string, last tip) error {
	l := r.l
	ticket, err := l.Append(&Event{Type: TypeSystem, System: &System{Event: systemRetention, Detail: map[string]string{
		"file":   name,
		"from":   strconv.FormatUint(first, 10),
		"to":     strconv.FormatUint(last.seq, 10),
		"sha256": hex.EncodeToString(last.hash[:]),
		"last":   last.time.UTC().Format(time.RFC3339Nano),
	}}})
	if err == nil {
		err = ticket.Wait(r.ctx, Power)
	}
	if err != nil {
		return err
	}
	for _, name := range []string{segmentName(first) + gzipSuffix, segmentName(first)} {
		if err := l.opt.remove(filepath.Join(l.opt.Dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := l.opt.syncDir(l.opt.Dir); err != nil {
		return err
	}
	return r.forget(first)
}

// forget deletes the checkpoints of segments that were deleted, but for the
// newest: it vouches for the first line that is left.
func (r *retireKeeper) forget(newest uint64) error {
	numbers, err := noteNumbers(r.l.opt.Dir)
	if err != nil {
		return err
	}
	for _, first := range numbers {
		if first >= newest {
			break
		}
		if err := os.Remove(filepath.Join(r.l.opt.Dir, noteName(first))); err != nil {
			return err
		}
	}
	return nil
}

// announced is up to which seq a line says that retention deleted; 0: it says
// nothing of it.
func announced(l *Line) uint64 {
	if l.Type != TypeSystem || l.Stub {
		return 0
	}
	e, err := l.Event()
	if err != nil || e.System == nil || e.System.Event != systemRetention {
		return 0
	}
	to, err := strconv.ParseUint(e.System.Detail["to"], 10, 63)
	if err != nil {
		return 0
	}
	return to
}
