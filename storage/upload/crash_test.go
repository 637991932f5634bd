package upload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// A scene is what a caller and a client do to get one upload to its end. It
// can be done again after it broke off anywhere.
type scene struct {
	name string
	run  func(ctx context.Context, f *fixture, u *Uploads) (*Session, error)
	want Status // in the end
	// held: the quota still counts it. there: an object is under its key.
	held, there bool
}

func isMismatch(err error) bool {
	var m *Mismatch
	return errors.As(err, &m)
}

func sceneRequest(key string) Request {
	r := idempotent(jpeg(), key)
	r.Quota = &Quota{Bytes: 1 << 30, Objects: 10, Window: time.Hour}
	return r
}

func sceneVideo(key string) Request {
	r := video()
	r.Quota = &Quota{Bytes: 1 << 30, Objects: 10, Window: time.Hour}
	return idempotent(r, key)
}

// send is the client's part of a multipart upload: every part by its URL.
func send(ctx context.Context, f *fixture, u *Uploads, s *Session, sizes ...int64) error {
	for i, size := range sizes {
		if _, err := u.SignParts(ctx, s, []PartRequest{{Number: i + 1, Size: size}}, time.Minute); err != nil {
			return err
		}
		f.bucket.part(s.UploadID, i+1, size)
	}
	return nil
}

var scenes = []scene{
	{name: "put", want: Ready, held: true, there: true, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		r := sceneRequest("a")
		s, _, err := u.Begin(ctx, r)
		if err != nil {
			return nil, err
		}
		f.bucket.put(r.Key, Object{Size: 5, ContentType: "image/jpeg"}, false)
		return u.Confirm(ctx, s)
	}},
	{name: "put of something else", want: Rejected, held: true, there: true, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		r := sceneRequest("a")
		s, _, err := u.Begin(ctx, r)
		if errors.Is(err, ErrState) {
			return u.Lookup(ctx, r.Namespace, r.UID, r.ID)
		}
		if err != nil {
			return nil, err
		}
		f.bucket.put(r.Key, Object{Size: 6, ContentType: "image/jpeg"}, false)
		if s, err = u.Confirm(ctx, s); isMismatch(err) {
			err = nil
		}
		return s, err
	}},
	{name: "put given up", want: Aborted, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		r := sceneRequest("a")
		s, _, err := u.Begin(ctx, r)
		if errors.Is(err, ErrState) {
			s, err = u.Lookup(ctx, r.Namespace, r.UID, r.ID)
		}
		if err != nil {
			return nil, err
		}
		return u.Abort(ctx, s)
	}},
	{name: "multipart", want: Ready, held: true, there: true, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		s, err := u.BeginMultipart(ctx, sceneVideo("a"))
		if err != nil || s.Status != Uploading {
			return s, err
		}
		if err := send(ctx, f, u, s, videoParts...); err != nil {
			return s, err
		}
		return u.Complete(ctx, s, nil)
	}},
	{name: "multipart too large", want: Rejected, held: true, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		r := sceneVideo("a")
		s, err := u.BeginMultipart(ctx, r)
		if errors.Is(err, ErrState) {
			return u.Lookup(ctx, r.Namespace, r.UID, r.ID)
		}
		if err != nil {
			return s, err
		}
		f.bucket.part(s.UploadID, 1, 5<<20)
		f.bucket.part(s.UploadID, 2, 8<<20)
		if s, err = u.Complete(ctx, s, nil); isMismatch(err) {
			err = nil
		}
		return s, err
	}},
	{name: "multipart to a key that is taken", want: Failed, there: true, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		r := sceneVideo("a")
		f.bucket.put(r.Key, Object{Size: 1, ContentType: "a/b"}, false)
		s, err := u.BeginMultipart(ctx, r)
		if errors.Is(err, ErrState) {
			return u.Lookup(ctx, r.Namespace, r.UID, r.ID)
		}
		if err != nil {
			return s, err
		}
		if err := send(ctx, f, u, s, videoParts...); err != nil {
			return s, err
		}
		if s, err = u.Complete(ctx, s, nil); errors.Is(err, ErrTaken) {
			err = nil
		}
		return s, err
	}},
	{name: "multipart given up", want: Aborted, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		r := sceneVideo("a")
		s, err := u.BeginMultipart(ctx, r)
		if errors.Is(err, ErrState) {
			s, err = u.Lookup(ctx, r.Namespace, r.UID, r.ID)
		}
		if err != nil {
			return s, err
		}
		f.bucket.part(s.UploadID, 1, 5<<20)
		return u.Abort(ctx, s)
	}},
	{name: "multipart forgotten", want: Expired, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		s, err := u.BeginMultipart(ctx, sceneVideo("a"))
		if err != nil {
			return s, err
		}
		f.bucket.part(s.UploadID, 1, 5<<20)
		return s, nil
	}},
	{name: "put forgotten", want: Expired, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		s, _, err := u.Begin(ctx, sceneRequest("a"))
		return s, err
	}},
	{name: "put not confirmed", want: Expired, held: true, there: true, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		r := sceneRequest("a")
		s, _, err := u.Begin(ctx, r)
		if err == nil {
			f.bucket.put(r.Key, Object{Size: 5, ContentType: "image/jpeg"}, false)
		}
		return s, err
	}},
	{name: "put not confirmed, to be deleted", want: Expired, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		r := sceneRequest("a")
		r.DeleteLate = true
		s, _, err := u.Begin(ctx, r)
		if err == nil {
			f.bucket.put(r.Key, Object{Size: 5, ContentType: "image/jpeg"}, false)
		}
		return s, err
	}},
	{name: "put that nobody confirms", want: Ready, held: true, there: true, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		r := sceneRequest("a")
		r.AutoConfirm = true
		s, _, err := u.Begin(ctx, r)
		if err == nil {
			f.bucket.put(r.Key, Object{Size: 5, ContentType: "image/jpeg"}, false)
		}
		return s, err
	}},
	{name: "multipart by the client alone", want: Ready, held: true, there: true, run: func(ctx context.Context, f *fixture, u *Uploads) (*Session, error) {
		r := sceneVideo("a")
		r.AutoConfirm = true
		s, _, err := u.SignCreate(ctx, r)
		if err != nil {
			return nil, err
		}
		id := s.UploadID
		if s.Status == Issued {
			id = f.bucket.create(Put{Key: r.Key, ContentType: r.ContentType})
		}
		if s, err = u.Adopt(ctx, s, id); err != nil {
			if s.Status == Ready {
				err = nil
			}
			return s, err
		}
		if err := send(ctx, f, u, s, videoParts...); err != nil {
			return s, err
		}
		parts, err := u.Parts(ctx, s)
		if errors.Is(err, ErrNoUpload) {
			return u.Confirm(ctx, s) // the client completed it before
		}
		if err != nil {
			return s, err
		}
		if _, err := u.SignCall(ctx, s, CompleteUpload, time.Minute); err != nil {
			return s, err
		}
		if err := f.bucket.complete(Put{Key: r.Key}, s.UploadID, parts); err != nil {
			f.bucket.t.Error(err)
		}
		return u.Confirm(ctx, s)
	}},
}

// once does the scene and all that sweeps do later, with the fault. It says
// how many calls were made, and whether the process died.
func (c scene) once(t *testing.T, f *fixture, at int, m mode, err error) (calls int, broke bool) {
	u := f.gateway()
	u.Notices = true
	f.faults.reset(at, m, err)
	defer func() {
		calls = len(f.faults.calls)
		if r := recover(); r != nil {
			if _, ok := r.(killed); !ok {
				panic(r)
			}
			broke = true
		}
	}()
	if _, err := c.run(t.Context(), f, u); err != nil {
		if !errors.Is(err, ErrUnavailable) {
			t.Fatalf("fault %d (%s): %v, want it to be unavailable", at, m, err)
		}
		return len(f.faults.calls), true
	}
	return len(f.faults.calls), false
}

// A process that is killed between any two steps, and any call of store or
// bucket that fails in any way, done or not: what is done again then comes to
// the same end, counts once, leaves nothing open, and signs nothing that is
// not on record.
func TestEveryFaultConverges(t *testing.T) {
	slow := context.DeadlineExceeded
	forbidden := fmt.Errorf("%w: the store answered 403", ErrUnavailable)
	broken := fmt.Errorf("%w: the store answered 500", ErrUnavailable)
	for _, c := range scenes {
		t.Run(c.name, func(t *testing.T) {
			points := 0
			for at := 1; ; at++ {
				hit := false
				for _, m := range modes {
					for _, err := range []error{slow, forbidden, broken} {
						if (m == killedFirst || m == killedThen) && err != slow {
							continue
						}
						f := newEmpty(t)
						calls, broke := c.once(t, f, at, m, err)
						if calls < at {
							continue
						}
						hit = true
						points++
						if broke {
							if _, again := c.once(t, f, 0, "", nil); again {
								t.Fatalf("fault %d (%s, %v): the retry failed: %q", at, m, err, f.faults.calls)
							}
						}
						c.check(t, f, fmt.Sprintf("fault %d (%s, %v)", at, m, err))
					}
				}
				if !hit {
					break
				}
			}
			if points < len(modes) {
				t.Errorf("%d points were tried", points)
			}
		})
	}
}

// check lets all time pass with sweeps in between, and looks at what is left.
func (c scene) check(t *testing.T, f *fixture, what string) {
	t.Helper()
	for _, later := range []time.Duration{16 * time.Minute, 2 * time.Hour, 4 * time.Hour, 25 * time.Hour, 27 * time.Hour} {
		if later := start.Add(later); later.After(f.time()) {
			f.set(later)
		}
		sweepAll(t, f)
	}
	if len(f.store.sessions) != 1 {
		t.Fatalf("%s: %d sessions", what, len(f.store.sessions))
	}
	for _, s := range f.store.sessions {
		if s.Status != c.want || s.Held != c.held || !s.Wake.IsZero() {
			t.Fatalf("%s: %s, held %t, wake %v (%s), want %s, %t\n%q", what, s.Status, s.Held, s.Wake, s.Reason, c.want, c.held, f.faults.calls)
		}
		want := usage{}
		if s.Held {
			want = usage{1, s.Counted}
		}
		if got := f.store.used[s.account()]; got != want {
			t.Errorf("%s: counted %+v, want %+v", what, got, want)
		}
		if there := len(f.bucket.objects[s.Key]) > 0; there != c.there {
			t.Errorf("%s: object there: %t, want %t", what, there, c.there)
		}
		if (s.Notice == NoticeSent) != (s.Status == Ready || s.Status == Rejected) {
			t.Errorf("%s: %s has notice %q", what, s.Status, s.Notice)
		}
		if !lawful(f.store.moves[s.ID]) {
			t.Errorf("%s: moved %s", what, f.store.moves[s.ID])
		}
	}
	if len(f.bucket.open) != 0 {
		t.Errorf("%s: %d multipart uploads are open", what, len(f.bucket.open))
	}
}

// lawful reports whether a session may have moved so: at most once to
// uploading, and at most once to an end.
func lawful(moves []Status) bool {
	if len(moves) > 0 && moves[0] == Uploading {
		moves = moves[1:]
	}
	return len(moves) == 0 || len(moves) == 1 && !moves[0].Open()
}

func TestLawful(t *testing.T) {
	for _, c := range []struct {
		ok    bool
		moves []Status
	}{
		{true, nil}, {true, []Status{Uploading, Ready}}, {true, []Status{Expired}},
		{false, []Status{Ready, Rejected}}, {false, []Status{Uploading, Uploading}}, {false, []Status{Aborted, Issued}},
	} {
		if lawful(c.moves) != c.ok {
			t.Errorf("%s", c.moves)
		}
	}
}

// A listener hears of what ended, and of what is put on record.
type listener struct {
	*faults
	mu       sync.Mutex
	told     []string
	recorded []string
	swept    []Swept
}

func (n *listener) Notify(_ context.Context, s *Session) error {
	return n.call("Notify", func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.told = append(n.told, s.ID+" "+string(s.Status))
		return nil
	})
}

func (n *listener) record(_ context.Context, s *Session, what string) error {
	return n.call("Record", func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.recorded = append(n.recorded, s.ID+" "+what)
		return nil
	})
}

func (n *listener) report(s Swept) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.swept = append(n.swept, s)
}

func (n *listener) count(what string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := 0
	for _, s := range n.swept {
		if s.What == what {
			c++
		}
	}
	return c
}

// sweeper is one of another gateway.
func (f *fixture) sweeper() (*Sweeper, *listener) {
	u := f.gateway()
	u.Notices = true
	n := &listener{faults: f.faults}
	return &Sweeper{Uploads: u, Notify: n, Record: n.record, Report: n.report}, n
}

// sweepAll sweeps until nothing is due.
func sweepAll(t *testing.T, f *fixture) {
	t.Helper()
	s, _ := f.sweeper()
	for range 10 {
		if _, err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if due, _ := f.store.Due(t.Context(), f.time(), 10); len(due) == 0 {
			return
		}
	}
	t.Fatalf("still due: %v", f.store.sessions)
}

// The same for sweeps: one that fails or dies anywhere is made up for by a
// later one, of any gateway.
func TestEveryFaultOfASweepConverges(t *testing.T) {
	for _, c := range scenes {
		t.Run(c.name, func(t *testing.T) {
			for at := 1; ; at++ {
				hit := false
				for _, m := range []mode{refused, lost, deadFirst, deadThen} {
					f := newEmpty(t)
					c.once(t, f, 0, "", nil)
					f.faults.reset(at, m, fmt.Errorf("%w: the store answered 500", ErrUnavailable))
					for _, later := range []time.Duration{16 * time.Minute, 2 * time.Hour, 25 * time.Hour} {
						f.set(start.Add(later))
						s, _ := f.sweeper()
						if _, err := s.Sweep(t.Context()); err != nil && !errors.Is(err, ErrUnavailable) {
							t.Fatal(err)
						}
					}
					hit = hit || len(f.faults.calls) >= at
					f.faults.reset(0, "", nil)
					c.check(t, f, fmt.Sprintf("fault %d (%s)", at, m))
				}
				if !hit {
					break
				}
			}
		})
	}
}
