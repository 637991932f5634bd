package upload

import (
	"errors"
	"math"
)

// What every [Store] must hold to is here once: stores differ in where they
// keep a session and a usage, and in nothing else.

// A Usage is what an account has counted within one window.
type Usage struct{ Objects, Bytes int64 }

// Add counts a session that is being created, or gives a [QuotaError].
func (u Usage) Add(s *Session, q *Quota) (Usage, error) {
	over := func(what string) error {
		return &QuotaError{What: what, Retry: max(s.QuotaWindow.Add(q.Window).Sub(s.CreatedAt), 0)}
	}
	switch {
	case u.Objects < 0 || u.Bytes < 0 || u.Objects == math.MaxInt64 || s.Counted > math.MaxInt64-u.Bytes:
		return u, errors.New("the account has counted what cannot be") // and is no reason to let anything pass
	case q.Objects > 0 && u.Objects >= q.Objects:
		return u, over("objects")
	case q.Bytes > 0 && (u.Bytes > q.Bytes || s.Counted > q.Bytes-u.Bytes):
		return u, over("bytes")
	}
	return Usage{u.Objects + 1, u.Bytes + s.Counted}, nil
}

// Sub gives back what Add counted.
func (u Usage) Sub(s *Session) Usage {
	return Usage{max(u.Objects-1, 0), max(u.Bytes-max(s.Counted, 0), 0)}
}

// CheckCreate refuses a session that is held by no quota, or that a quota does
// not count, or not with less than nothing: each would let others pass.
func CheckCreate(s *Session, q *Quota) error {
	switch {
	case s.Held != (q != nil):
		return errors.New("a session counts where there is a quota, and only there")
	case q == nil:
		return nil
	case q.Window <= 0 || q.Bytes < 0 || q.Objects < 0:
		return errors.New("the quota has no window, or less than nothing")
	case s.Quota == "" || s.Counted < 0:
		return errors.New("the session names no account, or counts less than nothing")
	}
	return nil
}

// CheckTransition refuses to change what a session is found by, and what is
// counted of it, but to give it back.
func CheckTransition(was, next *Session) error {
	if was.ID != next.ID || was.Namespace != next.Namespace || was.UID != next.UID || was.Key != next.Key || !was.CreatedAt.Equal(next.CreatedAt) {
		return errors.New("a transition makes it another upload")
	}
	if next.Held && !was.Held || was.Quota != next.Quota || was.Counted != next.Counted || !was.QuotaWindow.Equal(next.QuotaWindow) {
		return errors.New("a transition counts it otherwise")
	}
	return nil
}
