package upload

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

func (f *fixture) ready(t *testing.T) (*Session, *Sweeper, *listener) {
	t.Helper()
	f.Uploads.Notices = true
	s := f.in(t, Ready, owned(jpeg()), false)
	sweeper, l := f.sweeper()
	return s, sweeper, l
}

func TestNoticeOfReadyAndRejectedOnly(t *testing.T) {
	for _, many := range []bool{false, true} {
		for _, status := range []Status{Issued, Ready, Rejected, Failed, Aborted, Expired} {
			if status == Failed && !many {
				continue
			}
			f := newEmpty(t)
			f.Uploads.Notices = true
			r := owned(jpeg())
			if many {
				r = video()
			}
			s := f.in(t, status, r, many)
			want := status == Ready || status == Rejected
			if (s.Notice == NoticeDue) != want || want && s.Wake.After(start) {
				t.Errorf("%s: notice %q, wake %v", status, s.Notice, s.Wake)
			}
			sweeper, l := f.sweeper()
			f.swept(t, start, sweeper, l)
			if status == Rejected && !s.RejectedAt.Equal(start) {
				t.Errorf("rejected at %v", s.RejectedAt)
			}
			if want != (len(l.told) == 1) || want && l.told[0] != s.ID+" "+string(status) {
				t.Errorf("%s: told %v", status, l.told)
			}
			f.swept(t, start.Add(24*time.Hour), sweeper, l)
			if want != (len(l.told) == 1) {
				t.Errorf("%s: told again %v", status, l.told)
			}
			if s = f.stored(t, s.ID); !s.Wake.IsZero() {
				t.Errorf("%s: %+v", status, s)
			}
		}
	}
}

// Each failure makes the next attempt later, as Standard Webhooks says, until
// it is given up after some three days.
func TestNoticeIsTriedAgainAndGivenUp(t *testing.T) {
	f := newEmpty(t)
	s, sweeper, l := f.ready(t)
	refuses := errors.New("500")
	attempts := 0
	sweeper.Notify = notifier(func(got *Session) error {
		attempts++
		if got.ID != s.ID || got.Attempts != attempts {
			t.Errorf("attempt %d: %+v", attempts, got)
		}
		return refuses
	})
	at, first := start, start
	for i := range maxNotices {
		got := f.swept(t, at, sweeper, l)
		if i == maxNotices-1 {
			if got != "notice_given_up" {
				t.Errorf("in the end: %s", got)
			}
			break
		}
		if got != "notice_failed" || !errors.Is(l.swept[0].Err, refuses) {
			t.Fatalf("attempt %d: %s, %+v", i+1, got, l.swept)
		}
		wait := f.stored(t, s.ID).Wake.Sub(at)
		if d := noticeDelays[i]; wait < d || wait > d+d/5 {
			t.Errorf("attempt %d: waits %v, want %v", i+1, wait, d)
		}
		if again := f.swept(t, at.Add(wait-time.Millisecond), sweeper, l); again != "" {
			t.Errorf("attempt %d: early %s", i+1, again)
		}
		at = at.Add(wait)
	}
	if attempts != 10 || at.Sub(first) < 72*time.Hour {
		t.Errorf("%d attempts in %v", attempts, at.Sub(first))
	}
	if s = f.stored(t, s.ID); s.Notice != NoticeGivenUp || !s.Wake.IsZero() || s.Status != Ready {
		t.Errorf("%+v", s)
	}
}

type notifier func(*Session) error

func (n notifier) Notify(_ context.Context, s *Session) error { return n(s) }

// A gateway that is killed while it tells: another tells again, after a while.
func TestNoticeOfAKilledGatewayIsTakenOver(t *testing.T) {
	f := newEmpty(t)
	s, sweeper, _ := f.ready(t)
	sweeper.Notify = notifier(func(*Session) error {
		f.faults.mu.Lock()
		defer f.faults.mu.Unlock()
		f.faults.dead = true
		return nil
	})
	if _, err := sweeper.Sweep(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	f.faults.reset(0, "", nil)
	other, heard := f.sweeper()
	if got := f.swept(t, start.Add(noticeLease-time.Second), other, heard); got != "" {
		t.Errorf("while it may still be told: %s", got)
	}
	if got := f.swept(t, start.Add(noticeLease+time.Second), other, heard); got != "notified" || len(heard.told) != 1 {
		t.Errorf("then: %s, %v", got, heard.told)
	}
	if s = f.stored(t, s.ID); s.Notice != NoticeSent || s.Attempts != 2 {
		t.Errorf("%+v", s)
	}
}

// Told, but that it was is not stored: it is told again, as the same.
func TestNoticeIsToldAtLeastOnce(t *testing.T) {
	for call := 1; call <= 4; call++ { // Due, the claim, Notify, the end
		for _, m := range []mode{refused, lost, deadFirst, deadThen} {
			f := newEmpty(t)
			s, sweeper, l := f.ready(t)
			f.faults.reset(call, m, errors.New("down"))
			if _, err := sweeper.Sweep(t.Context()); err != nil && !errors.Is(err, ErrUnavailable) {
				t.Fatal(err)
			}
			f.faults.reset(0, "", nil)
			for _, after := range []time.Duration{time.Minute, time.Hour, 5 * time.Hour} {
				f.set(start.Add(after))
				sweepAll(t, f)
			}
			if got := f.stored(t, s.ID); got.Notice != NoticeSent {
				t.Errorf("call %d (%s): %+v", call, m, got)
			}
			if len(l.told) > 1 {
				t.Errorf("call %d (%s): told %v", call, m, l.told)
			}
		}
	}
}

// A receiver that hangs keeps no session from being ended, and a sweep from
// ending: what there is no time for is told later, and loses no attempt by it.
func TestNoticesThatHangHoldUpNothing(t *testing.T) {
	f := newEmpty(t)
	f.Uploads.Notices = true
	over := f.begin(t, owned(jpeg()))
	f.set(over.over().Add(-time.Minute))
	var told []*Session
	for range 3 * sweepPage { // due before it
		told = append(told, f.in(t, Ready, owned(jpeg()), false))
	}
	sweeper, l := f.sweeper()
	var calls atomic.Int64
	sweeper.Notify = notifier(func(*Session) error {
		calls.Add(1)
		f.set(f.time().Add(20 * time.Second))
		return errors.New("no answer in time")
	})
	f.set(over.over())
	if _, err := sweeper.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := calls.Load(); n == 0 || n > sweepWorkers {
		t.Errorf("%d notices were tried, each as long as it hangs", n)
	}
	if got := f.stored(t, over.ID); got.Status != Expired {
		t.Errorf("%+v", got)
	}
	sweeper.Notify = l
	for range 40 {
		f.swept(t, f.time().Add(30*time.Second), sweeper, l)
	}
	for _, s := range told {
		if got := f.stored(t, s.ID); got.Notice != NoticeSent || got.Attempts > 2 {
			t.Fatalf("%+v", got)
		}
	}
}

// A bucket that is slow takes no time from notices.
func TestNoticesAreToldBesideASlowBucket(t *testing.T) {
	f := newEmpty(t)
	f.Uploads.Notices = true
	var told []*Session
	for range 20 {
		f.begin(t, owned(jpeg()))
	}
	f.set(f.begin(t, owned(jpeg())).over())
	for range 20 {
		told = append(told, f.in(t, Ready, owned(jpeg()), false))
	}
	f.bucket.hook = func(op string) {
		if op == "Head" {
			f.set(f.time().Add(20 * time.Second))
		}
	}
	sweeper, l := f.sweeper()
	if _, err := sweeper.Sweep(t.Context()); err != nil || len(l.told) == 0 {
		t.Errorf("told %d of %d, %v", len(l.told), len(told), err)
	}
}

// The gateway that made the last attempt was killed: there is no other.
func TestNoticeIsNotTriedForEver(t *testing.T) {
	f := newEmpty(t)
	s, sweeper, l := f.ready(t)
	s.Attempts = maxNotices
	f.store.sessions[s.ID] = *s
	if got := f.swept(t, start, sweeper, l); got != "notice_given_up" || len(l.told) != 0 {
		t.Errorf("did %s, told %v", got, l.told)
	}
}

// A webhook that was taken out of the configuration leaves nothing behind.
func TestNoticeWithoutANotifier(t *testing.T) {
	f := newEmpty(t)
	s, sweeper, l := f.ready(t)
	sweeper.Notify = nil
	if got := f.swept(t, start.Add(noticeLeft), sweeper, l); got != "notice_given_up" {
		t.Errorf("did %s", got)
	}
	if s = f.stored(t, s.ID); s.Notice != NoticeGivenUp || !s.Wake.IsZero() {
		t.Errorf("%+v", s)
	}
}

// A gateway that does not have the webhook yet takes no notice from one that has.
func TestNoticeIsLeftToAGatewayThatTells(t *testing.T) {
	f := newEmpty(t)
	s, sweeper, l := f.ready(t)
	without, nothing := f.sweeper()
	without.Notify = nil
	sweeper.Notify = notifier(func(*Session) error { return errors.New("500") })
	f.swept(t, start, sweeper, l)
	if got := f.swept(t, start.Add(time.Minute), without, nothing); got != "" {
		t.Errorf("the one without did %s", got)
	}
	sweeper.Notify = l
	if got := f.swept(t, start.Add(time.Minute), sweeper, l); got != "notified" {
		t.Errorf("the one with did %s: %+v", got, f.stored(t, s.ID))
	}
}
