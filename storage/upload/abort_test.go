package upload

import (
	"testing"
	"time"
)

// A completion that gets in while its owner aborts: under a key that others
// share nothing tells whose object it is, and what was counted stays counted.
func TestAbortOvertakenByACompletionGivesNothingBack(t *testing.T) {
	for _, key := range []string{"shared/film", ""} {
		f, r := newEmpty(t), video()
		r.Quota = &Quota{Objects: 1, Window: 24 * time.Hour}
		if key != "" {
			r.Key = key
		}
		s := f.in(t, Uploading, r, true)
		part := f.bucket.part(s.UploadID, 1, r.Size)
		f.bucket.hook = func(op string) {
			if op == "AbortMultipart" { // which saw that it is open
				if err := f.bucket.complete(Put{Key: s.Key}, s.UploadID, []Part{part}); err != nil {
					t.Error(err)
				}
			}
		}
		f.Abort(t.Context(), s)
		f.bucket.hook = nil
		if len(f.bucket.objects[s.Key]) != 1 {
			t.Fatal("the completion did not get in")
		}
		if got := f.stored(t, s.ID); !got.Held {
			t.Errorf("%q is there and no longer counts: %+v", s.Key, got)
		}
		sweeper, l := f.sweeper()
		f.swept(t, s.over(), sweeper, l)
		if got := f.stored(t, s.ID); !got.Held || !got.Wake.IsZero() || len(f.bucket.objects[s.Key]) != 1 {
			t.Errorf("%q after a sweep: %+v", s.Key, got)
		}
	}
}

// What was under way when its owner aborted is ended a little later.
func TestAbortLeavesNothingOpen(t *testing.T) {
	f := newEmpty(t)
	for _, status := range []Status{Issued, Uploading} {
		s := f.in(t, status, video(), true)
		s, err := f.Abort(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		orphan := f.bucket.create(Put{Key: s.Key}) // of a gateway that is killed now
		sweeper, l := f.sweeper()
		if got := f.swept(t, s.over(), sweeper, l); f.bucket.open[orphan] != nil || len(l.recorded) != 1 {
			t.Errorf("%s: did %s, open %v, recorded %v", status, got, f.bucket.open, l.recorded)
		}
		if got := f.stored(t, s.ID); got.Status != Aborted || !got.Wake.IsZero() || got.Reason != "" {
			t.Errorf("%s: %+v", status, got)
		}
		f.set(start)
	}
}

// Another's object under a shared key is no late object of one that was aborted.
func TestAbortedLooksAtNoOthersObject(t *testing.T) {
	f, r := newEmpty(t), video()
	r.Key = "shared/film"
	s := f.in(t, Aborted, r, true)
	f.bucket.put(r.Key, Object{Size: 5}, true)
	sweeper, l := f.sweeper()
	f.swept(t, s.over(), sweeper, l)
	if got := f.stored(t, s.ID); got.Reason != "" || !got.Wake.IsZero() {
		t.Errorf("%+v", got)
	}
}
