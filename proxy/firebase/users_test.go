package firebase_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sidegate/proxy"
	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

// Most of these tests run in a bubble of testing/synctest: its clock stands
// still until all goroutines wait, so that a day passes at once and "nobody
// waits" can be told from "nobody waits yet".

const (
	window = 10 * time.Minute
	grace  = 5 * time.Minute
)

// A directory holds users as Firebase does. Its read fails both ways: without
// an answer, and with one that must not be believed.
type directory struct {
	mu     sync.Mutex
	users  map[string]firebase.User
	err    error
	lies   bool            // an error comes with a user who is well
	hold   chan struct{}   // where it is set a question waits until it is closed, or its context ends
	asked  map[string]int  // by uid
	under  int             // questions under way
	most   int             // of them at once
	ctx    context.Context // of the last question
	answer func()          // called before an answer is given
}

var errDirectory = errors.New("the directory is down")

func newDirectory(uids ...string) *directory {
	d := &directory{users: map[string]firebase.User{}, asked: map[string]int{}}
	for _, uid := range uids {
		d.users[uid] = firebase.User{Exists: true}
	}
	return d
}

func (d *directory) read(ctx context.Context, uid string) (firebase.User, error) {
	d.mu.Lock()
	d.asked[uid]++
	d.under++
	d.most = max(d.most, d.under)
	d.ctx = ctx
	hold, answer := d.hold, d.answer
	d.mu.Unlock()
	var err error
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if answer != nil {
		answer()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.under--
	if err == nil {
		err = d.err
	}
	if err != nil && d.lies {
		return firebase.User{Exists: true}, err
	} else if err != nil {
		return firebase.User{}, err
	}
	return d.users[uid], nil
}

func (d *directory) is(uid string, u firebase.User) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.users[uid] = u
}

func (d *directory) fails(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// holds makes questions wait until the function that it gives is called.
func (d *directory) holds() (release func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	hold := make(chan struct{})
	d.hold = hold
	return func() {
		d.mu.Lock()
		d.hold = nil
		d.mu.Unlock()
		close(hold)
	}
}

// count is how often a user was asked about; of "" all were.
func (d *directory) count(uid string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if uid != "" {
		return d.asked[uid]
	}
	all := 0
	for _, n := range d.asked {
		all += n
	}
	return all
}

func newUsers(t testing.TB, d *directory, now func() time.Time) *firebase.Users {
	t.Helper()
	u, err := firebase.NewUsers(firebase.UsersOptions{Read: d.read, Window: window, Grace: grace, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// pass moves the bubble's clock, and lets what that started come to its end.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func wantGood(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

func wantRefused(t *testing.T, what string, err error, reason string) {
	t.Helper()
	var bad *proxy.TokenError
	if !errors.As(err, &bad) || bad.Reason != reason || errors.Is(err, proxy.ErrUnavailable) {
		t.Errorf("%s: %v; want %q", what, err, reason)
	}
}

func wantUnavailable(t *testing.T, what string, err error) {
	t.Helper()
	var bad *proxy.TokenError
	if !errors.Is(err, proxy.ErrUnavailable) || errors.As(err, &bad) {
		t.Errorf("%s: %v; want ErrUnavailable", what, err)
	}
}

func wantAsked(t *testing.T, what string, d *directory, n int) {
	t.Helper()
	if is := d.count(""); is != n {
		t.Errorf("%s: %d questions, not %d", what, is, n)
	}
}

func TestUsersOptionsRefused(t *testing.T) {
	read := newDirectory().read
	for name, o := range map[string]firebase.UsersOptions{
		"nobody to ask":   {Window: window},
		"no window":       {Read: read},
		"negative window": {Read: read, Window: -1},
		"negative grace":  {Read: read, Window: window, Grace: -1},
	} {
		if _, err := firebase.NewUsers(o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWhoIsRefused(t *testing.T) {
	issued := time.Unix(1_800_000_000, 0)
	for name, c := range map[string]struct {
		user   firebase.User
		reason string
	}{
		"well":                   {firebase.User{Exists: true}, ""},
		"valid since long ago":   {firebase.User{Exists: true, ValidSince: issued.Add(-time.Hour)}, ""},
		"a second before":        {firebase.User{Exists: true, ValidSince: issued.Add(-time.Second)}, ""},
		"the same second":        {firebase.User{Exists: true, ValidSince: issued}, ""},
		"a millisecond after":    {firebase.User{Exists: true, ValidSince: issued.Add(time.Millisecond)}, oidc.ReasonRevoked},
		"a second after":         {firebase.User{Exists: true, ValidSince: issued.Add(time.Second)}, oidc.ReasonRevoked},
		"disabled":               {firebase.User{Exists: true, Disabled: true}, oidc.ReasonDisabled},
		"disabled and revoked":   {firebase.User{Exists: true, Disabled: true, ValidSince: issued.Add(time.Hour)}, oidc.ReasonDisabled},
		"deleted":                {firebase.User{}, oidc.ReasonRevoked},
		"deleted, with a record": {firebase.User{Disabled: true, ValidSince: issued.Add(-time.Hour)}, oidc.ReasonRevoked},
	} {
		d := newDirectory()
		d.is("alice", c.user)
		u := newUsers(t, d, nil)
		for _, time := range []string{"first", "again"} {
			err := u.Stands(t.Context(), "alice", issued)
			if c.reason == "" {
				wantGood(t, name+", "+time, err)
			} else {
				wantRefused(t, name+", "+time, err, c.reason)
			}
		}
		wantAsked(t, name, d, 1)
	}
}

// Only the tokens from before the revocation are refused: who signs in anew is
// let in, by the same answer.
func TestRevocationIsOfTokens(t *testing.T) {
	revoked := time.Unix(1_800_000_000, 0)
	d := newDirectory()
	d.is("alice", firebase.User{Exists: true, ValidSince: revoked})
	u := newUsers(t, d, nil)
	wantRefused(t, "before", u.Stands(t.Context(), "alice", revoked.Add(-time.Second)), oidc.ReasonRevoked)
	wantGood(t, "after", u.Stands(t.Context(), "alice", revoked.Add(time.Second)))
	wantRefused(t, "nobody", u.Stands(t.Context(), "bob", revoked), oidc.ReasonRevoked)
}

// Whatever happens to a user is noticed within the window by a user who calls
// all the time, and a request after the window notices in any case.
func TestChangeIsNoticedWithinTheWindow(t *testing.T) {
	for name, c := range map[string]struct {
		user   firebase.User
		reason string
	}{
		"revoked":  {firebase.User{Exists: true, ValidSince: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)}, oidc.ReasonRevoked},
		"disabled": {firebase.User{Exists: true, Disabled: true}, oidc.ReasonDisabled},
		"deleted":  {firebase.User{}, oidc.ReasonRevoked},
	} {
		for _, every := range []time.Duration{time.Second, window/2 - 1, window, 3 * window} {
			synctest.Test(t, func(t *testing.T) {
				what := fmt.Sprintf("%s, a request every %s", name, every)
				d := newDirectory("alice")
				u := newUsers(t, d, nil)
				issued := time.Now()
				for range 5 {
					wantGood(t, what, u.Stands(t.Context(), "alice", issued))
					pass(every)
				}
				changed := time.Now()
				d.is("alice", c.user)
				var err error
				for err == nil && time.Since(changed) <= 10*window {
					err = u.Stands(t.Context(), "alice", issued)
					synctest.Wait()
					if err == nil {
						if since := time.Since(changed); since >= window {
							t.Errorf("%s: let in %s after", what, since)
						}
						pass(every)
					}
				}
				wantRefused(t, what, err, c.reason)

				// And the other way round.
				d.is("alice", firebase.User{Exists: true})
				pass(window)
				wantGood(t, what+", well again", u.Stands(t.Context(), "alice", issued))
			})
		}
	}
}

// The first request waits; in the second half of the window one has the user
// asked about and none waits; after the window all wait.
func TestWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice")
		u := newUsers(t, d, nil)
		issued := time.Now()
		ask := func() chan error {
			done := make(chan error, 1)
			go func() { done <- u.Stands(t.Context(), "alice", issued) }()
			synctest.Wait()
			return done
		}
		waits := func(what string, waits bool, questions int) {
			t.Helper()
			release := d.holds()
			before := d.count("")
			done := ask()
			select {
			case err := <-done:
				if waits {
					t.Errorf("%s: it did not wait: %v", what, err)
				}
				wantGood(t, what, err)
			default:
				if !waits {
					t.Errorf("%s: it waits", what)
				}
			}
			if n := d.count("") - before; n != questions {
				t.Errorf("%s: %d questions, not %d", what, n, questions)
			}
			release()
			synctest.Wait()
			if waits {
				wantGood(t, what, <-done)
			}
		}
		waits("the first", true, 1)
		waits("right after", false, 0)
		pass(window/2 - 1)
		waits("at the end of the first half", false, 0)
		pass(1)
		waits("in the middle", false, 1)
		waits("after it was renewed", false, 0)
		pass(window - 1)
		waits("at the end of the window", false, 1)
		pass(window)
		waits("after the window", true, 1)
		pass(1000 * window)
		waits("long after", true, 1)

		// Several in the second half have one question asked between them.
		pass(window / 2)
		release := d.holds()
		before := d.count("")
		for range 10 {
			wantGood(t, "while the question is under way", <-ask())
		}
		release()
		synctest.Wait()
		if n := d.count("") - before; n != 1 {
			t.Errorf("10 requests in the second half: %d questions", n)
		}
		// A request after the window waits for the question that one in its second
		// half had asked.
		pass(window - 2*time.Second)
		release = d.holds()
		before = d.count("")
		wantGood(t, "at the end of the window", <-ask())
		pass(3 * time.Second)
		late := ask()
		if len(late) != 0 {
			t.Errorf("after the window: it did not wait: %v", <-late)
		}
		release()
		wantGood(t, "after the window", <-late)
		if n := d.count("") - before; n != 1 {
			t.Errorf("%d questions, not 1", n)
		}
	})
}

func TestOneQuestionForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice")
		u := newUsers(t, d, nil)
		for _, round := range []string{"the first time", "after the window"} {
			before := d.count("")
			release := d.holds()
			done := make(chan error, 64)
			for range 64 {
				go func() { done <- u.Stands(t.Context(), "alice", time.Now()) }()
			}
			synctest.Wait()
			if len(done) != 0 {
				t.Errorf("%s: %d did not wait", round, len(done))
			}
			release()
			for range 64 {
				wantGood(t, round, <-done)
			}
			if n := d.count("") - before; n != 1 {
				t.Errorf("%s: %d questions for 64", round, n)
			}
			pass(window)
		}
		if asked, failed := u.Counts(); asked != 2 || failed != 0 {
			t.Errorf("%d asked, %d failed", asked, failed)
		}
	})
}

// Without a bubble, so that the race detector sees goroutines that really run
// at once.
func TestUsersConcurrently(t *testing.T) {
	d := newDirectory("alice", "bob")
	u, err := firebase.NewUsers(firebase.UsersOptions{Read: d.read, Window: time.Millisecond, Grace: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for worker := range 64 {
		wg.Go(func() {
			uid, ctx := []string{"alice", "bob", "carol"}[worker%3], t.Context()
			for range 100 {
				err := u.Stands(ctx, uid, time.Now())
				if _, failed := u.Counts(); failed != 0 {
					t.Error("a question failed")
				}
				if uid == "carol" {
					wantRefused(t, uid, err, oidc.ReasonRevoked)
				} else {
					wantGood(t, uid, err)
				}
			}
		})
	}
	wg.Wait()
	d.mu.Lock() // a question in the background may still be under way
	defer d.mu.Unlock()
	if d.most > 3 {
		t.Errorf("%d questions at once about 3 users", d.most)
	}
}

// A request that reads the clock and is not run for a while then finds an answer
// that is younger than its clock. That is no clock that jumped: it must not
// cause a question.
func TestSlowRequestAsksNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice")
		start := time.Now()
		var u *firebase.Users
		var begun atomic.Bool
		now := func() time.Time {
			if begun.Swap(true) {
				return start.Add(time.Millisecond)
			}
			// The rest of the world goes on: another request asks, and is answered.
			done := make(chan error)
			go func() { done <- u.Stands(t.Context(), "alice", start) }()
			wantGood(t, "the fast one", <-done)
			return start
		}
		u = newUsers(t, d, now)
		wantGood(t, "the slow one", u.Stands(t.Context(), "alice", start))
		synctest.Wait()
		wantAsked(t, "two requests", d, 1)
	})
}

// Who waits does so until a deadline of its own; the question goes on for the
// others, whoever began it.
func TestWaitersEndAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice")
		u := newUsers(t, d, nil)
		release := d.holds()
		begin := func(ctx context.Context) chan error {
			done := make(chan error, 1)
			go func() { done <- u.Stands(ctx, "alice", time.Now()) }()
			synctest.Wait()
			return done
		}
		gone := errors.New("the caller has gone")
		ctx, leave := context.WithCancelCause(t.Context())
		first := begin(ctx) // it begins the question
		short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		second, patient := begin(short), begin(t.Context())

		leave(gone)
		synctest.Wait()
		err := <-first
		wantUnavailable(t, "the one that left", err)
		if !errors.Is(err, gone) {
			t.Errorf("%v does not say why", err)
		}
		start := time.Now()
		err = <-second
		wantUnavailable(t, "the one in a hurry", err)
		if waited := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || waited != 100*time.Millisecond {
			t.Errorf("in a hurry: %v after %s", err, waited)
		}
		if len(patient) != 0 || d.ctx.Err() != nil {
			t.Errorf("the question ended with those who waited: %v", d.ctx.Err())
		}
		release()
		wantGood(t, "the patient one", <-patient)
		wantAsked(t, "three who wait", d, 1)

		// And nobody has to be there for the answer to count.
		pass(window)
		release = d.holds()
		ctx, leave = context.WithCancelCause(t.Context())
		only := begin(ctx)
		leave(gone)
		<-only
		d.is("alice", firebase.User{})
		release()
		synctest.Wait()
		wantRefused(t, "by the answer that nobody waited for", u.Stands(t.Context(), "alice", time.Now()), oidc.ReasonRevoked)
		wantAsked(t, "after it", d, 2)
	})
}

func TestQuestionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const users = 3*firebase.MaxLookups + 1
		d := newDirectory()
		u := newUsers(t, d, nil)
		done := make(chan error, users)
		all := func() {
			for i := range users {
				uid := fmt.Sprintf("user-%d", i)
				d.is(uid, firebase.User{Exists: true})
				go func() { done <- u.Stands(t.Context(), uid, time.Now()) }()
			}
			synctest.Wait()
		}
		release := d.holds()
		all()
		if d.under != firebase.MaxLookups || len(done) != 0 {
			t.Errorf("%d questions under way, %d ended", d.under, len(done))
		}
		release()
		for range users {
			wantGood(t, "one of many", <-done)
		}
		wantAsked(t, "each", d, users)
		if d.most != firebase.MaxLookups {
			t.Errorf("%d questions at once, not %d", d.most, firebase.MaxLookups)
		}

		// A directory that hangs: those who wait for a place end when those who have
		// one do, or, where they take their places, after as long again; and the
		// places are free.
		pass(window + grace)
		release = d.holds()
		start := time.Now()
		all()
		for range users {
			wantUnavailable(t, "one of many", <-done)
		}
		if took := time.Since(start); took > 2*firebase.LookupTimeout {
			t.Errorf("they ended after %s", took)
		}
		synctest.Wait()
		release()
		pass(firebase.LookupPause)
		all()
		for range users {
			wantGood(t, "after it hung", <-done)
		}
		if d.most != firebase.MaxLookups {
			t.Errorf("%d questions at once, not %d", d.most, firebase.MaxLookups)
		}
	})
}

func TestDirectoryFails(t *testing.T) {
	for _, lies := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			d := newDirectory("alice", "bob")
			d.lies = lies
			u := newUsers(t, d, nil)
			issued := time.Now()
			stands := func(uid string) error { return u.Stands(t.Context(), uid, issued) }

			d.fails(errDirectory)
			err := stands("alice")
			wantUnavailable(t, "never known", err)
			if !errors.Is(err, errDirectory) {
				t.Errorf("%v does not say why", err)
			}
			d.fails(nil)
			pass(firebase.LookupPause)
			wantGood(t, "it is back", stands("alice"))
			known := time.Now()
			wantGood(t, "bob", stands("bob"))

			d.fails(errDirectory)
			for _, c := range []struct {
				at   time.Duration
				good bool
			}{{0, true}, {window / 2, true}, {window - 1, true}, {window, true}, {window + grace/2, true}, {window + grace - 1, true},
				{window + grace, false}, {window + grace + 1, false}, {100 * window, false}} {
				pass(time.Until(known.Add(c.at)))
				if err := stands("alice"); c.good {
					wantGood(t, fmt.Sprintf("%s after the answer", c.at), err)
				} else {
					wantUnavailable(t, fmt.Sprintf("%s after the answer", c.at), err)
				}
				synctest.Wait()
			}
			wantUnavailable(t, "bob, long after", stands("bob"))
			wantUnavailable(t, "carol, who was never known", stands("carol"))
			d.fails(nil)
			pass(firebase.LookupPause)
			wantGood(t, "back again", stands("alice"))
			if asked, failed := u.Counts(); int(asked) != d.count("") || failed == 0 || failed >= asked {
				t.Errorf("%d asked, %d failed; the directory was asked %d times", asked, failed, d.count(""))
			}
		})
	}
}

// Grace is for those who were known to be well.
func TestRevokedUserHasNoGrace(t *testing.T) {
	for reason, is := range map[string]firebase.User{
		oidc.ReasonDisabled: {Exists: true, Disabled: true},
		oidc.ReasonRevoked:  {Exists: true, ValidSince: time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		synctest.Test(t, func(t *testing.T) {
			d := newDirectory()
			d.lies = true
			d.is("alice", is)
			u := newUsers(t, d, nil)
			issued := time.Now()
			wantRefused(t, reason, u.Stands(t.Context(), "alice", issued), reason)
			d.fails(errDirectory)
			for since := time.Duration(0); since < 3*window; since += time.Minute {
				err := u.Stands(t.Context(), "alice", issued)
				if since < window+grace {
					wantRefused(t, fmt.Sprintf("%s, %s after", reason, since), err, reason)
				} else {
					wantUnavailable(t, fmt.Sprintf("%s, %s after", reason, since), err)
				}
				pass(time.Minute)
			}
		})
	}
}

// What happens while a question is under way is not in its answer: the window
// begins when the question is asked.
func TestWindowBeginsWithTheQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice")
		d.answer = func() { time.Sleep(4 * time.Second) }
		u := newUsers(t, d, nil)
		asked := time.Now()
		wantGood(t, "at first", u.Stands(t.Context(), "alice", asked))
		d.is("alice", firebase.User{})
		pass(time.Until(asked.Add(window)))
		wantRefused(t, "a window after the question", u.Stands(t.Context(), "alice", asked), oidc.ReasonRevoked)
	})
}

func TestPauseAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice", "bob")
		u := newUsers(t, d, nil)
		stands := func(uid string) error { return u.Stands(t.Context(), uid, time.Now()) }
		d.fails(errDirectory)
		wantUnavailable(t, "the first", stands("alice"))
		d.fails(nil)
		pass(firebase.LookupPause - 1)
		for range 9 {
			err := stands("alice")
			wantUnavailable(t, "within the pause", err)
			if !errors.Is(err, errDirectory) {
				t.Errorf("%v does not say why", err)
			}
		}
		wantAsked(t, "within the pause", d, 1)
		wantGood(t, "somebody else", stands("bob"))
		pass(1)
		wantGood(t, "after the pause", stands("alice"))

		// In the second half of the window nobody waits, and the pause counts, too.
		pass(window / 2)
		d.fails(errDirectory)
		before := d.count("alice")
		for range 100 {
			wantGood(t, "while it fails", stands("alice"))
			pass(firebase.LookupPause / 10)
		}
		if n := d.count("alice") - before; n != 10 {
			t.Errorf("%d questions in 10 s of failures", n)
		}
	})
}

func TestHangingQuestionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice")
		u := newUsers(t, d, nil)
		release := d.holds()
		start := time.Now()
		err := u.Stands(t.Context(), "alice", start)
		wantUnavailable(t, "it hangs", err)
		if took := time.Since(start); took != firebase.LookupTimeout || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v after %s", err, took)
		}
		release()
		pass(firebase.LookupPause)
		wantGood(t, "it does not any more", u.Stands(t.Context(), "alice", start))
	})
}

// An operator sets the clock back: what is known seems to be from the future. It
// is asked anew at once, and counts by the new clock from then on.
func TestClockJumpsBackwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var off atomic.Int64
		now := func() time.Time { // without the monotonic clock, which never jumps
			return time.Now().Add(time.Duration(off.Load())).Round(0)
		}
		jump := func(d time.Duration) { off.Add(int64(d)) }
		d := newDirectory("alice")
		u := newUsers(t, d, now)
		issued := now()
		wantGood(t, "before", u.Stands(t.Context(), "alice", issued))
		jump(-24 * time.Hour)
		wantGood(t, "after the jump", u.Stands(t.Context(), "alice", issued))
		synctest.Wait()
		wantAsked(t, "after the jump", d, 2)
		wantGood(t, "after the question", u.Stands(t.Context(), "alice", issued))
		synctest.Wait()
		wantAsked(t, "after the question", d, 2)
		d.is("alice", firebase.User{})
		pass(window)
		wantRefused(t, "a window later", u.Stands(t.Context(), "alice", issued), oidc.ReasonRevoked)

		// The pause after a failure does not last as long as the jump.
		d.is("alice", firebase.User{Exists: true})
		pass(window)
		d.fails(errDirectory)
		_ = u.Stands(t.Context(), "alice", issued)
		jump(-24 * time.Hour)
		d.fails(nil)
		_ = u.Stands(t.Context(), "alice", issued)
		synctest.Wait()
		wantGood(t, "well again", u.Stands(t.Context(), "alice", issued))
	})
}

// A small jump must not make the window longer, either.
func TestClockJumpsBackwardsALittle(t *testing.T) {
	for _, back := range []time.Duration{time.Second, window / 4, window/2 - 1, window / 2, window} {
		synctest.Test(t, func(t *testing.T) {
			var off atomic.Int64
			d := newDirectory("alice")
			u := newUsers(t, d, func() time.Time { return time.Now().Add(time.Duration(off.Load())).Round(0) })
			issued := time.Now()
			wantGood(t, "before", u.Stands(t.Context(), "alice", issued))
			off.Store(-int64(back))
			wantGood(t, "after the jump", u.Stands(t.Context(), "alice", issued))
			synctest.Wait()
			d.is("alice", firebase.User{})
			pass(window)
			wantRefused(t, fmt.Sprintf("back by %s: a window later", back), u.Stands(t.Context(), "alice", issued), oidc.ReasonRevoked)
		})
	}
}

// While the directory fails, a clock that was set back is no longer grace.
func TestClockJumpsBackwardsWhileTheDirectoryFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var off atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(off.Load())).Round(0) }
		d := newDirectory("alice")
		u := newUsers(t, d, now)
		issued := now()
		wantGood(t, "before", u.Stands(t.Context(), "alice", issued))
		d.fails(errDirectory)
		off.Add(-int64(24 * time.Hour))
		for range 10 {
			_ = u.Stands(t.Context(), "alice", issued)
			pass(window + grace)
		}
		wantUnavailable(t, "ten times window and grace later", u.Stands(t.Context(), "alice", issued))
	})
}

// A reader's panic (the Admin SDK reads a stranger's JSON) costs one question,
// not the gateway. It would end this process: the test is run in one of its own.
func TestPanicOfTheReader(t *testing.T) {
	const variable = "SIDEGATE_TEST_READER_PANICS"
	if os.Getenv(variable) == "" {
		command := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPanicOfTheReader$", "-test.count=1")
		command.Env = append(os.Environ(), variable+"=1")
		if out, err := command.CombinedOutput(); err != nil {
			first, _, _ := strings.Cut(string(out), "\n")
			t.Errorf("%v: %s", err, first)
		}
		return
	}
	u, err := firebase.NewUsers(firebase.UsersOptions{Window: window, Read: func(context.Context, string) (firebase.User, error) { panic("a null where a user is") }})
	if err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, "a panic", u.Stands(t.Context(), "alice", time.Now()))
}

// fetchedKeys are Google's, fetched before a bubble begins: nothing in it waits
// for a network.
func fetchedKeys(t *testing.T) func(string) (*oidc.KeySet, error) {
	t.Helper()
	keys := newGoogle(t).verifier(t, "", nil).Keys()
	return func(string) (*oidc.KeySet, error) { return keys, nil }
}

// watched is a verifier and a cache before it, as the gateway has them.
func watched(t *testing.T, keys func(string) (*oidc.KeySet, error), d *directory) *oidc.Cache {
	t.Helper()
	v, err := firebase.New(firebase.Options{Name: "users", Namespace: "users", Project: project, Leeway: oidc.DefaultLeeway,
		KeySet: keys, Users: newUsers(t, d, nil)})
	if err != nil {
		t.Fatal(err)
	}
	cache, err := oidc.NewCache(newSet(t, v), oidc.CacheOptions{Entries: 100})
	if err != nil {
		t.Fatal(err)
	}
	return cache
}

func TestCachedTokenOfARevokedUser(t *testing.T) {
	keys := fetchedKeys(t)
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice", "bob")
		cache := watched(t, keys, d)
		alice := good(time.Now())
		bob := good(time.Now(), set("sub", "bob"), without("user_id"))
		for range 20 {
			for _, token := range []string{alice, bob} {
				if _, err := cache.Authenticate(t.Context(), token); err != nil {
					t.Fatal(err)
				}
			}
			pass(time.Minute)
		}
		if st := cache.Stats(); st.Misses != 2 || st.Hits != 38 {
			t.Fatalf("%+v: the cache was not used", st)
		}
		revoked := time.Now()
		d.is("alice", firebase.User{Exists: true, ValidSince: revoked})
		var err error
		for err == nil && time.Since(revoked) < 2*window {
			pass(time.Minute)
			_, err = cache.Authenticate(t.Context(), alice)
		}
		wantRefused(t, "revoked", err, oidc.ReasonRevoked)
		if since := time.Since(revoked); since > window {
			t.Errorf("noticed after %s", since)
		}
		if st := cache.Stats(); st.Entries != 1 || st.Misses != 2 {
			t.Errorf("%+v: the token was not in the cache, or is still", st)
		}
		// It is verified anew, and refused again; a new sign-in is let in.
		_, err = cache.Authenticate(t.Context(), alice)
		wantRefused(t, "again", err, oidc.ReasonRevoked)
		if _, err := cache.Authenticate(t.Context(), good(time.Now())); err != nil {
			t.Errorf("a new sign-in: %v", err)
		}
		if _, err := cache.Authenticate(t.Context(), bob); err != nil {
			t.Errorf("somebody else: %v", err)
		}
		if st := cache.Stats(); st.Entries != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// Where it cannot be told the token stays in the cache: it is 503, and nothing
// has to be verified again.
func TestCachedTokenWhileTheDirectoryFails(t *testing.T) {
	keys := fetchedKeys(t)
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice")
		cache := watched(t, keys, d)
		token := good(time.Now())
		authenticate := func() error {
			id, err := cache.Authenticate(t.Context(), token)
			if (id == nil) != (err != nil) {
				t.Errorf("%v, %v", id, err)
			}
			return err
		}
		wantGood(t, "at first", authenticate())
		d.fails(errDirectory)
		pass(window + grace)
		wantUnavailable(t, "it fails", authenticate())
		d.fails(nil)
		pass(firebase.LookupPause)
		wantGood(t, "it is back", authenticate())
		if st := cache.Stats(); st.Misses != 1 || st.Entries != 1 {
			t.Errorf("%+v", st)
		}
		// A token that was never let in is in no cache.
		d.fails(errDirectory)
		_, err := cache.Authenticate(t.Context(), good(time.Now(), set("sub", "carol"), without("user_id")))
		wantUnavailable(t, "never known", err)
		if st := cache.Stats(); st.Entries != 1 {
			t.Errorf("%+v", st)
		}
	})
}

// Strangers choose no question: nobody is asked about before the signature and
// every claim are right.
func TestStrangersCauseNoQuestion(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	clock := func() time.Time { return now }
	g := newGoogle(t)
	d := newDirectory("alice")
	v, err := firebase.New(firebase.Options{Name: "users", Namespace: "users", Project: project, Leeway: oidc.DefaultLeeway,
		KeySet: g.keySet(clock), Users: newUsers(t, d, clock), Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Keys().Prefetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	cache, err := oidc.NewCache(newSet(t, v), oidc.CacheOptions{Entries: 100, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	hostile := attacks(now)
	for i := range 100 {
		hostile = append(hostile, attack{name: "by another key", token: rs256(otherKey(), header, payload(now, set("sub", fmt.Sprintf("user-%d", i)), without("user_id")))})
	}
	for _, a := range hostile {
		if _, err := cache.Authenticate(t.Context(), a.token); err == nil {
			t.Errorf("%s: accepted", a.name)
		}
	}
	wantAsked(t, "hostile tokens", d, 0)
	if _, err := cache.Authenticate(t.Context(), good(now)); err != nil {
		t.Error(err)
	}
	wantAsked(t, "a good one", d, 1)
}

// The emulator's users are looked after as Firebase's are.
func TestEmulatorAsksForUsers(t *testing.T) {
	now := time.Now()
	d := newDirectory("alice")
	for name, make := range map[string]func(firebase.Options) (*firebase.Emulator, error){"tokens": firebase.NewEmulator, "cookies": firebase.NewEmulatorCookies} {
		e, err := make(firebase.Options{Name: "users", Namespace: "users", Project: project, Users: newUsers(t, d, nil)})
		if err != nil {
			t.Fatal(err)
		}
		s, iss := newSet(t, e), set("iss", e.Accepts()[0].Issuer)
		if _, err := s.Authenticate(t.Context(), unsigned(now, iss)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_, err = s.Authenticate(t.Context(), unsigned(now, iss, set("sub", "bob"), without("user_id")))
		wantRefused(t, name, err, oidc.ReasonRevoked)
	}
}
