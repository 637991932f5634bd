package proxy

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestLazyTimeout: it ends as context.WithTimeout does, counted from when somebody
// waits, and earlier with what it is made of.
func TestLazyTimeout(t *testing.T) {
	why := errors.New("the caller left")
	for name, c := range map[string]struct {
		leave time.Duration // 0: the caller stays
		after time.Duration
		err   error
		cause error
	}{
		"time is over":      {0, time.Minute, context.DeadlineExceeded, context.DeadlineExceeded},
		"the caller left":   {time.Second, time.Second, context.Canceled, why},
		"nobody is in time": {time.Hour, time.Minute, context.DeadlineExceeded, context.DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				parent, leave := context.WithCancelCause(context.WithValue(t.Context(), recordTimeout, "kept"))
				defer leave(nil)
				p := &lazyTimeout{Context: parent, most: time.Minute}
				defer p.release()
				time.Sleep(time.Hour) // nobody waits yet
				if p.Err() != nil || p.Value(recordTimeout) != "kept" {
					t.Fatal(p.Err(), p.Value(recordTimeout))
				}
				began := time.Now()
				if c.leave > 0 {
					time.AfterFunc(c.leave, func() { leave(why) })
				}
				<-p.Done()
				if d := time.Since(began); d != c.after || !errors.Is(p.Err(), c.err) || context.Cause(p) != c.cause {
					t.Errorf("after %v: %v, %v", d, p.Err(), context.Cause(p))
				}
				child, end := context.WithCancel(p)
				defer end()
				if child.Err() == nil || context.Cause(child) != c.cause {
					t.Errorf("a child says %v", child.Err())
				}
			})
		})
	}
}

// TestLazyTimeoutOfChildren: a context made of it ends with it.
func TestLazyTimeoutOfChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &lazyTimeout{Context: t.Context(), most: time.Minute}
		defer p.release()
		child, cancel := context.WithTimeout(p, time.Hour)
		defer cancel()
		began := time.Now()
		<-child.Done()
		if d := time.Since(began); d != time.Minute || !errors.Is(child.Err(), context.DeadlineExceeded) {
			t.Errorf("after %v: %v", d, child.Err())
		}
	})
}
