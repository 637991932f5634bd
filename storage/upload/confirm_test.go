package upload

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestConfirmReady(t *testing.T) {
	f := newFixture(t)
	s := f.begin(t, jpeg())
	f.set(start.Add(time.Minute))
	f.bucket.object.Modified = start.Add(30 * time.Second)
	got, err := f.Confirm(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != Ready || got.Size != 5 || got.ETag != `"e"` || got.VersionID != "v" || got.ReadyAt.IsZero() {
		t.Errorf("got %+v", got)
	}
	// Again, with the object changed and the time over: the first answer stays.
	f.bucket.object.Size, f.now = 6, start.Add(24*time.Hour)
	stored, err := f.Lookup(t.Context(), "users", "u1", s.ID)
	if err != nil {
		t.Fatal(err)
	}
	again, err := f.Confirm(t.Context(), stored)
	if err != nil || *again != *got || f.store.transitions != 1 {
		t.Errorf("again: %+v, %v after %d transitions", again, err, f.store.transitions)
	}
}

func TestConfirmMismatch(t *testing.T) {
	sumA, sumB := strings.Repeat("A", 43)+"=", strings.Repeat("B", 42)+"A="
	for _, c := range []struct {
		name, field string // empty: ready
		request     func(*Request)
		object      func(*Object)
	}{
		{"size", "size", nil, func(o *Object) { o.Size = 6 }},
		{"size unknown", "", func(r *Request) { r.Size = -1 }, func(o *Object) { o.Size = 6 }},
		{"empty was signed", "size", func(r *Request) { r.Size = 0 }, nil},
		{"type", "contentType", nil, func(o *Object) { o.ContentType = "text/html" }},
		{"no type", "contentType", nil, func(o *Object) { o.ContentType = "" }},
		{"type's case", "", nil, func(o *Object) { o.ContentType = "Image/JPEG" }},
		{"parameters", "", func(r *Request) { r.ContentType = "text/plain; charset=utf-8" },
			func(o *Object) { o.ContentType = `text/plain;Charset="UTF-8"` }},
		{"parameter lost", "contentType", func(r *Request) { r.ContentType = "text/plain; charset=utf-8" },
			func(o *Object) { o.ContentType = "text/plain" }},
		{"checksum", "checksumSha256", func(r *Request) { r.Checksum = sumA }, func(o *Object) { o.Checksum = sumB }},
		{"checksum unknown", "checksumSha256", func(r *Request) { r.Checksum = sumA }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, r := newFixture(t), jpeg()
			if c.request != nil {
				c.request(&r)
			}
			if c.object != nil {
				c.object(f.bucket.object)
			}
			s := f.begin(t, r)
			_, first := f.Confirm(t.Context(), s)
			if c.field == "" {
				if first != nil {
					t.Fatal(first)
				}
				return
			}
			var m *Mismatch
			if !errors.As(first, &m) || m.Field != c.field {
				t.Fatalf("err = %v, want a Mismatch of %s", first, c.field)
			}
			stored, err := f.Lookup(t.Context(), "users", "u1", s.ID)
			if err != nil || stored.Status != Rejected {
				t.Fatalf("stored %+v, %v", stored, err)
			}
			_, again := f.Confirm(t.Context(), stored)
			if again == nil || again.Error() != first.Error() || f.store.transitions != 1 {
				t.Errorf("again: %v, first: %v, %d transitions", again, first, f.store.transitions)
			}
		})
	}
}

func TestConfirmTooEarlyOrTooLate(t *testing.T) {
	f := newFixture(t)
	s := f.begin(t, jpeg())
	f.bucket.headErr = ErrNoObject
	if got, err := f.Confirm(t.Context(), s); err != ErrNotUploaded || got.Status != Issued {
		t.Errorf("nothing there: %+v, %v", got, err)
	}
	f.bucket.headErr = nil
	f.bucket.object.Modified = start.Add(-time.Hour)
	if got, err := f.Confirm(t.Context(), s); err != ErrNotUploaded || got.Status != Issued {
		t.Errorf("an older object: %+v, %v", got, err)
	}
	if f.store.transitions != 0 {
		t.Error("moved")
	}
	f.bucket.object.Modified = time.Time{}
	f.now = s.ConfirmBy.Add(time.Second)
	for range 2 {
		got, err := f.Confirm(t.Context(), s)
		if err != ErrExpired || got.Status != Expired {
			t.Errorf("late: %+v, %v", got, err)
		}
		s = got
	}
	if f.store.sessions[s.ID].Status != Expired || f.store.transitions != 1 {
		t.Errorf("stored %+v", f.store.sessions[s.ID])
	}
}

// F22, F25: what fails leaves the session as it was, or as it should be.
func TestConfirmUnavailable(t *testing.T) {
	broken := errors.New("down")
	for name, c := range map[string]struct {
		set   func(*fixture)
		state Status
	}{
		"object store":             {func(f *fixture) { f.bucket.headErr = broken }, Issued},
		"record failed":            {func(f *fixture) { f.store.failBefore = broken }, Issued},
		"record failed but stored": {func(f *fixture) { f.store.failAfter = broken }, Ready},
		"no such bucket":           {func(f *fixture) { f.Buckets = nil }, Issued},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			s := f.begin(t, jpeg())
			c.set(f)
			if _, err := f.Confirm(t.Context(), s); !errors.Is(err, ErrUnavailable) {
				t.Errorf("err = %v", err)
			}
			if got := f.store.sessions[s.ID].Status; got != c.state {
				t.Errorf("state %s, want %s", got, c.state)
			}
			f.store.failBefore, f.store.failAfter, f.bucket.headErr = nil, nil, nil
			f.Buckets = map[string]Bucket{"default": f.bucket}
			if got, err := f.Confirm(t.Context(), s); err != nil || got.Status != Ready {
				t.Errorf("retry: %+v, %v", got, err)
			}
		})
	}
}

func TestConfirmGone(t *testing.T) {
	f := newFixture(t)
	s := f.begin(t, jpeg())
	delete(f.store.sessions, s.ID)
	if _, err := f.Confirm(t.Context(), s); err != ErrNotFound {
		t.Errorf("err = %v", err)
	}
}

// F24: of many confirmations at once one moves the session, all say the same.
func TestConfirmAtOnce(t *testing.T) {
	f := newFixture(t)
	s := f.begin(t, jpeg())
	results := make([]*Session, 16)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			var err error
			if results[i], err = f.Confirm(t.Context(), s); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, r := range results {
		if r == nil || *r != *results[0] {
			t.Errorf("got %+v and %+v", r, results[0])
		}
	}
	if f.store.transitions != 1 {
		t.Errorf("%d transitions", f.store.transitions)
	}
}

// The other confirmation saw the object before it was replaced: its word holds.
func TestConfirmTakesTheFirstWord(t *testing.T) {
	f := newFixture(t)
	s := f.begin(t, jpeg())
	f.store.meanwhile = func() {
		other := *f.bucket.object
		other.Size = 7
		if err := f.store.Transition(t.Context(), Issued, f.judged(s, other, f.now)); err != nil {
			t.Error(err)
		}
	}
	var m *Mismatch
	if got, err := f.Confirm(t.Context(), s); !errors.As(err, &m) || m.Field != "size" || got.Status != Rejected {
		t.Errorf("got %+v, %v", got, err)
	}
}
