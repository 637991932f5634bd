package upload

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// direct is an upload that its client opens and completes itself.
func (f *fixture) direct(t *testing.T, change func(*Request)) *Session {
	t.Helper()
	r := video()
	r.AutoConfirm, r.Size, r.MaxBytes = true, -1, 10<<20
	if change != nil {
		change(&r)
	}
	s, _, err := f.SignCreate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = f.Adopt(t.Context(), s, f.bucket.create(Put{Key: r.Key, ContentType: r.ContentType})); err != nil {
		t.Fatal(err)
	}
	return s
}

// Attack: while the gateway rejects what is too large, the client completes it
// with a call that was signed when it was not. The object does not stay.
func TestAttackCompletesWhileItIsRejected(t *testing.T) {
	for _, op := range []string{"ListParts", "AbortMultipart"} {
		f := newEmpty(t)
		s := f.direct(t, nil)
		f.bucket.part(s.UploadID, 1, 6<<20)
		if _, err := f.SignCall(t.Context(), s, CompleteUpload, time.Minute); err != nil {
			t.Fatal(err)
		}
		larger := f.bucket.part(s.UploadID, 1, 60<<20)
		n := 0
		var once sync.Once
		f.bucket.hook = func(now string) {
			if now == op {
				n++
			}
			if now != op || op == "ListParts" && n < 2 { // after the look at the parts
				return
			}
			once.Do(func() {
				if err := f.bucket.complete(Put{Key: s.Key}, s.UploadID, []Part{larger}); err != nil {
					t.Error(err)
				}
			})
		}
		var m *Mismatch
		if _, err := f.SignCall(t.Context(), s, CompleteUpload, time.Minute); !errors.As(err, &m) {
			t.Fatal(err)
		}
		f.bucket.hook = nil
		if op == "AbortMultipart" && n == 0 {
			t.Fatal("not aborted")
		}
		if len(f.bucket.objects[s.Key]) == 0 {
			if err := f.bucket.complete(Put{Key: s.Key}, s.UploadID, []Part{larger}); err == nil {
				t.Fatal("it is open still")
			}
			continue
		}
		sweeper, l := f.sweeper()
		f.swept(t, start.Add(2*time.Minute), sweeper, l)
		if n := len(f.bucket.objects[s.Key]); n != 0 {
			t.Errorf("%s: what is larger than allowed stays: %+v", op, f.stored(t, s.ID))
		}
	}
}

// A completion that gets in between a sweep's look and the end of the upload is
// found by it: what it made counts, and does not stay where it must not. Under
// a key that others share nothing tells whose object it is.
func TestSweepOvertakenByACompletion(t *testing.T) {
	for name, c := range map[string]struct {
		shared, late bool
		size         int64
		want         string
		objects      int
	}{
		"kept":              {size: 6 << 20, want: SweptLateKept, objects: 1},
		"deleted":           {late: true, size: 6 << 20, want: SweptLateDeleted},
		"beyond its bound":  {size: 60 << 20, want: SweptLateDeleted},
		"of who knows whom": {shared: true, size: 60 << 20, want: SweptAborted, objects: 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newEmpty(t)
			s := f.direct(t, func(r *Request) {
				r.Quota, r.DeleteLate = &Quota{Objects: 1, Window: 24 * time.Hour}, c.late
				if c.shared {
					r.Key = "shared/film"
				}
			})
			part := f.bucket.part(s.UploadID, 1, c.size)
			f.bucket.hook = func(op string) {
				if op == "AbortMultipart" {
					if err := f.bucket.complete(Put{Key: s.Key}, s.UploadID, []Part{part}); err != nil {
						t.Error(err)
					}
				}
			}
			sweeper, l := f.sweeper()
			if got := f.swept(t, s.over(), sweeper, l); got != c.want {
				t.Errorf("did %s", got)
			}
			now := f.stored(t, s.ID)
			if n := len(f.bucket.objects[s.Key]); n != c.objects || !c.shared && now.Held != (n > 0) || !now.Wake.IsZero() {
				t.Errorf("%d objects: %+v", n, now)
			}
		})
	}
}

// Attack: while the store makes what a client completes itself, and knows neither
// of the upload nor of the object, the client asks the gateway to complete it.
// The session that failed then would have an object, of any size.
func TestAttackCompletesTwice(t *testing.T) {
	f := newEmpty(t)
	s := f.direct(t, func(r *Request) { r.Quota = &Quota{Objects: 1, Window: 24 * time.Hour} })
	f.bucket.part(s.UploadID, 1, 60<<20)
	f.bucket.mu.Lock()
	under := f.bucket.open[s.UploadID]
	delete(f.bucket.open, s.UploadID)
	f.bucket.mu.Unlock()
	if got, err := f.Complete(t.Context(), s, nil); err != ErrNotUploaded || got.Status != Uploading || !got.Held {
		t.Errorf("%+v, %v", got, err)
	}
	f.bucket.mu.Lock()
	f.bucket.open[s.UploadID] = under
	f.bucket.mu.Unlock()
	if err := f.bucket.complete(Put{Key: s.Key}, s.UploadID, under.list()); err != nil {
		t.Fatal(err)
	}
	var m *Mismatch
	if got, err := f.Complete(t.Context(), s, nil); !errors.As(err, &m) || got.Status != Rejected {
		t.Errorf("%+v, %v", got, err)
	}
}

// Attack: the store takes longer to make what a client completes than the sweep
// waits that looks after the rejected or aborted session: that looks once more,
// when nothing can be completed any longer.
func TestAttackCompletesSlowly(t *testing.T) {
	for _, aborted := range []bool{false, true} {
		f := newEmpty(t)
		s := f.direct(t, nil)
		f.bucket.part(s.UploadID, 1, 60<<20)
		end := f.Complete
		if aborted {
			end = func(ctx context.Context, s *Session, _ []Part) (*Session, error) { return f.Abort(ctx, s) }
		}
		ended, _ := end(t.Context(), s, nil)
		if ended.Status.Open() {
			t.Fatalf("%+v", ended)
		}
		sweeper, l := f.sweeper()
		f.swept(t, start.Add(2*time.Minute), sweeper, l)
		f.bucket.put(s.Key, Object{Size: 60 << 20, ContentType: s.ContentType}, false)
		f.swept(t, s.over(), sweeper, l)
		if got := f.stored(t, s.ID); len(f.bucket.objects[s.Key]) != 0 || !got.Wake.IsZero() {
			t.Errorf("%s: %+v", ended.Status, got)
		}
	}
}
