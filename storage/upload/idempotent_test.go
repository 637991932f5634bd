package upload

import (
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestSameIdempotencyKeySameAnswer(t *testing.T) {
	f := newEmpty(t)
	r := idempotent(jpeg(), "k1")
	r.Metadata = map[string]string{"a": "1", "b": "2"}
	r.Quota = &Quota{Bytes: 5, Objects: 1, Window: time.Hour}
	s, first, err := f.Begin(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	f.set(start.Add(3 * time.Minute))
	r.Record = "r2" // the retry is on record by itself
	again, second, err := f.Begin(t.Context(), r)
	if err != nil || *again != *s || !reflect.DeepEqual(first, second) {
		t.Errorf("again\n%+v\n%+v\n%v, first\n%+v\n%+v", again, second, err, s, first)
	}
	if got := f.store.used[s.account()]; got != (usage{1, 5}) {
		t.Errorf("counted %+v", got)
	}
	f.bucket.put(r.Key, Object{Size: 5, ContentType: "image/jpeg"}, false)
	if _, err := f.Confirm(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	ready, third, err := f.Begin(t.Context(), r)
	if err != nil || ready.Status != Ready || !reflect.DeepEqual(first, third) {
		t.Errorf("once it is ready: %+v, %v", ready, err)
	}
	f.set(s.ExpiresAt)
	if _, signed, err := f.Begin(t.Context(), r); err != ErrExpired || signed.URL != "" {
		t.Errorf("once the URL is over: %v", err)
	}
}

// Everything that decides what is signed makes another request of it.
func TestOtherRequestUnderTheSameIdempotencyKey(t *testing.T) {
	base := idempotent(jpeg(), "k1")
	for name, edit := range map[string]func(*Request){
		"type":       func(r *Request) { r.ContentType = "image/png" },
		"size":       func(r *Request) { r.Size = 6 },
		"unbound":    func(r *Request) { r.Size = -1 },
		"checksum":   func(r *Request) { r.Checksum = emptySum },
		"crc":        func(r *Request) { r.Checksum64 = emptySum64 },
		"key":        func(r *Request) { r.Key += "x" },
		"expires":    func(r *Request) { r.Expires += time.Second },
		"within":     func(r *Request) { r.ConfirmWithin++ },
		"overwrite":  func(r *Request) { r.Overwrite = true },
		"form":       func(r *Request) { r.Form = true },
		"max":        func(r *Request) { r.MaxBytes = 6 },
		"metadata":   func(r *Request) { r.Metadata = map[string]string{"a": "b"} },
		"identity":   func(r *Request) { r.Identity = "other" },
		"other kind": nil,
	} {
		f := newEmpty(t)
		f.begin(t, base)
		r, err := base, error(nil)
		if edit == nil {
			_, err = f.BeginMultipart(t.Context(), r)
		} else {
			edit(&r)
			_, _, err = f.Begin(t.Context(), r)
		}
		if err != ErrOtherRequest {
			t.Errorf("%s: %v", name, err)
		}
		if len(f.bucket.puts) != 1 || len(f.bucket.open) != 0 {
			t.Errorf("%s: signed", name)
		}
	}
}

func TestIdempotencyAfterTheEnd(t *testing.T) {
	for _, c := range []struct {
		state Status
		many  bool
		want  error
	}{
		{Ready, false, nil}, {Rejected, false, ErrState}, {Aborted, false, ErrState}, {Expired, false, ErrExpired},
		{Uploading, true, nil}, {Ready, true, nil}, {Rejected, true, ErrState}, {Failed, true, ErrState},
		{Aborted, true, ErrState}, {Expired, true, ErrExpired},
	} {
		f, r := newEmpty(t), idempotent(jpeg(), "k")
		if c.many {
			r = idempotent(video(), "k")
		}
		s := f.in(t, c.state, r, c.many)
		made := f.bucket.made
		var again *Session
		var err error
		if c.many {
			again, err = f.BeginMultipart(t.Context(), r)
		} else {
			again, _, err = f.Begin(t.Context(), r)
		}
		if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) || err == nil && *again != *s {
			t.Errorf("%s (multipart %t): %v, %v", c.state, c.many, again, err)
		}
		if f.bucket.made != made {
			t.Errorf("%s (multipart %t): opened another upload", c.state, c.many)
		}
	}
}

// A multipart upload goes on until it is to be confirmed, whatever became of
// the first answer.
func TestIdempotencyOfAMultipartUntilItsEnd(t *testing.T) {
	f, r := newEmpty(t), idempotent(video(), "k")
	s := f.in(t, Uploading, r, true)
	f.set(s.ExpiresAt.Add(time.Minute))
	if again, err := f.BeginMultipart(t.Context(), r); err != nil || *again != *s {
		t.Errorf("after the first URLs' end: %+v, %v", again, err)
	}
	if _, _, err := f.SignCreate(t.Context(), r); err != ErrOtherRequest {
		t.Errorf("by the client itself: %v", err)
	}
	f.set(s.ConfirmBy)
	if again, err := f.BeginMultipart(t.Context(), r); err != ErrExpired || again != nil {
		t.Errorf("at its end: %+v, %v", again, err)
	}
	f = newEmpty(t)
	r = idempotent(video(), "direct")
	created, signed, err := f.SignCreate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	adopted, err := f.Adopt(t.Context(), created, f.bucket.create(Put{Key: r.Key}))
	if err != nil {
		t.Fatal(err)
	}
	if again, url, err := f.SignCreate(t.Context(), r); err != nil || *again != *adopted || url.URL != signed.URL {
		t.Errorf("again: %+v, %v, %v", again, url, err)
	}
	f.set(created.ExpiresAt)
	if _, url, err := f.SignCreate(t.Context(), r); err != ErrExpired || url.URL != "" {
		t.Errorf("once the URL is over: %v", err)
	}
}

// An id that is taken without an Idempotency-Key is a fault: what is there is
// somebody's, and no answer.
func TestATakenIDIsAFault(t *testing.T) {
	f, r := newEmpty(t), owned(jpeg())
	f.begin(t, r)
	if s, signed, err := f.Begin(t.Context(), r); !errors.Is(err, ErrUnavailable) || s != nil || signed.URL != "" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestRequestChecksItsIdempotencyKey(t *testing.T) {
	for _, c := range []struct{ key, field string }{
		{"a b", "idempotency_key"}, {"a\n", "idempotency_key"}, {"é", "idempotency_key"}, {strings.Repeat("k", 259), "idempotency_key"},
	} {
		f := newEmpty(t)
		_, _, err := f.Begin(t.Context(), idempotent(jpeg(), c.key))
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.Field != c.field {
			t.Errorf("%q: %v", c.key, err)
		}
	}
	f, r := newEmpty(t), idempotent(jpeg(), "k")
	r.ID = NewID()
	var invalid *InvalidError
	if _, _, err := f.Begin(t.Context(), r); !errors.As(err, &invalid) || invalid.Field != "session" {
		t.Errorf("an id of another Idempotency-Key: %v", err)
	}
	r = idempotent(jpeg(), strings.Repeat("k", 255)+"/99")
	f.begin(t, r)
}

// Many with one Idempotency-Key at once, at two gateways: one session, one
// count, one multipart upload, and the same answer for all.
func TestIdempotencyAtOnce(t *testing.T) {
	f := newEmpty(t)
	r := idempotent(video(), "k")
	r.Quota = &Quota{Objects: 1, Window: time.Hour}
	gateways := []*Uploads{f.gateway(), f.gateway()}
	got := make([]*Session, 16)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = gateways[i%2].BeginMultipart(t.Context(), r); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range got {
		if s == nil || *s != *got[0] {
			t.Fatalf("%+v and %+v", s, got[0])
		}
	}
	if len(f.bucket.open) != 1 || f.bucket.open[got[0].UploadID] == nil {
		t.Errorf("open: %v, the session's is %s", f.bucket.open, got[0].UploadID)
	}
	if used := f.store.used[got[0].account()]; used.objects != 1 {
		t.Errorf("counted %+v", used)
	}
}

// A stored session of somebody else under the id is a fault, and nobody's answer.
func TestIdempotencyNeverAnswersWithAnothers(t *testing.T) {
	for name, edit := range map[string]func(*Session){
		"uid":       func(s *Session) { s.UID = "u2" },
		"namespace": func(s *Session) { s.Namespace = "agents" },
		"route":     func(s *Session) { s.Route = "other" },
	} {
		f, r := newEmpty(t), idempotent(jpeg(), "k")
		s := f.begin(t, r)
		edit(s)
		f.store.sessions[s.ID] = *s
		if got, signed, err := f.Begin(t.Context(), r); !errors.Is(err, ErrUnavailable) || got != nil || signed.URL != "" {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// No two users, routes and keys share an id, however they are put together.
func FuzzIdempotentID(f *testing.F) {
	f.Add("users", "u1", "r", "k", "users", "u1r", "", "k")
	f.Add("a", "", "b", "c", "", "a", "b", "c")
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g, h, i string) {
		one, uuid := IdempotentID(a, b, c, d)
		other, second := IdempotentID(e, g, h, i)
		same := a == e && b == g && c == h && d == i
		if (one == other) != same || (uuid == second) != same {
			t.Fatalf("%q and %q: %s and %s", []string{a, b, c, d}, []string{e, g, h, i}, one, other)
		}
		if !wellFormed(one) || !wellFormed(uuid) || one == uuid || uuid != UUIDOf(one) {
			t.Fatalf("%s, %s", one, uuid)
		}
	})
}
