package upload

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// Several gateways do everything to one upload at once: one move ends it, all
// that ask later hear the same, and object, quota and state agree.
func TestEverythingAtOnce(t *testing.T) {
	for _, sole := range []bool{true, false} {
		for _, many := range []bool{false, true} {
			for round := range 60 {
				f, r := newEmpty(t), owned(jpeg())
				if many {
					r = video()
				}
				if !sole {
					r.Key = "shared/one"
				}
				r.Quota = &Quota{Objects: 1, Window: time.Hour}
				s := f.in(t, map[bool]Status{false: Issued, true: Uploading}[many], r, many)
				if many {
					for i, size := range videoParts {
						f.bucket.part(s.UploadID, i+1, size)
					}
				} else if round%2 == 0 {
					f.bucket.put(r.Key, Object{Size: 5, ContentType: "image/jpeg"}, false)
				}
				if round%3 == 0 {
					f.set(s.over().Add(time.Second)) // the sweepers may, too
				}
				allAtOnce(t, f, s)
				f.set(start.Add(4 * time.Hour))
				sweepAll(t, f)
				agree(t, f, s.ID)
			}
		}
	}
}

func allAtOnce(t *testing.T, f *fixture, s *Session) {
	var wg sync.WaitGroup
	for i := range 8 {
		u, mine := f.gateway(), *s
		wg.Go(func() {
			var err error
			switch i % 4 {
			case 0:
				_, err = u.Confirm(t.Context(), &mine)
			case 1:
				_, err = u.Complete(t.Context(), &mine, nil)
			case 2:
				_, err = u.Abort(t.Context(), &mine)
			case 3:
				sweeper, _ := f.sweeper()
				_, err = sweeper.Sweep(t.Context())
			}
			if err != nil && !isMismatch(err) && !errorsIsAny(err, ErrState, ErrNotUploaded, ErrExpired, ErrNoUpload, ErrTaken, ErrParts) &&
				!(s.Multipart && errors.Is(err, ErrUnavailable)) { // while one completes, others cannot tell
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func agree(t *testing.T, f *fixture, id string) {
	t.Helper()
	s := f.stored(t, id)
	if moves := f.store.moves[id]; !lawful(moves) || s.Status.Open() {
		t.Fatalf("moved %s", moves)
	}
	there := len(f.bucket.objects[s.Key]) > 0
	if s.Status == Ready && !there || s.sole() && there != s.Held {
		t.Errorf("%s (%s), object there: %t, held: %t\n%q", s.Status, s.Reason, there, s.Held, f.faults.calls)
	}
	if got := f.store.used[s.account()].objects; got != map[bool]int64{true: 1}[s.Held] {
		t.Errorf("counted %d, held %t", got, s.Held)
	}
	if len(f.bucket.open) != 0 {
		t.Errorf("%s: still open %v", s.Status, f.bucket.open)
	}
}

// Another gateway completes between the look and the end of an abort.
func TestAbortFindsItCompleted(t *testing.T) {
	f := newEmpty(t)
	s := f.in(t, Uploading, video(), true)
	for i, size := range videoParts {
		f.bucket.part(s.UploadID, i+1, size)
	}
	var once sync.Once
	f.bucket.hook = func(op string) {
		if op == "AbortMultipart" {
			once.Do(func() {
				if err := f.bucket.complete(Put{Key: s.Key}, s.UploadID, f.bucket.open[s.UploadID].list()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if got, err := f.Abort(t.Context(), s); err != ErrState || got.Status != Ready {
		t.Errorf("%+v, %v", got, err)
	}
}

// Of two completions the second is told that an object is there: its own.
func TestCompleteIsNotTakenByItself(t *testing.T) {
	f := newEmpty(t)
	s := f.in(t, Uploading, video(), true)
	for i, size := range videoParts {
		f.bucket.part(s.UploadID, i+1, size)
	}
	var once sync.Once
	f.bucket.hook = func(op string) {
		if op == "CompleteMultipart" {
			once.Do(func() {
				if err := f.bucket.complete(Put{Key: s.Key}, s.UploadID, f.bucket.open[s.UploadID].list()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	got, err := f.Complete(t.Context(), s, nil)
	if err != nil || got.Status != Ready {
		t.Errorf("%+v, %v", got, err)
	}
}

// The store ends the upload between its list of parts and the completion: by
// another completion, or by an abort.
func TestCompleteFindsItGone(t *testing.T) {
	for _, completed := range []bool{true, false} {
		f, r := newEmpty(t), video()
		r.Overwrite = true
		s := f.in(t, Uploading, r, true)
		part := f.bucket.part(s.UploadID, 1, 12<<20)
		var once sync.Once
		f.bucket.hook = func(op string) {
			if op == "CompleteMultipart" {
				once.Do(func() {
					if completed {
						if err := f.bucket.complete(Put{Key: s.Key, Overwrite: true}, s.UploadID, []Part{part}); err != nil {
							t.Error(err)
						}
						return
					}
					f.bucket.mu.Lock()
					defer f.bucket.mu.Unlock()
					delete(f.bucket.open, s.UploadID)
				})
			}
		}
		got, err := f.Complete(t.Context(), s, nil)
		if !completed { // it cannot be told from a completion that is under way, until that would be over
			if !errors.Is(err, ErrUnavailable) || got.Status != Uploading {
				t.Errorf("%+v, %v", got, err)
			}
			f.set(start.Add(completingFor))
			got, err = f.Complete(t.Context(), got, nil)
		}
		if completed && (err != nil || got.Status != Ready) || !completed && (err != ErrNoUpload || got.Status != Failed) {
			t.Errorf("completed %t: %+v, %v", completed, got, err)
		}
	}
}

// A store that makes an object can for a moment know neither of the upload nor
// of the object, as versitygw does. Who asks then is told to ask again: a
// session that was failed or aborted by it would have an object.
func TestCompletionUnderWayEndsNothing(t *testing.T) {
	f := newEmpty(t)
	s := f.in(t, Uploading, video(), true)
	for i, size := range videoParts {
		f.bucket.part(s.UploadID, i+1, size)
	}
	var once sync.Once
	f.bucket.hook = func(op string) {
		if op != "CompleteMultipart" {
			return
		}
		once.Do(func() {
			f.bucket.mu.Lock()
			under := f.bucket.open[s.UploadID]
			delete(f.bucket.open, s.UploadID)
			f.bucket.mu.Unlock()
			other := f.gateway()
			for what, call := range map[string]func(*Session) (*Session, error){
				"complete": func(s *Session) (*Session, error) { return other.Complete(t.Context(), s, nil) },
				"abort":    func(s *Session) (*Session, error) { return other.Abort(t.Context(), s) },
			} {
				// One who read the session before, and one who did after.
				for _, mine := range []Session{*s, *f.stored(t, s.ID)} {
					if got, err := call(&mine); !errors.Is(err, ErrUnavailable) || got.Status != Uploading {
						t.Errorf("%s: %+v, %v", what, got, err)
					}
				}
			}
			// Or it has moved some of the parts away already.
			f.bucket.mu.Lock()
			f.bucket.open[s.UploadID] = &openUpload{put: under.put, parts: map[int]Part{1: under.parts[1]}}
			f.bucket.mu.Unlock()
			for _, parts := range [][]Part{nil, under.list()} {
				mine := *s
				if got, err := other.Complete(t.Context(), &mine, parts); !errors.Is(err, ErrUnavailable) || got.Status != Uploading {
					t.Errorf("complete: %+v, %v", got, err)
				}
			}
			f.bucket.mu.Lock()
			f.bucket.open[s.UploadID] = under
			f.bucket.mu.Unlock()
		})
	}
	if got, err := f.Complete(t.Context(), s, nil); err != nil || got.Status != Ready {
		t.Errorf("%+v, %v", got, err)
	}
}

// One opened while the session was aborted: it is ended, and nobody's.
func TestBeginMultipartOfAnAbortedSession(t *testing.T) {
	f, r := newEmpty(t), video()
	var once sync.Once
	f.bucket.hook = func(op string) {
		if op == "CreateMultipart" {
			once.Do(func() {
				s := f.stored(t, r.ID)
				if _, err := f.Abort(t.Context(), s); err != nil {
					t.Error(err)
				}
			})
		}
	}
	if got, err := f.BeginMultipart(t.Context(), r); !errors.Is(err, ErrState) || got != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if len(f.bucket.open) != 0 {
		t.Errorf("open: %v", f.bucket.open)
	}
}

// An abort that finds the session's upload opened meanwhile ends that one.
func TestAbortWhileItIsOpened(t *testing.T) {
	f := newEmpty(t)
	s := f.in(t, Issued, video(), true)
	f.store.meanwhile = func() {
		if _, err := f.Adopt(t.Context(), s, f.bucket.create(Put{Key: s.Key})); err != nil {
			t.Error(err)
		}
	}
	got, err := f.Abort(t.Context(), s)
	if err != nil || got.Status != Aborted || len(f.bucket.open) != 0 {
		t.Errorf("%+v, %v, open %v", got, err, f.bucket.open)
	}
}

// The quota is exact however many begin and give up at once.
func TestQuotaAtOnce(t *testing.T) {
	f := newEmpty(t)
	gateways := []*Uploads{f.gateway(), f.gateway()}
	var mu sync.Mutex
	var begun []*Session
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			r := video()
			r.Size, r.Quota = 3<<20, &Quota{Bytes: 30 << 20, Objects: 12, Window: time.Hour}
			s, err := gateways[i%2].BeginMultipart(t.Context(), r)
			var full *QuotaError
			if errors.As(err, &full) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			if i%4 == 0 { // gives its own back
				if _, err := gateways[(i+1)%2].Abort(t.Context(), s); err != nil {
					t.Error(err)
				}
				return
			}
			mu.Lock()
			defer mu.Unlock()
			begun = append(begun, s)
		})
	}
	wg.Wait()
	if n := int64(len(begun)); n == 0 || n > 10 || f.store.used[begun[0].account()] != (usage{n, n * 3 << 20}) {
		t.Errorf("%d begun, counted %+v", n, f.store.used)
	}
	for _, s := range begun { // given up by many at once: given back once
		for range 2 {
			wg.Go(func() {
				if _, err := f.Abort(context.Background(), s); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for account, used := range f.store.used {
		if used != (usage{}) {
			t.Errorf("%+v: counted %+v", account, used)
		}
	}
	if len(f.bucket.open) != 0 {
		t.Errorf("open: %v", f.bucket.open)
	}
}

// Several sweepers at once move each session once, and tell of it once.
func TestSweepersAtOnce(t *testing.T) {
	f := newEmpty(t)
	u := f.gateway()
	u.Notices = true
	const n = 150
	for i := range n {
		r := owned(jpeg())
		r.DeleteLate = i%3 == 0
		s, _, err := u.Begin(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if i%3 < 2 {
			f.bucket.put(r.Key, Object{Size: 5, ContentType: "image/jpeg"}, false)
		}
		if i%3 == 1 {
			if _, err := u.Confirm(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.set(start.Add(4 * time.Hour))
	var wg sync.WaitGroup
	var listeners []*listener
	for range 3 {
		s, l := f.sweeper()
		listeners = append(listeners, l)
		wg.Go(func() {
			if _, err := s.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := map[string]int{}
	var told []string
	for _, l := range listeners {
		for _, what := range []string{"expired", "late_deleted", "notified", "failed"} {
			got[what] += l.count(what)
		}
		told = append(told, l.told...)
	}
	slices.Sort(told)
	if len(told) != n/3 || len(slices.Compact(told)) != n/3 {
		t.Errorf("told %d", len(told))
	}
	if got["late_deleted"] != n/3 || got["notified"] != n/3 || got["expired"] != n/3 || got["failed"] != 0 {
		t.Errorf("got %v", got)
	}
	if left := f.store.moves; len(left) != n {
		t.Errorf("%d moved", len(left))
	}
}
