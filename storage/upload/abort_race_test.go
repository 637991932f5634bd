package upload

import (
	"testing"
	"time"
)

// A completion that is under way while its owner aborts: the store ends the
// upload and makes the object all the same. It counts as long as it is there.
func TestAbortGivesNothingBackThatMayStillLand(t *testing.T) {
	for name, completed := range map[string]bool{"lands": true, "does not": false} {
		for _, own := range []bool{true, false} { // the client's own completion, or the gateway's
			f := newEmpty(t)
			quota := &Quota{Objects: 1, Window: 24 * time.Hour}
			var s *Session
			if own {
				s = f.direct(t, func(r *Request) { r.Quota = quota })
			} else {
				r := video()
				r.Quota = quota
				s = f.in(t, Uploading, r, true)
			}
			f.bucket.part(s.UploadID, 1, 10<<20)
			f.bucket.part(s.UploadID, 2, 2<<20)
			f.bucket.mu.Lock()
			under := f.bucket.open[s.UploadID]
			f.bucket.mu.Unlock()
			abort := func() {
				if _, err := f.gateway().Abort(t.Context(), f.stored(t, s.ID)); err != nil {
					t.Error(err)
				}
				f.bucket.mu.Lock()
				defer f.bucket.mu.Unlock()
				if completed { // the parts were taken before
					f.bucket.place(s.Key, Object{Size: 10 << 20, ContentType: under.put.ContentType}, false)
				}
			}
			if own {
				abort()
			} else {
				f.bucket.hook = func(op string) {
					if op == "CompleteMultipart" {
						f.bucket.hook = nil
						abort()
					}
				}
				f.Complete(t.Context(), s, nil)
			}
			sweeper, l := f.sweeper()
			f.swept(t, start.Add(2*time.Hour), sweeper, l)
			now := f.stored(t, s.ID)
			if now.Status != Aborted || now.Held != completed || !now.Wake.IsZero() {
				t.Errorf("%s (own: %t): %d objects, %+v", name, own, len(f.bucket.objects[s.Key]), now)
			}
		}
	}
}
