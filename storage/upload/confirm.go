package upload

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"mime"
	"strings"
	"time"
)

// clockTolerance is how far the clocks of two gateways, or of a gateway and
// the store, may differ before an object is thought older than its session.
const clockTolerance = 10 * time.Second

// Confirm looks at the session's object and moves the session on: to ready
// where it is what was signed. It gives the session as it now stands with no
// error where it is ready; else the error is [ErrNotUploaded] (still issued),
// a [Mismatch] (rejected), [ErrExpired], [ErrNotFound] (the session is gone),
// or it wraps [ErrUnavailable]: then the session was not moved, or it is
// unknown whether it was. Asking again gives the same answer; of several
// confirmations at once one moves the session, and all say the same.
//
// Confirm looks only at s; whose it is was asked in [Uploads.Lookup].
func (u *Uploads) Confirm(ctx context.Context, s *Session) (*Session, error) {
	if s.Status != Issued {
		return s.settled()
	}
	now := u.Now().UTC()
	if now.After(s.ConfirmBy) {
		next := *s
		next.Status = Expired
		return u.settle(ctx, &next)
	}
	bucket, err := u.bucket(s.Bucket)
	if err != nil {
		return s, err
	}
	o, err := bucket.Head(ctx, s.Key)
	if errors.Is(err, ErrNoObject) {
		return s, ErrNotUploaded
	}
	if err != nil {
		return s, unavailable("look at the uploaded object", err)
	}
	if !o.Modified.IsZero() && o.Modified.Before(s.CreatedAt.Add(-clockTolerance)) {
		return s, ErrNotUploaded // what lies there was there before
	}
	return u.settle(ctx, s.judged(o, now))
}

// judged is the session after o was found under its key.
func (s *Session) judged(o Object, now time.Time) *Session {
	next := *s
	if m := s.compare(o); m != nil {
		next.Status = Rejected
		next.Reason = m.Field + ": " + m.Reason
		return &next
	}
	next.Status = Ready
	next.Size = o.Size
	next.ContentType = o.ContentType
	if o.Checksum != "" {
		next.Checksum = o.Checksum
	}
	// The confirmation is of these bytes, not of what the key holds later.
	next.ETag = o.ETag
	next.VersionID = o.VersionID
	next.ReadyAt = now.Truncate(time.Millisecond)
	return &next
}

func (s *Session) compare(o Object) *Mismatch {
	if s.Size >= 0 && o.Size != s.Size {
		return &Mismatch{"size", fmt.Sprintf("%d was signed, %d is stored", s.Size, o.Size)}
	}
	if !sameMediaType(s.ContentType, o.ContentType) {
		return &Mismatch{"contentType", fmt.Sprintf("%.200q was signed, %.200q is stored", s.ContentType, o.ContentType)}
	}
	// A store that does not say the checksum vouches for nothing: another
	// upload may have put other bytes of the same size there.
	if s.Checksum != "" && o.Checksum != s.Checksum {
		return &Mismatch{"checksumSha256", fmt.Sprintf("%.64q was signed, %.64q is stored", s.Checksum, o.Checksum)}
	}
	return nil
}

// settle stores the state that follows issued, unless somebody else did: then
// theirs holds.
func (u *Uploads) settle(ctx context.Context, next *Session) (*Session, error) {
	err := u.Store.Transition(ctx, Issued, next)
	switch {
	case err == nil:
		return next.settled()
	case errors.Is(err, ErrNotFound):
		return nil, ErrNotFound
	case !errors.Is(err, ErrConflict):
		return nil, unavailable("store the upload's new state", err)
	}
	theirs, err := u.Lookup(ctx, next.Namespace, next.UID, next.ID)
	if err != nil {
		return nil, err
	}
	return theirs.settled()
}

// settled is the answer to a confirmation of a session that is no longer issued.
func (s *Session) settled() (*Session, error) {
	switch s.Status {
	case Ready:
		return s, nil
	case Rejected:
		field, reason, _ := strings.Cut(s.Reason, ": ")
		return s, &Mismatch{field, reason}
	case Expired:
		return s, ErrExpired
	}
	return s, fmt.Errorf("%w: the upload session is in state %.32q, which cannot be confirmed", ErrUnavailable, s.Status)
}

// sameMediaType compares as RFC 9110 (8.3.1) does, and the parameters' values
// without case too: stores are known to write charset=UTF-8 their own way.
func sameMediaType(a, b string) bool {
	ta, pa, errA := mime.ParseMediaType(a)
	tb, pb, errB := mime.ParseMediaType(b)
	if errA != nil || errB != nil {
		return strings.EqualFold(a, b)
	}
	return ta == tb && maps.EqualFunc(pa, pb, strings.EqualFold)
}
