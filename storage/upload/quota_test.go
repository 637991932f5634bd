package upload

import (
	"errors"
	"math"
	"testing"
	"time"
)

func TestQuotaWindows(t *testing.T) {
	at := func(s string) time.Time {
		d, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	day := 24 * time.Hour
	for _, c := range []struct {
		now    string
		window time.Duration
		begin  string
		next   time.Duration
	}{
		{"2026-03-02T10:20:30.5Z", time.Minute, "2026-03-02T10:20:00Z", 30 * time.Second},
		{"2026-03-02T10:20:00Z", time.Minute, "2026-03-02T10:20:00Z", time.Minute},
		{"2026-03-02T10:20:59.999Z", time.Minute, "2026-03-02T10:20:00Z", time.Second},
		{"2026-03-02T10:20:30+05:00", day, "2026-03-02T00:00:00Z", 18*time.Hour + 39*time.Minute + 30*time.Second},
		{"1970-01-31T23:59:59Z", 31 * day, "1970-01-01T00:00:00Z", time.Second},
		{"1970-02-01T00:00:00Z", 31 * day, "1970-02-01T00:00:00Z", 31 * day},
		{"1969-12-31T23:59:30Z", time.Minute, "1969-12-31T23:59:00Z", 30 * time.Second},
	} {
		q := &Quota{Window: c.window}
		if got := q.begin(at(c.now)); !got.Equal(at(c.begin)) {
			t.Errorf("%s by %v: begins %v, want %s", c.now, c.window, got, c.begin)
		}
		if got := q.next(at(c.now)); got != c.next {
			t.Errorf("%s by %v: next in %v, want %v", c.now, c.window, got, c.next)
		}
	}
}

func FuzzQuotaWindow(f *testing.F) {
	f.Add(int64(0), int64(time.Minute))
	f.Add(int64(-1), int64(31*24*time.Hour))
	f.Fuzz(func(t *testing.T, now, window int64) {
		if window < int64(time.Minute) || window > int64(31*24*time.Hour) || now > math.MaxInt64-window || now < math.MinInt64+window {
			return
		}
		q, at := &Quota{Window: time.Duration(window)}, time.Unix(0, now)
		begin := q.begin(at)
		if begin.UnixNano()%window != 0 || begin.After(at) || at.Sub(begin) >= q.Window {
			t.Fatalf("%d by %d: begins %d", now, window, begin.UnixNano())
		}
		if !q.begin(begin).Equal(begin) {
			t.Fatalf("%d by %d: begins again", now, window)
		}
		if next := q.next(at); next < time.Second || next%time.Second != 0 || at.Add(next).Before(begin.Add(q.Window)) {
			t.Fatalf("%d by %d: next in %v", now, window, next)
		}
	})
}

func TestQuotaIsUsedUpUntilTheNextWindow(t *testing.T) {
	f := newEmpty(t)
	ask := func(size int64, q Quota) error {
		r := owned(jpeg())
		r.Size, r.Quota = size, &q
		_, _, err := f.Begin(t.Context(), r)
		return err
	}
	q := Quota{Bytes: 10, Objects: 3, Window: time.Minute}
	for _, c := range []struct {
		size int64
		what string
	}{{4, ""}, {7, "bytes"}, {6, ""}, {1, "bytes"}, {0, ""}, {0, "objects"}} {
		err := ask(c.size, q)
		var full *QuotaError
		if errors.As(err, &full) != (c.what != "") || full != nil && (full.What != c.what || full.Retry != 60*time.Second) {
			t.Errorf("%d bytes: %v, want %q", c.size, err, c.what)
		}
	}
	other := owned(jpeg())
	other.Quota, other.Route = &q, "films"
	f.begin(t, other) // another route counts by itself
	other = owned(jpeg())
	other.Quota, other.UID = &q, "u2"
	f.begin(t, other) // and another user
	f.set(start.Add(time.Minute))
	if err := ask(10, q); err != nil {
		t.Errorf("in the next window: %v", err)
	}
	if err := ask(-1, q); invalidField(err) != "size" {
		t.Errorf("without a size: %v", err)
	}
	if err := ask(-1, Quota{Objects: 5, Window: time.Minute}); err != nil {
		t.Errorf("without a size, where objects are counted: %v", err)
	}
}

// What a session counted is given back where nothing came of it, and is not
// where an object is there.
func TestQuotaGivenBack(t *testing.T) {
	for _, c := range []struct {
		state Status
		many  bool
		held  bool
	}{
		{Ready, false, true}, {Rejected, false, true}, {Aborted, false, false}, {Expired, false, false},
		{Ready, true, true}, {Rejected, true, true}, {Aborted, true, false}, {Expired, true, false}, {Failed, true, false},
	} {
		f, r := newEmpty(t), owned(jpeg())
		if c.many {
			r = video()
		}
		r.Quota = &Quota{Bytes: 1 << 30, Window: time.Hour}
		s := f.in(t, c.state, r, c.many)
		f.set(start.Add(4 * time.Hour))
		sweepAll(t, f)
		want := usage{}
		if c.held {
			want = usage{1, r.Size}
		}
		if got := f.store.used[s.account()]; got != want || f.stored(t, s.ID).Held != c.held {
			t.Errorf("%s (multipart %t): counted %+v, %+v", c.state, c.many, got, f.stored(t, s.ID))
		}
	}
}
