package upload

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// Who answers that they want no more notices is left alone.
func TestNoticeToNobodyIsGivenUp(t *testing.T) {
	f := newEmpty(t)
	s, sweeper, _ := f.ready(t)
	attempts := 0
	sweeper.Notify = notifier(func(*Session) error {
		attempts++
		return fmt.Errorf("410: %w", ErrGone)
	})
	for range 2 {
		if _, err := sweeper.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if s = f.stored(t, s.ID); attempts != 1 || s.Notice != NoticeGivenUp || !s.Wake.IsZero() {
		t.Errorf("%d attempts, %+v", attempts, s)
	}
}

// halfRead is an index of which one session cannot be read.
type halfRead struct{ Index }

func (h halfRead) Due(ctx context.Context, now time.Time, limit int) ([]*Session, error) {
	due, err := h.Index.Due(ctx, now, limit)
	return due, errors.Join(err, errors.New("one cannot be read"))
}

func TestSweepGoesOnBesideADamagedSession(t *testing.T) {
	f := newEmpty(t)
	s, sweeper, _ := f.ready(t)
	sweeper.Notify = notifier(func(*Session) error { return nil })
	sweeper.Uploads.Index = halfRead{sweeper.Uploads.Index}
	if n, err := sweeper.Sweep(t.Context()); n == 0 || !errors.Is(err, ErrUnavailable) {
		t.Errorf("%d, %v", n, err)
	}
	if s = f.stored(t, s.ID); s.Notice != NoticeSent {
		t.Errorf("%+v", s)
	}
}
