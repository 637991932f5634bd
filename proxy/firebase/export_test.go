package firebase

import (
	"context"
	"time"
)

// Stands asks whether a token of the user still counts, as a verification and
// every later use of a cached token do.
func (u *Users) Stands(ctx context.Context, uid string, issued time.Time) error {
	return u.watch(uid, issued)(ctx)
}

// The bounds that the tests hold Users to.
const (
	MaxLookups    = maxLookups
	LookupTimeout = lookupTimeout
	LookupPause   = lookupPause
)

// Watch is what a verified token keeps.
func (u *Users) Watch(uid string, issued time.Time) func(context.Context) error {
	return u.watch(uid, issued)
}

// MaxUsers bounds the users that are remembered.
const MaxUsers = maxUsers
