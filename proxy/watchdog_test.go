package proxy

import (
	"context"
	"testing"
	"time"
)

// TestWatchdog: it ends what waits for the upstream, and nothing else; the
// upstream's time begins with each wait.
func TestWatchdog(t *testing.T) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	w := newWatchdog(time.Hour, cancel)
	defer w.stop()
	if err := w.overdue(); err != nil {
		t.Error("too early:", err)
	}
	long := func() { w.begun = w.begun.Add(-2 * time.Hour) } // time passes
	w.receiving(true)
	long()
	if err := w.overdue(); err != nil {
		t.Error("while the caller is waited for:", err)
	}
	w.receiving(false)
	if err := w.overdue(); err != nil {
		t.Error("the time did not begin anew:", err)
	}
	long()
	if err := w.overdue(); err != errUpstreamSilent {
		t.Error("silent:", err)
	}
	w.answering(time.Minute)
	long()
	w.receiving(false) // the transport still reads the body
	if err := w.overdue(); err != nil {
		t.Error("while the caller is written to:", err)
	}
	w.asking()
	if err := w.overdue(); err != nil {
		t.Error("the time did not begin anew:", err)
	}
	long()
	if w.bark(); context.Cause(ctx) != errUpstreamStalled {
		t.Error("stalled:", context.Cause(ctx))
	}
	w.stop()
	if err := w.overdue(); err != nil {
		t.Error("stopped:", err)
	}
}
