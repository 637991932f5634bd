package upload

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestAttackLargerPartsAfterTheCallToComplete: a client that completes its upload
// itself sends larger parts after it was let, and completes with those. Nobody
// confirms it; the object does not stay, which is on record before.
func TestAttackLargerPartsAfterTheCallToComplete(t *testing.T) {
	for name, c := range map[string]struct {
		sole     bool
		recorder error
		want     string
		objects  int
	}{
		"its own key":   {true, nil, "misfit_deleted notified tidied", 0},
		"a shared key":  {false, nil, "notified tidied", 1},
		"not on record": {true, errors.New("full"), "notified failed", 1},
	} {
		t.Run(name, func(t *testing.T) {
			f := newEmpty(t)
			r := video()
			r.AutoConfirm, r.Size, r.MaxBytes = true, -1, 10<<20
			r.Key = "users/u1/a.mp4"
			if c.sole {
				r.Key = "users/u1/" + UUIDOf(r.ID) + ".mp4"
			}
			s, _, err := f.SignCreate(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			id := f.bucket.create(Put{Key: r.Key, ContentType: r.ContentType})
			if s, err = f.Adopt(t.Context(), s, id); err != nil {
				t.Fatal(err)
			}
			f.bucket.part(id, 1, 6<<20)
			if _, err := f.SignCall(t.Context(), s, CompleteUpload, time.Minute); err != nil {
				t.Fatal(err)
			}
			larger := f.bucket.part(id, 1, 60<<20)
			if err := f.bucket.complete(Put{Key: r.Key}, id, []Part{larger}); err != nil {
				t.Fatal(err)
			}
			sweeper, l := f.sweeper()
			if c.recorder != nil {
				sweeper.Record = func(context.Context, *Session, string) error { return c.recorder }
			}
			if got := f.swept(t, s.ExpiresAt.Add(time.Minute), sweeper, l); got != "rejected "+c.want {
				t.Errorf("at its end: %s", got)
			}
			if n := len(f.bucket.objects[r.Key]); n != c.objects {
				t.Errorf("%d objects stay", n)
			}
			f.swept(t, s.over(), sweeper, l)
			if now := f.stored(t, s.ID); now.Status != Rejected || now.Wake.IsZero() != (c.recorder == nil) {
				t.Errorf("%+v", now)
			}
		})
	}
}

// Nor does it stay for as long as nobody can be told of it.
func TestMisfitGoesBeforeItsNotice(t *testing.T) {
	f := newEmpty(t)
	s := f.direct(t, nil)
	if err := f.bucket.complete(Put{Key: s.Key}, s.UploadID, []Part{f.bucket.part(s.UploadID, 1, 60<<20)}); err != nil {
		t.Fatal(err)
	}
	sweeper, l := f.sweeper()
	sweeper.Notify = away{}
	if got := f.swept(t, s.ExpiresAt.Add(time.Minute), sweeper, l); got != "rejected misfit_deleted notice_failed" {
		t.Errorf("did %s", got)
	}
	if got := f.stored(t, s.ID); len(f.bucket.objects[s.Key]) != 0 || got.Notice != NoticeDue || len(l.recorded) != 1 {
		t.Errorf("%d objects, recorded %q, %+v", len(f.bucket.objects[s.Key]), l.recorded, got)
	}
}

// away is a receiver that cannot be told.
type away struct{}

func (away) Notify(context.Context, *Session) error { return errors.New("away") }
