package upload

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// swept sweeps once at that time, and gives what was reported.
func (f *fixture) swept(t *testing.T, at time.Time, s *Sweeper, l *listener) string {
	t.Helper()
	f.set(at)
	l.swept = nil
	if _, err := s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	var what []string
	for _, one := range l.swept {
		what = append(what, one.What)
	}
	return strings.Join(what, " ")
}

func TestSweepWaitsForItsTime(t *testing.T) {
	f := newEmpty(t)
	sweeper, l := f.sweeper()
	s := f.begin(t, owned(jpeg()))
	for _, at := range []time.Time{s.ExpiresAt, s.ConfirmBy, s.ConfirmBy.Add(5*time.Minute - time.Second)} {
		if got := f.swept(t, at, sweeper, l); got != "" {
			t.Errorf("at %v: %s", at, got)
		}
	}
	at := s.ConfirmBy.Add(5*time.Minute + time.Second)
	if got := f.swept(t, at, sweeper, l); got != "expired" || l.swept[0].Late != time.Second {
		t.Errorf("%s, %+v", got, l.swept)
	}
	if s = f.stored(t, s.ID); s.Status != Expired || !s.Wake.IsZero() || s.Reason != "" {
		t.Errorf("%+v", s)
	}
	if got := f.swept(t, at.Add(time.Hour), sweeper, l); got != "" {
		t.Errorf("again: %s", got)
	}
}

func TestSweepLate(t *testing.T) {
	for _, c := range []struct {
		name          string
		delete        bool
		put           func(f *fixture, s *Session)
		what, reason  string
		left, deleted int
	}{
		{"nothing, keep", false, nil, "expired", "", 0, 0},
		{"nothing, delete", true, nil, "expired", "", 0, 0},
		{"kept", false, func(f *fixture, s *Session) { f.bucket.put(s.Key, Object{Size: 5}, true) }, "late_kept", "late: kept", 1, 0},
		{"deleted", true, func(f *fixture, s *Session) { f.bucket.put(s.Key, Object{Size: 5}, true) }, "late_deleted", "late: deleted", 0, 1},
		{"deleted whatever it is", true, func(f *fixture, s *Session) { f.bucket.put(s.Key, Object{Size: 50, ContentType: "a/b"}, true) }, "late_deleted", "late: deleted", 0, 1},
		{"all versions", true, func(f *fixture, s *Session) {
			f.bucket.versioned = true
			for range 3 {
				f.bucket.put(s.Key, Object{Size: 5}, true)
			}
		}, "late_deleted", "late: deleted", 0, 3},
		{"older than the session", true, func(f *fixture, s *Session) {
			f.bucket.put(s.Key, Object{Size: 5}, true)
			f.bucket.objects[s.Key][0].Modified = start.Add(-time.Minute)
		}, "expired", "", 1, 0},
		{"not a version that was there before", true, func(f *fixture, s *Session) {
			f.bucket.versioned = true
			f.bucket.put(s.Key, Object{Size: 5}, true)
			f.bucket.objects[s.Key][0].Modified = start.Add(-time.Minute)
			f.bucket.put(s.Key, Object{Size: 5}, true)
		}, "late_deleted", "late: deleted", 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, r := newEmpty(t), owned(jpeg())
			r.DeleteLate, r.Overwrite = c.delete, true
			r.Quota = &Quota{Objects: 1, Window: time.Hour}
			s := f.begin(t, r)
			if c.put != nil {
				c.put(f, s)
			}
			sweeper, l := f.sweeper()
			if got := f.swept(t, s.over(), sweeper, l); got != c.what {
				t.Errorf("did %s, want %s", got, c.what)
			}
			s = f.stored(t, s.ID)
			if s.Status != Expired || s.Reason != c.reason || s.Wake.IsZero() == c.delete || s.Held != (c.what == "late_kept") {
				t.Errorf("%+v", s)
			}
			if len(f.bucket.objects[s.Key]) != c.left || len(f.bucket.deleted) != c.deleted {
				t.Errorf("left %v, deleted %v", f.bucket.objects, f.bucket.deleted)
			}
			for _, d := range f.bucket.deleted {
				if f.bucket.versioned == strings.HasSuffix(d, "@") {
					t.Errorf("deleted %q", d)
				}
			}
			if want := map[bool]int{true: 1}[c.what == "late_deleted"]; len(l.recorded) != want {
				t.Errorf("recorded %v", l.recorded)
			}
		})
	}
}

// One PUT that is sent very slowly lands when its session is long over: it is
// deleted all the same.
func TestSweepDeletesWhatLandsMuchLater(t *testing.T) {
	for _, abort := range []bool{false, true} {
		f, r := newEmpty(t), owned(jpeg())
		r.DeleteLate = true
		s := f.begin(t, r)
		if abort {
			if _, err := f.Abort(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		sweeper, l := f.sweeper()
		f.swept(t, s.over(), sweeper, l)
		f.bucket.put(s.Key, Object{Size: 5}, false)
		if got := f.swept(t, s.ExpiresAt.Add(lastLook-time.Second), sweeper, l); got != "" {
			t.Errorf("early: %s", got)
		}
		if got := f.swept(t, s.ExpiresAt.Add(lastLook), sweeper, l); got != "late_deleted" || len(f.bucket.objects[s.Key]) != 0 || len(l.recorded) != 1 {
			t.Errorf("%s, left %v, recorded %v", got, f.bucket.objects, l.recorded)
		}
		if got := f.stored(t, s.ID); !got.Wake.IsZero() || got.Reason != lateDeleted {
			t.Errorf("%+v", got)
		}
	}
}

// More versions than one look deletes are deleted by the next looks.
func TestSweepManyVersions(t *testing.T) {
	f, r := newEmpty(t), owned(jpeg())
	r.DeleteLate, r.Overwrite = true, true
	s := f.begin(t, r)
	f.bucket.versioned = true
	for range 20 {
		f.bucket.put(s.Key, Object{Size: 5}, true)
	}
	sweeper, l := f.sweeper()
	if got := f.swept(t, s.over(), sweeper, l); got != "failed" || f.stored(t, s.ID).Wake.IsZero() {
		t.Errorf("at first: %s, %+v", got, l.swept)
	}
	if got := f.swept(t, s.over().Add(2*time.Hour), sweeper, l); got != "late_deleted" || len(f.bucket.objects[s.Key]) != 0 {
		t.Errorf("then: %s, %v", got, f.bucket.objects)
	}
}

// What cannot be put on record is not done.
func TestSweepDoesNothingUnrecorded(t *testing.T) {
	for name, record := range map[string]func(context.Context, *Session, string) error{
		"failing": func(context.Context, *Session, string) error { return errors.New("disk full") },
		"none":    nil,
	} {
		f := newEmpty(t)
		r := owned(jpeg())
		r.DeleteLate = true
		s := f.begin(t, r)
		f.bucket.put(s.Key, Object{Size: 5}, true)
		many := f.in(t, Uploading, video(), true)
		sweeper, l := f.sweeper()
		sweeper.Record = record
		if got := f.swept(t, s.over(), sweeper, l); got != "failed failed" {
			t.Errorf("%s: %s", name, got)
		}
		for _, one := range l.swept {
			if !errors.Is(one.Err, ErrUnavailable) || one.Session == nil {
				t.Errorf("%s: %+v", name, one)
			}
		}
		if len(f.bucket.deleted)+len(f.bucket.aborted) != 0 {
			t.Errorf("%s: deleted %v, aborted %v", name, f.bucket.deleted, f.bucket.aborted)
		}
		if s := f.stored(t, s.ID); s.Status != Expired || s.Wake.IsZero() || s.Reason != lateDeleting {
			t.Errorf("%s: %+v", name, s)
		}
		sweeper.Record = l.record
		f.swept(t, s.over().Add(2*time.Hour), sweeper, l)
		if len(f.bucket.deleted) != 1 || len(f.bucket.aborted) != 1 || len(f.bucket.open) != 0 || len(l.recorded) != 2 {
			t.Errorf("%s: deleted %v, aborted %v, recorded %v", name, f.bucket.deleted, f.bucket.aborted, l.recorded)
		}
		if got := f.stored(t, s.ID); got.Reason != lateDeleted || !f.stored(t, many.ID).Wake.IsZero() {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// What fails is tried again ever more seldom, and never forgotten.
func TestSweepPutsOff(t *testing.T) {
	f := newEmpty(t)
	s := f.begin(t, owned(jpeg()))
	sweeper, l := f.sweeper()
	f.bucket.headErr = fmt.Errorf("%w: 403", ErrUnavailable)
	at, last := s.over(), time.Duration(0)
	for range 12 {
		if got := f.swept(t, at, sweeper, l); got != "failed" {
			t.Fatalf("at %v: %s", at, got)
		}
		wait := f.stored(t, s.ID).Wake.Sub(at)
		if wait < max(last, minRetry) || wait > maxRetry {
			t.Errorf("waits %v after %v", wait, last)
		}
		at, last = at.Add(wait), wait
	}
	if last != maxRetry {
		t.Errorf("waits %v in the end", last)
	}
	f.bucket.headErr = nil
	if got := f.swept(t, at, sweeper, l); got != "expired" {
		t.Errorf("in the end: %s", got)
	}
}

// What is stuck does not keep others from being swept, nor the sweep from ending.
func TestSweepPassesWhatIsStuck(t *testing.T) {
	f := newEmpty(t)
	for range 2 * sweepPage {
		f.begin(t, owned(jpeg()))
	}
	last := f.begin(t, func() Request { r := owned(jpeg()); r.Bucket = "other"; f.Buckets["other"] = f.bucket; return r }())
	stuck := &stuckStore{memory: f.store, but: last.ID}
	sweeper, l := f.sweeper()
	sweeper.Uploads.Store = stuck
	sweeper.Uploads.Buckets["other"] = f.bucket
	f.store.mu.Lock()
	one := f.store.sessions[last.ID]
	one.Wake = one.Wake.Add(time.Second) // the last to be due
	f.store.sessions[last.ID] = one
	f.store.mu.Unlock()
	f.set(last.over().Add(time.Minute))
	if n, err := sweeper.Sweep(t.Context()); err != nil || n != 1 {
		t.Errorf("moved %d, %v", n, err)
	}
	if got := f.stored(t, last.ID); got.Status != Expired {
		t.Errorf("%+v", got)
	}
	if n := l.count("failed"); n != 2*sweepPage {
		t.Errorf("%d failed", n)
	}
}

// stuckStore moves one session only.
type stuckStore struct {
	*memory
	but string
}

func (s *stuckStore) Transition(ctx context.Context, from Status, next *Session) error {
	if next.ID != s.but {
		return errors.New("stuck")
	}
	return s.memory.Transition(ctx, from, next)
}

// One that cannot be read holds up no other, however many are due.
func TestSweepPassesWhatCannotBeRead(t *testing.T) {
	f := newEmpty(t)
	for range 2*sweepPage + 1 {
		f.begin(t, owned(jpeg()))
	}
	sweeper, _ := f.sweeper()
	sweeper.Uploads.Index = &damagedIndex{f.store}
	f.set(start.Add(24 * time.Hour))
	if n, err := sweeper.Sweep(t.Context()); n != 2*sweepPage+1 || !errors.Is(err, ErrUnavailable) {
		t.Errorf("moved %d, %v", n, err)
	}
}

// damagedIndex has one more that cannot be read.
type damagedIndex struct{ *memory }

func (i *damagedIndex) Due(ctx context.Context, now time.Time, limit int) ([]*Session, error) {
	due, _ := i.memory.Due(ctx, now, limit)
	return due, errors.New("a session cannot be read")
}

// An index that is behind gives sessions as they were: the sweep ends all the same.
func TestSweepOfAStaleIndex(t *testing.T) {
	f := newEmpty(t)
	s := f.begin(t, owned(jpeg()))
	sweeper, l := f.sweeper()
	sweeper.Uploads.Index = &staleIndex{f.store, *s}
	if got := f.swept(t, s.over(), sweeper, l); got != "expired" {
		t.Errorf("did %s", got)
	}
	if got := f.swept(t, s.over().Add(time.Hour), sweeper, l); got != "" || f.store.transitions != 2 {
		t.Errorf("did %s in %d", got, f.store.transitions)
	}
}

type staleIndex struct {
	*memory
	s Session
}

func (i *staleIndex) Due(context.Context, time.Time, int) ([]*Session, error) {
	s := i.s
	return []*Session{&s}, nil
}

// A gateway that stops says nothing of what it did not do.
func TestSweepStops(t *testing.T) {
	f := newEmpty(t)
	s := f.begin(t, owned(jpeg()))
	ctx, cancel := context.WithCancel(t.Context())
	f.bucket.hook = func(string) { cancel() }
	f.bucket.headErr = context.Canceled
	sweeper, l := f.sweeper()
	f.set(s.over())
	if _, err := sweeper.Sweep(ctx); err != nil || len(l.swept) != 0 {
		t.Errorf("%v, %+v", err, l.swept)
	}
	f.bucket.hook, f.bucket.headErr = nil, nil
	if got := f.swept(t, s.over(), sweeper, l); got != "expired" {
		t.Errorf("then %s", got)
	}
}

func TestSweepSaysThatItCannotTell(t *testing.T) {
	f := newEmpty(t)
	sweeper, _ := f.sweeper()
	f.faults.reset(1, refused, errors.New("down"))
	if _, err := sweeper.Sweep(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f.faults.reset(0, "", nil)
	if n, err := sweeper.Sweep(ctx); n != 0 || err != nil || len(f.faults.calls) != 0 {
		t.Errorf("%d, %v, %v", n, err, f.faults.calls)
	}
}

// Uploads that nobody is expected to confirm: what landed in time is ready, also
// where no gateway ran when it was time to look.
func TestSweepConfirms(t *testing.T) {
	for _, c := range []struct {
		name   string
		landed time.Duration // after the start; negative: never
		size   int64
		swept  []time.Duration
		what   string
		state  Status
	}{
		{"in time", time.Minute, 5, []time.Duration{16 * time.Minute}, "ready", Ready},
		{"another size", time.Minute, 6, []time.Duration{16 * time.Minute}, "rejected", Rejected},
		{"slowly", 20 * time.Minute, 5, []time.Duration{16 * time.Minute, 81 * time.Minute}, " ready", Ready},
		{"never", -1, 5, []time.Duration{16 * time.Minute, 81 * time.Minute}, " expired", Expired},
		{"no gateway ran for a day", time.Minute, 5, []time.Duration{24 * time.Hour}, "ready", Ready},
		{"too late", 77 * time.Minute, 5, []time.Duration{16 * time.Minute, 81 * time.Minute}, " late_kept", Expired},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, r := newEmpty(t), owned(jpeg())
			r.AutoConfirm = true
			s := f.begin(t, r)
			sweeper, l := f.sweeper()
			sweeper.Uploads.Notices = false
			var got []string
			for _, at := range c.swept {
				if c.landed >= 0 && c.landed <= at && f.time().Sub(start) <= c.landed {
					f.set(start.Add(c.landed))
					f.bucket.put(s.Key, Object{Size: c.size, ContentType: "image/jpeg"}, false)
				}
				got = append(got, f.swept(t, start.Add(at), sweeper, l))
			}
			if strings.Join(got, " ") != c.what || f.stored(t, s.ID).Status != c.state {
				t.Errorf("%q, %+v", got, f.stored(t, s.ID))
			}
		})
	}
}

// A multipart upload that lasts longer than the URL that began it is looked at
// again and again, and not only when its time is over.
func TestSweepConfirmsWhatTakesLong(t *testing.T) {
	f, r := newEmpty(t), video()
	r.AutoConfirm, r.ConfirmWithin = true, 24*time.Hour
	s := f.in(t, Uploading, r, true)
	sweeper, l := f.sweeper()
	sweeper.Uploads.Notices = false
	landed := start.Add(5 * time.Hour)
	looks, last := 0, time.Duration(0)
	for at := s.Wake; ; at = f.stored(t, s.ID).Wake {
		if looks++; looks > 30 {
			t.Fatalf("still not ready at %v", at)
		}
		if at.After(landed) && len(f.bucket.open) > 0 {
			f.set(landed)
			part := f.bucket.part(s.UploadID, 1, r.Size)
			if err := f.bucket.complete(Put{Key: s.Key}, s.UploadID, []Part{part}); err != nil {
				t.Fatal(err)
			}
		}
		if got := f.swept(t, at, sweeper, l); got == "ready" {
			if late := at.Sub(landed); late > time.Hour {
				t.Errorf("ready %v late", late)
			}
			break
		}
		pause := f.stored(t, s.ID).Wake.Sub(at)
		if pause < last || pause > time.Hour {
			t.Errorf("waits %v after %v", pause, last)
		}
		last = pause
	}
	if looks > 16 {
		t.Errorf("%d looks", looks)
	}
}

// The last look comes when the session's time is over, and not before.
func TestSweepLooksNotWithinTheGrace(t *testing.T) {
	f, r := newEmpty(t), owned(jpeg())
	r.AutoConfirm = true
	s := f.begin(t, r)
	sweeper, l := f.sweeper()
	for at := s.Wake; f.stored(t, s.ID).Status == Issued; at = f.stored(t, s.ID).Wake {
		if at.After(s.ConfirmBy) && at.Before(s.over()) {
			t.Errorf("looks at %v, %v before the end", at, s.over().Sub(at))
		}
		f.swept(t, at, sweeper, l)
	}
	if now := f.time(); now.Before(s.over()) {
		t.Errorf("ended at %v, before %v", now, s.over())
	}
}

// What was opened at the store and forgotten is ended: the session's own, those
// of beginners that were killed, and nothing under a key that others share.
func TestSweepAbortsMultiparts(t *testing.T) {
	f := newEmpty(t)
	own := f.in(t, Uploading, video(), true)
	orphan := f.bucket.create(Put{Key: own.Key})
	killedBefore := f.in(t, Issued, video(), true)
	lost := f.bucket.create(Put{Key: killedBefore.Key})
	r := video()
	r.Key = "shared/film"
	shared := f.in(t, Uploading, r, true)
	others := f.bucket.create(Put{Key: r.Key})
	r.ID = NewID()
	f.in(t, Issued, r, true)

	sweeper, l := f.sweeper()
	if got := f.swept(t, own.over(), sweeper, l); strings.Count(got, "aborted") != 3 || strings.Count(got, "expired") != 1 {
		t.Errorf("did %s", got)
	}
	for _, id := range []string{own.UploadID, orphan, lost, shared.UploadID} {
		if f.bucket.open[id] != nil {
			t.Errorf("%s is open", id)
		}
	}
	if len(f.bucket.open) != 1 || f.bucket.open[others] == nil {
		t.Errorf("open: %v", f.bucket.open)
	}
	if len(l.recorded) != 3 {
		t.Errorf("recorded %v", l.recorded)
	}
}

// A session that is ready leaves nothing open of a race to begin it.
func TestSweepTidiesAfterReady(t *testing.T) {
	f := newEmpty(t)
	s := f.in(t, Uploading, idempotent(video(), "k"), true)
	orphan := f.bucket.create(Put{Key: s.Key})
	for i, size := range videoParts {
		f.bucket.part(s.UploadID, i+1, size)
	}
	s, err := f.Complete(t.Context(), s, nil)
	if err != nil || s.Wake.IsZero() {
		t.Fatalf("%+v, %v", s, err)
	}
	sweeper, l := f.sweeper()
	if got := f.swept(t, s.Wake, sweeper, l); got != "aborted" || f.bucket.open[orphan] != nil {
		t.Errorf("%s, open %v", got, f.bucket.open)
	}
	if got := f.stored(t, s.ID); got.Status != Ready || !got.Wake.IsZero() || len(f.bucket.objects[s.Key]) != 1 {
		t.Errorf("%+v", got)
	}
}

// A late multipart upload whose completion was stored nowhere is late, too.
func TestSweepFindsCompletedMultipart(t *testing.T) {
	for _, remove := range []bool{false, true} {
		f, r := newEmpty(t), video()
		r.DeleteLate = remove
		s := f.in(t, Uploading, r, true)
		part := f.bucket.part(s.UploadID, 1, 12<<20)
		if err := f.bucket.complete(Put{Key: s.Key}, s.UploadID, []Part{part}); err != nil {
			t.Fatal(err)
		}
		sweeper, l := f.sweeper()
		want := map[bool]string{true: "late_deleted", false: "late_kept"}[remove]
		if got := f.swept(t, s.over(), sweeper, l); got != want || (len(f.bucket.objects[s.Key]) == 0) != remove {
			t.Errorf("%s, %v", got, f.bucket.objects)
		}
	}
}

// A bucket that sidegate.yaml has no more is no reason to lose a session.
func TestSweepWithoutItsBucket(t *testing.T) {
	f := newEmpty(t)
	s := f.begin(t, owned(jpeg()))
	sweeper, l := f.sweeper()
	sweeper.Uploads.Buckets = nil
	if got := f.swept(t, s.over(), sweeper, l); got != "failed" || f.stored(t, s.ID).Wake.IsZero() {
		t.Errorf("%s, %+v", got, f.stored(t, s.ID))
	}
}
