package firebase_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

// TestOneMemoryOfAUser: a token that was verified long ago asks by what is known
// of its user now, also where so many others came since that the user was
// forgotten.
func TestOneMemoryOfAUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory("alice")
		u := newUsers(t, d, nil)
		old := u.Watch("alice", time.Now())
		wantGood(t, "at first", old(t.Context()))
		pass(2 * time.Minute)
		for i := range firebase.MaxUsers {
			u.Watch(fmt.Sprint("other", i), time.Now())
		}
		d.is("alice", firebase.User{Exists: true, Disabled: true})
		wantRefused(t, "a new token", u.Watch("alice", time.Now())(t.Context()), oidc.ReasonDisabled)
		wantRefused(t, "the old one", old(t.Context()), oidc.ReasonDisabled)
		d.fails(errDirectory)
		pass(window)
		wantRefused(t, "the old one, in an outage", old(t.Context()), oidc.ReasonDisabled)
	})
}

// TestCrowdOfNewcomers: whoever signs up thousands of accounts, to use them all
// at once, keeps neither those who were there from being asked about nor himself
// from being noticed.
func TestCrowdOfNewcomers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		read := func(ctx context.Context, uid string) (firebase.User, error) {
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
				return firebase.User{}, ctx.Err()
			}
			return firebase.User{Exists: true, Disabled: uid == "mallory" && time.Since(start) > time.Minute}, nil
		}
		u, err := firebase.NewUsers(firebase.UsersOptions{Read: read, Window: window, Grace: grace})
		if err != nil {
			t.Fatal(err)
		}
		for _, uid := range []string{"mallory", "alice"} {
			wantGood(t, uid+" at first", u.Stands(t.Context(), uid, start))
		}
		pass(window)
		for i := range 2000 {
			go u.Stands(context.Background(), fmt.Sprint("new", i), start)
		}
		synctest.Wait()
		wantGood(t, "alice in the crowd", u.Stands(t.Context(), "alice", start))
		wantRefused(t, "mallory in the crowd", u.Stands(t.Context(), "mallory", start), oidc.ReasonDisabled)
		pass(time.Minute) // those who wait have ended
	})
}

// TestCrowdIsNoOutage: where Firebase answers and there is no place to ask, nobody
// goes on by grace.
func TestCrowdIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took := time.Duration(0)
		read := func(context.Context, string) (firebase.User, error) {
			time.Sleep(took)
			return firebase.User{Exists: true}, nil
		}
		u, err := firebase.NewUsers(firebase.UsersOptions{Read: read, Window: window, Grace: grace})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		const crowd = 3 * firebase.MaxLookups
		for i := range crowd + 1 {
			uid := fmt.Sprint("user", i)
			wantGood(t, uid, u.Stands(t.Context(), uid, start))
		}
		pass(window)
		took = firebase.LookupTimeout - time.Second
		for i := range crowd {
			go u.Stands(context.Background(), fmt.Sprint("user", i), start)
			synctest.Wait()
		}
		// By the time that its patience ends, two generations stand before it.
		wantUnavailable(t, "the one too many", u.Stands(t.Context(), fmt.Sprint("user", crowd), start))
		pass(time.Minute)
	})
}

// TestGraceWhileFirebaseHangs: a crowd that waits because nothing is answered is
// an outage, and whoever was a user goes on for the grace.
func TestGraceWhileFirebaseHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory()
		u := newUsers(t, d, nil)
		start := time.Now()
		const users = 300
		for i := range users {
			uid := fmt.Sprint("user", i)
			d.is(uid, firebase.User{Exists: true})
			wantGood(t, uid, u.Stands(t.Context(), uid, start))
		}
		pass(window)
		release := d.holds()
		done := make(chan error, users)
		for i := range users {
			go func() { done <- u.Stands(t.Context(), fmt.Sprint("user", i), start) }()
		}
		for range users {
			wantGood(t, "within grace", <-done)
		}
		release()
		synctest.Wait()
	})
}

// TestMoreUsersThanAreRemembered: whose token is in the cache is known by it,
// also where so many others are that the user was forgotten.
func TestMoreUsersThanAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		u, err := firebase.NewUsers(firebase.UsersOptions{Window: window, Read: func(context.Context, string) (firebase.User, error) {
			asked.Add(1)
			return firebase.User{Exists: true}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		tokens := make([]func(context.Context) error, firebase.MaxUsers+1000)
		for round := range 2 {
			for i := range tokens {
				if round == 0 {
					tokens[i] = u.Watch(fmt.Sprint(i), start)
				}
				if err := tokens[i](t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if n := int(asked.Load()); n != len(tokens) {
			t.Errorf("%d questions about %d users", n, len(tokens))
		}
	})
}

// TestAnswersAreNotBornOld: the wait for a place is not the answer's age.
func TestAnswersAreNotBornOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		read := func(context.Context, string) (firebase.User, error) {
			asked.Add(1)
			time.Sleep(4 * time.Second)
			return firebase.User{Exists: true}, nil
		}
		u, err := firebase.NewUsers(firebase.UsersOptions{Read: read, Window: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for i := range firebase.MaxLookups {
			go u.Stands(context.Background(), fmt.Sprint("first", i), start)
		}
		synctest.Wait()
		wantGood(t, "alice, after the others", u.Stands(t.Context(), "alice", start))
		begun, before := time.Now(), asked.Load()
		wantGood(t, "alice again", u.Stands(t.Context(), "alice", start))
		if time.Since(begun) != 0 || asked.Load() != before {
			t.Errorf("she waited %s", time.Since(begun))
		}
	})
}

// TestQuestionsInTheBackgroundAreFew: while Firebase hangs, requests that need
// no answer yet do not pile up questions.
func TestQuestionsInTheBackgroundAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDirectory()
		u := newUsers(t, d, nil)
		start := time.Now()
		for i := range 500 {
			uid := fmt.Sprint("user", i)
			d.is(uid, firebase.User{Exists: true})
			wantGood(t, uid, u.Stands(t.Context(), uid, start))
		}
		pass(window * 3 / 4)
		release := d.holds()
		for i := range 500 {
			uid := fmt.Sprint("user", i)
			wantGood(t, uid, u.Stands(t.Context(), uid, start))
			synctest.Wait()
		}
		if n := d.count("") - 500; n != firebase.MaxLookups {
			t.Errorf("%d questions are under way, not %d", n, firebase.MaxLookups)
		}
		release()
		synctest.Wait()
	})
}
