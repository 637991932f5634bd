package upload

import (
	"testing"
	"time"
)

// A confirmation, or a sweep that comes a little late, takes no grace away: what
// began before the URL's end can land until then, and counts.
func TestNobodyTakesTheGraceAway(t *testing.T) {
	for name, look := range map[string]func(t *testing.T, f *fixture, s *Session){
		"a sweep": func(t *testing.T, f *fixture, s *Session) { sweepAll(t, f) },
		"its owner": func(t *testing.T, f *fixture, s *Session) {
			if _, err := f.Confirm(t.Context(), s); err != ErrExpired {
				t.Error(err)
			}
			sweepAll(t, f)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, r := newEmpty(t), owned(jpeg())
			r.AutoConfirm, r.Quota = true, &Quota{Objects: 1, Window: 24 * time.Hour}
			r.ConfirmWithin = 0
			s := f.begin(t, r)
			f.set(s.ConfirmBy.Add(6 * time.Second)) // after the first look is due
			look(t, f, s)
			if got := f.stored(t, s.ID); !got.Held {
				t.Errorf("given back while it can land: %+v", got)
			}
			f.set(s.ConfirmBy.Add(time.Minute))
			f.bucket.put(s.Key, Object{Size: r.Size, ContentType: r.ContentType}, false)
			f.set(s.over())
			sweepAll(t, f)
			if got := f.stored(t, s.ID); !got.Held || got.Status != Expired || got.Reason != lateKept || !got.Wake.IsZero() {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A completion that began just in time is not taken for one that never came,
// however short the URL's life was: a store that makes the object can for a while
// know neither of the upload nor of the object.
func TestSweepWaitsForACompletion(t *testing.T) {
	f, r := newEmpty(t), video()
	r.Expires, r.ConfirmWithin, r.Quota = time.Second, time.Hour, &Quota{Objects: 1, Window: 24 * time.Hour}
	s := f.in(t, Uploading, r, true)
	for i, size := range videoParts {
		f.bucket.part(s.UploadID, i+1, size)
	}
	f.set(s.ConfirmBy.Add(-time.Second))
	sweeper, l := f.sweeper()
	f.bucket.hook = func(op string) {
		if op != "CompleteMultipart" {
			return
		}
		f.bucket.hook = nil
		f.bucket.mu.Lock()
		under := f.bucket.open[s.UploadID]
		delete(f.bucket.open, s.UploadID)
		f.bucket.mu.Unlock()
		f.swept(t, s.ConfirmBy.Add(50*time.Second), sweeper, l)
		f.bucket.mu.Lock()
		f.bucket.open[s.UploadID] = under
		f.bucket.mu.Unlock()
	}
	_, err := f.Complete(t.Context(), s, nil)
	f.set(s.over().Add(10 * time.Minute))
	sweepAll(t, f)
	if got := f.stored(t, s.ID); len(f.bucket.objects[s.Key]) != 1 || !got.Held || got.Status != Ready {
		t.Errorf("%v: %d objects, %+v", err, len(f.bucket.objects[s.Key]), got)
	}
}
