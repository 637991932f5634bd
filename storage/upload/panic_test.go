package upload

import (
	"context"
	"strings"
	"testing"
	"time"
)

// brokenNotifier panics for one session.
type brokenNotifier struct {
	id   string
	next Notifier
}

func (b brokenNotifier) Notify(ctx context.Context, s *Session) error {
	if s.ID == b.id {
		panic("this cannot be")
	}
	return b.next.Notify(ctx, s)
}

// TestPanicOfOneSession: it is a failure of that session, which is tried again;
// the gateway and the other sessions go on.
func TestPanicOfOneSession(t *testing.T) {
	f := newFixture(t)
	broken := f.in(t, Ready, owned(jpeg()), false)
	other := f.in(t, Ready, owned(jpeg()), false)
	sweeper, l := f.sweeper()
	for _, s := range []*Session{broken, other} {
		now := *s
		now.Notice, now.Wake = NoticeDue, f.time()
		if err := f.store.Transition(t.Context(), Ready, &now); err != nil {
			t.Fatal(err)
		}
	}
	sweeper.Notify = brokenNotifier{broken.ID, l}
	got := strings.Fields(f.swept(t, f.time().Add(time.Second), sweeper, l))
	if len(got) != 2 || strings.Join(got, " ") != "failed notified" && strings.Join(got, " ") != "notified failed" {
		t.Errorf("reported %v", got)
	}
	for _, swept := range l.swept {
		if swept.What == SweptFailed && (swept.Session.ID != broken.ID || !strings.Contains(swept.Err.Error(), "this cannot be")) {
			t.Errorf("%+v", swept)
		}
	}
	if s := f.stored(t, broken.ID); s.Notice != NoticeDue || !s.Wake.After(f.time()) {
		t.Errorf("of the broken one: %+v", s)
	}
	if s := f.stored(t, other.ID); s.Notice != NoticeSent {
		t.Errorf("of the other: %+v", s)
	}
}
