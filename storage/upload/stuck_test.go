package upload

import (
	"context"
	"testing"
	"time"
)

// reads is an index that counts the sessions that it gave.
type reads struct {
	Index
	n int
}

func (r *reads) Due(ctx context.Context, now time.Time, limit int) ([]*Session, error) {
	due, err := r.Index.Due(ctx, now, limit)
	r.n += len(due)
	return due, err
}

// Sessions that a sweep can do nothing for are read a few times each, however
// many there are: stores ask money for each.
func TestSweepReadsWhatIsStuckFewTimes(t *testing.T) {
	f := newEmpty(t)
	u := f.gateway()
	u.Notices = true
	const n = 1500
	for i := range n {
		f.set(start.Add(time.Duration(i) * time.Millisecond))
		r := owned(jpeg())
		s, _, err := u.Begin(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		f.bucket.put(r.Key, Object{Size: 5, ContentType: "image/jpeg"}, false)
		if _, err := u.Confirm(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	r := owned(jpeg()) // and one behind them all
	behind := f.begin(t, r)
	f.set(start.Add(time.Minute))
	f.store.mu.Lock()
	s := f.store.sessions[behind.ID]
	s.Wake = f.now
	s.ExpiresAt, s.ConfirmBy, s.CreatedAt = start.Add(-3*time.Hour), start.Add(-2*time.Hour), start.Add(-4*time.Hour)
	f.store.sessions[behind.ID] = s
	f.store.mu.Unlock()
	sweeper, _ := f.sweeper()
	sweeper.Notify = nil
	index := &reads{Index: f.store}
	sweeper.Uploads.Index = index
	if _, err := sweeper.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if index.n > 5*n {
		t.Errorf("%d sessions were read %d times", n, index.n)
	}
	if got := f.stored(t, behind.ID); got.Status != Expired {
		t.Errorf("%+v", got)
	}
}
