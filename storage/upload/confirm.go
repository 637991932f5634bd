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
// error where it is ready; else the error is [ErrNotUploaded] (still open), a
// [Mismatch] (rejected), [ErrExpired], [ErrState] (aborted), [ErrNoUpload] or
// [ErrTaken] (failed), [ErrNotFound] (the session is gone), or it wraps
// [ErrUnavailable]: then the session was not moved, or it is unknown whether
// it was. Asking again gives the same answer; of several confirmations at once
// one moves the session, and all say the same.
//
// Confirm looks only at s; whose it is was asked in [Uploads.Lookup].
func (u *Uploads) Confirm(ctx context.Context, s *Session) (*Session, error) {
	next, _, err := u.confirm(ctx, s, s.ConfirmBy)
	return next, err
}

// confirm says too whether it was this call that moved the session. What has
// not landed is waited for until then.
func (u *Uploads) confirm(ctx context.Context, s *Session, until time.Time) (next *Session, moved bool, err error) {
	if !s.Status.Open() {
		next, err = s.settled()
		return next, false, err
	}
	now := u.Now().UTC()
	late := now.After(s.ConfirmBy)
	if late && !s.AutoConfirm {
		return u.move(ctx, s, (*Session).expired)
	}
	bucket, err := u.bucket(s.Bucket)
	if err != nil {
		return s, false, err
	}
	o, err := landed(ctx, bucket, s)
	switch {
	case err == nil && late && o.Modified.After(s.ConfirmBy.Add(clockTolerance)):
		return u.move(ctx, s, (*Session).expired)
	case err == nil:
		return u.move(ctx, s, func(s *Session) *Session { return u.judged(s, o, now) })
	case !errors.Is(err, ErrNoObject):
		return s, false, unavailable("look at the uploaded object", err)
	case late && !now.Before(until):
		return u.move(ctx, s, (*Session).expired)
	}
	return s, false, ErrNotUploaded
}

// landed is the object that this session made, or ErrNoObject. What lay under
// the key before is not, and what came while the session's multipart upload is
// still open is another's.
func landed(ctx context.Context, bucket Bucket, s *Session) (Object, error) {
	if s.Multipart {
		if s.UploadID == "" {
			return Object{}, ErrNoObject
		}
		switch _, err := bucket.ListParts(ctx, s.Key, s.UploadID); {
		case err == nil:
			return Object{}, ErrNoObject
		case !errors.Is(err, ErrNoUpload):
			return Object{}, err
		}
	}
	o, err := bucket.Head(ctx, s.Key)
	if err == nil && s.older(o.Modified) {
		return Object{}, ErrNoObject
	}
	return o, err
}

// older reports whether what the store has came to be before the session did.
func (s *Session) older(at time.Time) bool {
	return !at.IsZero() && at.Before(s.CreatedAt.Add(-clockTolerance))
}

// expired is the session that was not confirmed in time. What may have landed,
// or may land yet, is for a sweep to look after; until then the quota stays
// counted.
func (s *Session) expired() *Session {
	next := *s
	next.Status = Expired
	if over := s.over(); next.Wake.Before(over) {
		next.Wake = over
	}
	return &next
}

// judged is the session after o was found under its key.
func (u *Uploads) judged(s *Session, o Object, now time.Time) *Session {
	if m := s.compare(o); m != nil {
		return u.rejected(s, m, now)
	}
	next := *s
	next.Status = Ready
	next.Size = o.Size
	next.ContentType = o.ContentType
	if o.Checksum != "" {
		next.Checksum = o.Checksum
	}
	if o.Checksum64 != "" {
		next.Checksum64 = o.Checksum64
	}
	// The confirmation is of these bytes, not of what the key holds later.
	next.ETag = o.ETag
	next.VersionID = o.VersionID
	next.ReadyAt = now.Truncate(time.Millisecond)
	u.ended(&next, now)
	return &next
}

// rejected is the session whose object, or what would be it, differs.
func (u *Uploads) rejected(s *Session, m *Mismatch, now time.Time) *Session {
	next := *s
	next.Status = Rejected
	next.Reason = m.Field + ": " + m.Reason
	next.RejectedAt = now.Truncate(time.Millisecond)
	u.ended(&next, now)
	return &next
}

func (s *Session) compare(o Object) *Mismatch {
	if m := s.compareSize(o); m != nil {
		return m
	}
	if !sameMediaType(s.ContentType, o.ContentType) {
		return &Mismatch{"contentType", fmt.Sprintf("%.200q was signed, %.200q is stored", s.ContentType, o.ContentType)}
	}
	// A store that does not say the checksum vouches for nothing: another
	// upload may have put other bytes of the same size there.
	if s.Checksum != "" && o.Checksum != s.Checksum {
		return &Mismatch{"checksumSha256", fmt.Sprintf("%.64q was signed, %.64q is stored", s.Checksum, o.Checksum)}
	}
	if s.Checksum64 != "" && o.Checksum64 != s.Checksum64 {
		return &Mismatch{"checksumCrc64nvme", fmt.Sprintf("%.64q was signed, %.64q is stored", s.Checksum64, o.Checksum64)}
	}
	return nil
}

func (s *Session) compareSize(o Object) *Mismatch {
	if s.Size >= 0 && o.Size != s.Size {
		return &Mismatch{"size", fmt.Sprintf("%d was signed, %d is stored", s.Size, o.Size)}
	}
	if s.Size < 0 && s.MaxBytes > 0 && o.Size > s.MaxBytes {
		return &Mismatch{"size", fmt.Sprintf("%d at most was signed, %d is stored", s.MaxBytes, o.Size)}
	}
	return nil
}

// maxRaces is how often a move is begun again because the session changed
// in between without ending.
const maxRaces = 8

// settle is move, of those who do not ask who moved it.
func (u *Uploads) settle(ctx context.Context, s *Session, how func(*Session) *Session) (*Session, error) {
	next, _, err := u.move(ctx, s, how)
	return next, err
}

// move moves an open session on, unless somebody else ended it: then theirs
// holds. It gives the answer to a confirmation of the session as it then stands.
func (u *Uploads) move(ctx context.Context, s *Session, how func(*Session) *Session) (next *Session, moved bool, err error) {
	for range maxRaces {
		next := how(s)
		err := u.Store.Transition(ctx, s.Status, next)
		switch {
		case err == nil:
			if next.Notice == NoticeDue && u.Woken != nil {
				u.Woken()
			}
			next, err = next.settled()
			return next, true, err
		case errors.Is(err, ErrNotFound):
			return nil, false, ErrNotFound
		case !errors.Is(err, ErrConflict):
			return s, false, unavailable("store the upload's new state", err)
		}
		theirs, err := u.Lookup(ctx, s.Namespace, s.UID, s.ID)
		if err != nil {
			return nil, false, err
		}
		// A sweep that put it off, say, changes nothing of what was seen: its
		// multipart upload is the same for as long as its state is.
		if theirs.Status != s.Status {
			theirs, err = theirs.settled()
			return theirs, false, err
		}
		s = theirs
	}
	return s, false, unavailable("store the upload's new state", ErrConflict)
}

// settled is the answer to a confirmation of a session that is no longer open.
func (s *Session) settled() (*Session, error) {
	field, reason, _ := strings.Cut(s.Reason, ": ")
	switch s.Status {
	case Ready:
		return s, nil
	case Rejected:
		return s, &Mismatch{field, reason}
	case Failed:
		if field == "key" {
			return s, ErrTaken
		}
		return s, ErrNoUpload
	case Aborted:
		return s, ErrState
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
