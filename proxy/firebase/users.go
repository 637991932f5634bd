package firebase

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"sidegate/proxy"
	"sidegate/proxy/oidc"
)

const (
	// maxUsers bounds the users that are remembered beside those whose tokens
	// the cache holds.
	maxUsers = 100_000
	// maxLookups bounds the questions under way at once about users that nothing
	// is known of, and as many about others: a crowd of new accounts does not
	// take the places of those who were there. Firebase allows a project 500 in a
	// second (firebase.google.com/docs/auth/limits).
	maxLookups = 32
	// lookupTimeout bounds one question and, before it, the wait for a free place.
	lookupTimeout = 5 * time.Second
	// lookupPause is how long after a failure the same user is not asked about.
	lookupPause = time.Second
)

// A User is what Firebase says of one.
type User struct {
	// Exists is false of one that was deleted, or never was.
	Exists, Disabled bool
	// ValidSince is when the tokens that the user has were revoked last: those
	// issued before it count no more.
	ValidSince time.Time
}

// A UserReader asks for a user. It is safe for concurrent use, and ends when its
// context does. An error means that it could not be told; that there is no such
// user is none.
type UserReader func(ctx context.Context, uid string) (User, error)

// UsersOptions are what Users need.
type UsersOptions struct {
	Read UserReader
	// Window is within which a revoked or disabled user is noticed.
	Window time.Duration
	// Grace is how long after Window a user that was one goes on while
	// Firebase cannot be asked.
	Grace time.Duration
	// Now is the clock; the default is time.Now.
	Now func() time.Time
}

// Users remember which users of a project and tenant are revoked or disabled.
// For half of the window nobody is asked; in the other half the first request
// has the user asked about and none waits; then all wait. It is safe for
// concurrent use.
type Users struct {
	o                 UsersOptions
	newcomers, others chan struct{} // places for questions

	mu    sync.Mutex
	users *simplelru.LRU[string, *user]

	asked, failed atomic.Uint64
	answered      atomic.Int64 // when Firebase answered last, in nanoseconds since 1970
}

// NewUsers makes Users that nothing is known of yet.
func NewUsers(o UsersOptions) (*Users, error) {
	if o.Read == nil || o.Window <= 0 || o.Grace < 0 {
		return nil, errors.New("users need somebody to ask, and a window")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	users, err := simplelru.NewLRU(maxUsers, func(_ string, is *user) { is.forgotten.Store(true) })
	if err != nil {
		return nil, err
	}
	return &Users{o: o, newcomers: make(chan struct{}, maxLookups), others: make(chan struct{}, maxLookups), users: users}, nil
}

// Counts are the questions asked and those that failed.
func (u *Users) Counts() (asked, failed uint64) { return u.asked.Load(), u.failed.Load() }

// Remembered is how many users are.
func (u *Users) Remembered() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.users.Len()
}

// A user is what is known of one, and the question under way.
type user struct {
	uid       string
	known     atomic.Pointer[knowledge] // nil: nothing yet
	forgotten atomic.Bool               // another one may be of the same uid

	mu       sync.Mutex
	flight   *lookup
	failedAt time.Time // of the last question's end
	failure  error     // nil: it was answered
}

type knowledge struct {
	User
	asked time.Time // before the answer: what happened since is not in it
}

type lookup struct {
	done chan struct{}
	err  error // set before done is closed
}

// watch gives the question whether a token of the user, issued at a moment,
// still counts.
func (u *Users) watch(uid string, issued time.Time) func(context.Context) error {
	is := u.user(uid, nil)
	return func(ctx context.Context) error {
		if is.forgotten.Load() { // one user has one memory, whatever token asks
			return u.check(ctx, u.user(uid, is), issued)
		}
		return u.check(ctx, is, issued)
	}
}

// user is the one memory of a user; what mine knows, which was forgotten, is
// taken over where it is younger.
func (u *Users) user(uid string, mine *user) *user {
	u.mu.Lock()
	defer u.mu.Unlock()
	is, ok := u.users.Get(uid)
	if !ok {
		is = &user{uid: uid}
		u.users.Add(uid, is)
	}
	if mine == nil {
		return is
	}
	was, now := mine.known.Load(), is.known.Load()
	if was != nil && (now == nil || now.asked.Before(was.asked)) {
		is.known.CompareAndSwap(now, was)
	}
	return is
}

func (u *Users) check(ctx context.Context, is *user, issued time.Time) error {
	now := u.o.Now()
	known, age := is.age(now)
	if age < 0 { // this request was held up, and another's answer is younger
		now = u.o.Now()
		known, age = is.age(now)
	}
	// With a clock that was set back nothing is known of an answer's age.
	if known != nil && age >= 0 && age < u.o.Window {
		if age >= u.o.Window/2 {
			u.askWithoutWaiting(is, now)
		}
		return known.judge(issued)
	}
	err := u.wait(ctx, u.ask(is, now))
	if err == nil {
		return is.known.Load().judge(issued)
	}
	// Who was none before is none now, too. A crowd that asks is no outage while
	// Firebase answers.
	outage := !errors.Is(err, errCrowd) || u.silent()
	if known != nil && outage && age >= 0 && age < u.o.Window+u.o.Grace {
		return known.judge(issued)
	}
	return fmt.Errorf("whether the user is revoked: %w: %w", proxy.ErrUnavailable, err)
}

// silent reports whether Firebase has answered nothing for as long as a question
// may take.
func (u *Users) silent() bool {
	return u.o.Now().Sub(time.Unix(0, u.answered.Load())) >= lookupTimeout
}

// age is what is known of the user, and for how long it was then.
func (is *user) age(now time.Time) (*knowledge, time.Duration) {
	known := is.known.Load()
	if known == nil {
		return nil, 0
	}
	return known, now.Sub(known.asked)
}

// judge is the Admin SDK's rule: a token that was issued before the user's were
// revoked counts no more. Both are whole seconds, and the first token of a new
// user is issued in the second that its validity begins. (auth_time, which the
// SDK for Node compares, is no later where users change their own password, and
// would sign them out. Firebase makes no session cookie of a revoked token.)
func (k *knowledge) judge(issued time.Time) error {
	switch {
	case !k.Exists:
		return oidc.Refuse(oidc.ReasonRevoked, "there is no such user any more")
	case k.Disabled:
		return oidc.Refuse(oidc.ReasonDisabled, "")
	case issued.Before(k.ValidSince):
		return oidc.Refuse(oidc.ReasonRevoked, "it was issued at %s, revoked were those before %s",
			issued.UTC().Format(time.RFC3339), k.ValidSince.UTC().Format(time.RFC3339))
	}
	return nil
}

func (u *Users) wait(ctx context.Context, l *lookup) error {
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ask is the question under way, or a new one; shortly after a failure it is
// that failure.
func (u *Users) ask(is *user, now time.Time) *lookup {
	is.mu.Lock()
	defer is.mu.Unlock()
	if is.flight != nil {
		return is.flight
	}
	l := &lookup{done: make(chan struct{})}
	if is.failedLately(now) {
		l.err = is.failure
		close(l.done)
		return l
	}
	is.flight = l
	places := u.newcomers
	if is.known.Load() != nil {
		places = u.others
	}
	// On a context of its own: none of those who wait can end it for the others.
	go func() {
		patience := time.NewTimer(lookupTimeout)
		defer patience.Stop()
		select {
		case places <- struct{}{}:
			u.land(is, l, u.read(is, places))
		case <-patience.C:
			u.land(is, l, errCrowd)
		}
	}()
	return l
}

// askWithoutWaiting begins a question that nobody waits for, where there is a
// free place: else a later request does.
func (u *Users) askWithoutWaiting(is *user, now time.Time) {
	is.mu.Lock()
	defer is.mu.Unlock()
	if is.flight != nil || is.failedLately(now) {
		return
	}
	select {
	case u.others <- struct{}{}:
	default:
		return
	}
	l := &lookup{done: make(chan struct{})}
	is.flight = l
	go func() { u.land(is, l, u.read(is, u.others)) }()
}

// failedLately: is.mu is held.
func (is *user) failedLately(now time.Time) bool {
	since := now.Sub(is.failedAt)
	return is.failure != nil && since >= 0 && since < lookupPause
}

// errCrowd is of a question that found no free place.
var errCrowd = errors.New("too many questions are under way")

// read asks Firebase, by a place that is given back.
func (u *Users) read(is *user, place chan struct{}) (err error) {
	defer func() {
		<-place
		// The answer is a stranger's, and the SDK has panics: one costs a
		// question, not the gateway.
		if p := recover(); p != nil {
			err = errors.New("the answer made the reader panic")
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	u.asked.Add(1)
	now := u.o.Now() // not earlier: an answer is not as old as the queue was long
	answer, err := u.o.Read(ctx, is.uid)
	if err != nil {
		return err
	}
	u.answered.Store(u.o.Now().UnixNano())
	is.known.Store(&knowledge{answer, now})
	return nil
}

func (u *Users) land(is *user, l *lookup, err error) {
	if err != nil {
		u.failed.Add(1)
	}
	is.mu.Lock()
	defer is.mu.Unlock()
	is.flight, is.failure, is.failedAt = nil, err, u.o.Now()
	l.err = err
	close(l.done)
}
