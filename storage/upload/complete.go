package upload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Complete makes the object of the parts, which must be what the store has, and
// moves the session to ready; parts nil: all that have arrived. Answers are
// those of [Uploads.Confirm], and [ErrState], [ErrParts] (still uploading).
// A whole that is larger than the session allows, or of another size than it
// says, is aborted and rejected. Asking again gives the same answer.
func (u *Uploads) Complete(ctx context.Context, s *Session, parts []Part) (*Session, error) {
	switch {
	case !s.Multipart || s.Status == Issued:
		return s, ErrState
	case !s.Status.Open():
		return s.settled()
	case u.Now().After(s.ConfirmBy):
		return u.Confirm(ctx, s)
	}
	bucket, err := u.bucket(s.Bucket)
	if err != nil {
		return s, err
	}
	stored, err := bucket.ListParts(ctx, s.Key, s.UploadID)
	if errors.Is(err, ErrNoUpload) {
		return u.completed(ctx, bucket, s)
	}
	if err != nil {
		return s, unavailable("list the parts", err)
	}
	if !sameParts(parts, stored) {
		return u.unlessCompleting(ctx, s, func(s *Session) (*Session, error) { return s, ErrParts })
	}
	if n := s.unsummed(stored); n != 0 {
		return s, fmt.Errorf("%w: the store does not say the SHA-256 of part %d", ErrParts, n)
	}
	if m := s.compareWhole(stored); m != nil {
		return u.unlessCompleting(ctx, s, func(s *Session) (*Session, error) { return u.reject(ctx, bucket, s, m) })
	}
	return u.complete(ctx, bucket, s, stored)
}

// completingFor is how long after CompletingAt a completion may be under way at
// the store: longer than anybody waits for its answer.
const completingFor = 2 * time.Minute

// completing reports whether the store may just be making the object.
func (s *Session) completing(now time.Time) bool {
	return !s.CompletingAt.IsZero() && now.Before(s.CompletingAt.Add(completingFor))
}

// announce puts on record that the store is about to be asked to make the
// object. It gives the session as it then stands, with the answer to who asks
// where somebody else has ended it.
func (u *Uploads) announce(ctx context.Context, s *Session) (*Session, error) {
	for range maxRaces {
		now := u.Now().UTC().Truncate(time.Millisecond)
		if now.Sub(s.CompletingAt) < completingFor/4 {
			return s, nil // another completion has just done so: that holds for this one, too
		}
		next := *s
		next.CompletingAt = now
		err := u.Store.Transition(ctx, s.Status, &next)
		switch {
		case err == nil:
			return &next, nil
		case errors.Is(err, ErrNotFound):
			return nil, ErrNotFound
		case !errors.Is(err, ErrConflict):
			return s, unavailable("put the completion on record", err)
		}
		if s, err = u.Lookup(ctx, s.Namespace, s.UID, s.ID); err != nil {
			return nil, err
		}
		if !s.Status.Open() {
			return s.settled()
		}
	}
	return s, unavailable("put the completion on record", ErrConflict)
}

func (u *Uploads) complete(ctx context.Context, bucket Bucket, s *Session, parts []Part) (*Session, error) {
	s, err := u.announce(ctx, s)
	if err != nil || !s.Status.Open() {
		return s, err
	}
	err = bucket.CompleteMultipart(ctx, Put{
		Key:         s.Key,
		ContentType: s.ContentType,
		Size:        s.Size,
		Checksum64:  s.Checksum64,
		Overwrite:   s.Overwrite,
	}, s.UploadID, parts)
	switch {
	case errors.Is(err, ErrNoUpload):
		return u.completed(ctx, bucket, s)
	case errors.Is(err, ErrTaken):
		return u.taken(ctx, bucket, s)
	case errors.Is(err, ErrParts):
		return s, ErrParts
	case err != nil:
		return s, unavailable("complete the multipart upload", err)
	}
	o, err := bucket.Head(ctx, s.Key)
	if err != nil {
		return s, unavailable("look at the completed object", err)
	}
	return u.settle(ctx, s, func(s *Session) *Session { return u.judged(s, o, u.Now().UTC()) })
}

// completed is the answer where the store no longer has the multipart upload:
// it was completed, and the answer was lost or somebody else's, or no object
// came of it.
func (u *Uploads) completed(ctx context.Context, bucket Bucket, s *Session) (*Session, error) {
	o, err := landed(ctx, bucket, s)
	if errors.Is(err, ErrNoObject) {
		return u.vanished(ctx, s)
	}
	if err != nil {
		return s, unavailable("look at the completed object", err)
	}
	return u.settle(ctx, s, func(s *Session) *Session { return u.judged(s, o, u.Now().UTC()) })
}

// vanished is the answer where neither the upload nor an object was at the
// store: nothing came of it, unless another completion is under way. Of a client
// that completes its upload itself that cannot be known, until it is over.
func (u *Uploads) vanished(ctx context.Context, s *Session) (*Session, error) {
	if s.Direct {
		return s, ErrNotUploaded
	}
	return u.unlessCompleting(ctx, s, func(s *Session) (*Session, error) {
		next := u.failed(s, "uploadId: the store no longer has the multipart upload")
		switch err := u.Store.Transition(ctx, s.Status, next); {
		case err == nil:
			return next.settled()
		case errors.Is(err, ErrNotFound):
			return nil, ErrNotFound
		default: // ErrConflict too: somebody else is at it
			return s, unavailable("store the upload's new state", err)
		}
	})
}

// unlessCompleting is the answer by what the store was seen to have, but for an
// upload that ended meanwhile or is just being completed. That is on record
// since before it began, so the session is read again.
func (u *Uploads) unlessCompleting(ctx context.Context, s *Session, answer func(*Session) (*Session, error)) (*Session, error) {
	s, err := u.Lookup(ctx, s.Namespace, s.UID, s.ID)
	switch {
	case err != nil:
		return nil, err
	case !s.Status.Open():
		return s.settled()
	case s.completing(u.Now()):
		return s, unavailable("look at the upload's parts", errors.New("the store may just be making the object"))
	}
	return answer(s)
}

// taken is the answer where the store refused because an object is there. It
// may be this session's own, by another completion at the same time: then the
// upload is gone.
func (u *Uploads) taken(ctx context.Context, bucket Bucket, s *Session) (*Session, error) {
	_, err := bucket.ListParts(ctx, s.Key, s.UploadID)
	if errors.Is(err, ErrNoUpload) {
		return u.completed(ctx, bucket, s)
	}
	if err != nil {
		return s, unavailable("list the parts", err)
	}
	s, err = u.settle(ctx, s, func(s *Session) *Session { return u.failed(s, "key: an object is there already") })
	if errors.Is(err, ErrTaken) {
		u.tidy(ctx, bucket, s)
	}
	return s, err
}

// failed is the session of which no object came.
func (u *Uploads) failed(s *Session, reason string) *Session {
	next := *s
	next.Status, next.Reason, next.Held = Failed, reason, false
	u.ended(&next, u.Now().UTC())
	return &next
}

// reject ends the session first and the multipart upload then: nobody can
// complete it meanwhile, and a sweep ends what could not be ended now.
func (u *Uploads) reject(ctx context.Context, bucket Bucket, s *Session, m *Mismatch) (*Session, error) {
	s, err := u.settle(ctx, s, func(s *Session) *Session { return u.rejected(s, m, u.Now().UTC()) })
	var mismatch *Mismatch
	if errors.As(err, &mismatch) {
		u.tidy(ctx, bucket, s)
	}
	return s, err
}

// compareWhole is how the whole of the parts differs from what the session
// allows.
func (s *Session) compareWhole(parts []Part) *Mismatch {
	whole := int64(0)
	for _, p := range parts {
		whole += p.Size
	}
	if s.Size >= 0 && whole != s.Size {
		return &Mismatch{"size", fmt.Sprintf("%d was signed, the parts have %d", s.Size, whole)}
	}
	if s.MaxBytes > 0 && whole > s.MaxBytes {
		return &Mismatch{"size", fmt.Sprintf("%d at most was signed, the parts have %d", s.MaxBytes, whole)}
	}
	return nil
}

// unsummed is the number of a part that came without the checksum that it was
// to have, and was checked against nothing; 0: there is none.
func (s *Session) unsummed(parts []Part) int {
	for _, p := range parts {
		if s.PartChecksums && p.Checksum == "" {
			return p.Number
		}
	}
	return 0
}

// mayComplete says why a client must not be given the call that completes its
// upload: nobody looks at the parts between it and the object.
func (u *Uploads) mayComplete(ctx context.Context, s *Session) error {
	bucket, err := u.bucket(s.Bucket)
	if err != nil {
		return err
	}
	parts, err := bucket.ListParts(ctx, s.Key, s.UploadID)
	if errors.Is(err, ErrNoUpload) {
		return ErrNoUpload
	}
	if err != nil {
		return unavailable("list the parts", err)
	}
	if m := s.compareWhole(parts); m != nil {
		_, err := u.unlessCompleting(ctx, s, func(s *Session) (*Session, error) { return u.reject(ctx, bucket, s, m) })
		return cmp.Or(err, ErrState) // it is ready meanwhile
	}
	return nil
}

// sameParts reports whether the parts that a caller names are those that the
// store has; nil names all. Quotes around an ETag are left out by some clients.
func sameParts(named, stored []Part) bool {
	if len(stored) == 0 || len(stored) > MaxParts {
		return false
	}
	if named == nil {
		return true
	}
	if len(named) != len(stored) {
		return false
	}
	byNumber := func(a, b Part) int { return a.Number - b.Number }
	named = slices.SortedFunc(slices.Values(named), byNumber)
	for i, p := range named {
		if p.Number != stored[i].Number || strings.Trim(p.ETag, `"`) != strings.Trim(stored[i].ETag, `"`) {
			return false
		}
	}
	return true
}

// Abort gives the upload up: the multipart upload is ended at the store, and
// the session is aborted. Asking again gives the same answer; [ErrState] where
// the session ended otherwise. Other errors are [ErrNotFound], or wrap
// [ErrUnavailable].
func (u *Uploads) Abort(ctx context.Context, s *Session) (*Session, error) {
	for range maxRaces {
		switch {
		case s.Status == Aborted:
			return s, nil
		case !s.Status.Open():
			return s, ErrState
		}
		next, err := u.abort(ctx, s)
		if next == nil || next.Status.Open() && next.Changes == s.Changes {
			return next, err
		}
		s = next // ended, or changed meanwhile
	}
	return s, unavailable("abort the upload", ErrConflict)
}

func (u *Uploads) abort(ctx context.Context, s *Session) (*Session, error) {
	now := u.Now().UTC()
	if !s.Multipart {
		return u.settle(ctx, s, func(s *Session) *Session { return s.givenUp() })
	}
	bucket, err := u.bucket(s.Bucket)
	if err != nil {
		return s, err
	}
	o, err := landed(ctx, bucket, s)
	if errors.Is(err, ErrNoObject) {
		var n int
		if n, err = u.abortLeft(ctx, bucket, s, nil); err != nil {
			return s, unavailable("abort the multipart upload", err)
		}
		if n == 0 && s.completing(now) {
			return s, unavailable("abort the multipart upload", errors.New("the store may be making the object"))
		}
		// Somebody may have completed it in between: an object says so, where
		// the key is nobody else's. Else it may be another's, and what was
		// counted stays counted.
		if o, err = landed(ctx, bucket, s); err == nil && !s.sole() {
			return u.abandon(ctx, s.abandoned(now, true), s.Status)
		}
	}
	switch {
	case err == nil:
		return u.settle(ctx, s, func(s *Session) *Session { return u.judged(s, o, now) })
	case !errors.Is(err, ErrNoObject):
		return s, unavailable("look at the uploaded object", err)
	}
	return u.abandon(ctx, s.abandoned(now, false), s.Status)
}

// abandon stores the aborted session, where it is still as it was seen.
func (u *Uploads) abandon(ctx context.Context, next *Session, from Status) (*Session, error) {
	switch err := u.Store.Transition(ctx, from, next); {
	case err == nil:
		return next.settled()
	case errors.Is(err, ErrConflict): // a completion may have begun: look again
		return u.Lookup(ctx, next.Namespace, next.UID, next.ID)
	case errors.Is(err, ErrNotFound):
		return nil, ErrNotFound
	default:
		return nil, unavailable("store the upload's new state", err)
	}
}

// abandoned is the multipart upload that its owner aborted; landed: an object
// is there that may be its own. A sweep looks once more, for what was under way:
// a part that was being sent, or another multipart upload that was being opened,
// by a gateway or with the URL that opens one. So it does for a completion, and
// what was counted is given back only then.
func (s *Session) abandoned(now time.Time, landed bool) *Session {
	next := *s
	next.Status, next.Held = Aborted, s.Held && (landed || s.Direct || s.completing(now))
	next.Wake = now.Truncate(time.Millisecond).Add(tidyAfter)
	if over := s.ExpiresAt.Add(s.grace()); s.Status == Issued && over.After(next.Wake) {
		next.Wake = over
	}
	if done := s.CompletingAt.Add(completingFor); s.completing(now) && done.After(next.Wake) {
		next.Wake = done
	}
	return &next
}

// givenUp is the single upload that its owner aborts. Its URL lives on, so what
// it counted is given back only when a sweep, after the URL's end, finds
// nothing there.
func (s *Session) givenUp() *Session {
	next := *s
	next.Status, next.Wake = Aborted, time.Time{}
	if s.Held || s.DeleteLate {
		next.Wake = s.ExpiresAt.Add(s.grace())
	}
	return &next
}

// abortLeft ends what is open at the store of this session's multipart uploads,
// after record (nil: it is on record) was called once, and says how many. One
// that lost a race, or whose beginner was killed, is known by its key alone.
func (u *Uploads) abortLeft(ctx context.Context, bucket Bucket, s *Session, record func() error) (int, error) {
	var ids []string
	if s.sole() {
		open, err := bucket.OpenMultiparts(ctx, s.Key)
		if err != nil {
			return 0, err
		}
		for _, o := range open {
			ids = append(ids, o.ID)
		}
	}
	if s.UploadID != "" && s.Status != Ready && !slices.Contains(ids, s.UploadID) {
		switch _, err := bucket.ListParts(ctx, s.Key, s.UploadID); {
		case err == nil:
			ids = append(ids, s.UploadID)
		case !errors.Is(err, ErrNoUpload):
			return 0, err
		}
	}
	if len(ids) > 0 && record != nil {
		if err := record(); err != nil {
			return 0, err
		}
	}
	for i, id := range ids {
		if err := bucket.AbortMultipart(ctx, s.Key, id); err != nil {
			return i, err
		}
	}
	return len(ids), nil
}

// tidy ends a rejected or failed session's multipart upload now. What it cannot
// do, a sweep does: it is told of nobody. A client that completes its upload
// itself may have done so just before: there the sweep looks for the object.
func (u *Uploads) tidy(ctx context.Context, bucket Bucket, s *Session) {
	if _, err := u.abortLeft(ctx, bucket, s, nil); err != nil || s.Notice == NoticeDue || s.Direct {
		return
	}
	next := *s
	next.Wake = time.Time{}
	if u.Store.Transition(ctx, s.Status, &next) == nil {
		*s = next
	}
}
