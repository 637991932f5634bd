package upload

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"
	"time"
)

// A Notifier tells somebody of an upload that ended. An error means that it is
// to be told again. It is safe for concurrent use.
type Notifier interface {
	Notify(ctx context.Context, s *Session) error
}

// A Sweeper ends sessions whose time is over, and has notices delivered. Several
// gateways may sweep one store: what each does is decided by a transition, so
// that one of them does it, and what is done at the bucket may be done twice.
type Sweeper struct {
	Uploads *Uploads
	Notify  Notifier // nil: nobody is told
	// Record puts on record what is about to be done to the bucket (late_deleted,
	// aborted); after an error it is not done now. It is safe for concurrent use.
	Record func(ctx context.Context, s *Session, what string) error
	// Report is called for what was done, for metrics and the log; it must not
	// block, and is safe for concurrent use.
	Report func(Swept)
}

// Swept is one thing that a sweep did, or could not do.
type Swept struct {
	Session *Session
	What    string // one of SweptWords
	Err     error
	Late    time.Duration // after the session's Wake
}

// What a sweep does.
const (
	SweptReady         = string(Ready)    // confirmed: nobody else was expected to
	SweptRejected      = string(Rejected) // the same, and what landed differs
	SweptExpired       = string(Expired)  // nothing was there
	SweptLateKept      = "late_kept"
	SweptLateDeleted   = "late_deleted"
	SweptMisfitDeleted = "misfit_deleted" // rejected, of another size than its client was let complete
	SweptAborted       = string(Aborted)  // a multipart upload was open
	SweptTidied        = "tidied"         // an ended session had nothing left
	SweptNotified      = "notified"
	SweptNoticeFailed  = "notice_failed" // it is tried again
	SweptNoticeGivenUp = "notice_given_up"
	SweptFailed        = "failed" // Swept.Err says why; it is tried again
)

// SweptWords are all that Swept.What can be.
var SweptWords = []string{SweptReady, SweptRejected, SweptExpired, SweptLateKept, SweptLateDeleted, SweptMisfitDeleted, SweptAborted, SweptTidied,
	SweptNotified, SweptNoticeFailed, SweptNoticeGivenUp, SweptFailed}

const (
	// lateGrace is how long after ConfirmBy a slow upload, which began before
	// its URL's end, is waited for at most.
	lateGrace = 5 * time.Minute
	// lastLook is when after its URL's end a sweep looks once more for what is to
	// be deleted where it is late. Stores look at a signature when a request
	// begins: one that is sent slowly lands whenever it is all there.
	lastLook = 24 * time.Hour
	// autoConfirmAfter is how long after the URL's end what nobody confirms
	// is looked at first. Parts have URLs of their own, so that a multipart
	// upload takes as long as it takes: the next looks come after pauses that
	// grow to maxLook.
	autoConfirmAfter = 5 * time.Second
	minLook, maxLook = 30 * time.Second, time.Hour
	// tidyAfter is when a sweep ends a multipart upload that the request which
	// ended its session did not.
	tidyAfter = time.Minute
	// What could not be done is tried again after as long as it is late, within
	// these bounds: the waiting doubles.
	minRetry, maxRetry = 30 * time.Second, time.Hour

	// soonest is the least time between two sweeps that nothing asked for: what
	// stays due, because it cannot even be put off, must not keep a gateway busy.
	soonest = 5 * time.Second

	sweepPage    = 100
	sweepWorkers = 8
	// maxVersions is how many versions of a late object one look deletes.
	maxVersions = 16
)

// grace is how long a session is left alone after its end. Of a multipart upload
// it is longer than a completion can be under way that began just in time.
func (s *Session) grace() time.Duration {
	if s.Multipart {
		return lateGrace
	}
	return min(lateGrace, s.ExpiresAt.Sub(s.CreatedAt))
}

// over is when a sweep ends the session, if nobody has.
func (s *Session) over() time.Time { return s.ConfirmBy.Add(s.grace()) }

// looksAgain is when a sweep looks for a late object of an ended session that
// it has nothing else to do for: never (zero) but for one PUT that is deleted,
// and for what its client may be completing yet.
func (s *Session) looksAgain(now time.Time) (at time.Time) {
	switch {
	case s.Direct && s.sole() && (s.Status == Aborted || s.misfit()):
		at = s.over()
	case !s.Multipart && s.DeleteLate && (s.Status == Expired || s.Status == Aborted):
		at = s.ExpiresAt.Add(lastLook)
	}
	if !now.Before(at) {
		return time.Time{}
	}
	return at
}

// again is when a sweep looks next at what nobody confirms and has not landed
// yet: after as long as it has been waited for since the URL's end, so that an
// upload of n minutes is ready some n minutes later at most. There is no look
// between ConfirmBy and the session's end, which would take the grace away.
func (s *Session) again(now time.Time) time.Time {
	pause := min(max(now.Sub(s.ExpiresAt), minLook), maxLook)
	if next := now.Truncate(time.Millisecond).Add(pause); next.Before(s.ConfirmBy) {
		return next
	}
	return s.over()
}

// ended sets who is to look at a session that has just ended.
func (u *Uploads) ended(next *Session, now time.Time) {
	now = now.Truncate(time.Millisecond)
	next.Wake = time.Time{}
	switch {
	case u.Notices && (next.Status == Ready || next.Status == Rejected):
		next.Notice, next.Wake = NoticeDue, now
	case next.untidy():
		next.Wake = now.Add(tidyAfter)
	}
}

// untidy reports whether the ended session may have multipart uploads open at
// the store: its own, or such as lost a race to be it.
func (s *Session) untidy() bool {
	if s.Status == Ready {
		return s.Multipart && s.sole() && (s.Request != "" || s.AutoConfirm)
	}
	return s.Multipart
}

// Sweep looks at every session that is due, until none is or the context ends.
// It gives how many it moved. An error wraps [ErrUnavailable]: it is not known
// what is due. What could not be done for one session goes to Report, and is
// tried again by a later sweep.
func (s *Sweeper) Sweep(ctx context.Context) (int, error) {
	moved, unread := 0, error(nil)
	stuck := map[string]bool{} // not to be looked at again now
	mayTell := s.noticeClock()
	for ctx.Err() == nil {
		// Twice as many: pages that grow by one size would read all of them each time.
		due, err := s.Uploads.Index.Due(ctx, s.Uploads.Now().UTC(), sweepPage+2*len(stuck))
		n, tried := s.page(ctx, due, stuck, mayTell)
		moved += n
		if err != nil { // of some: one that cannot be read holds up no other
			unread = unavailable("look for sessions that are due", err)
		}
		if tried == 0 {
			break
		}
	}
	if ctx.Err() != nil {
		return moved, nil
	}
	return moved, unread
}

// Next is how long the next sweep can wait: until the first session is due, and
// at most longest. Where that cannot be told it is longest.
func (s *Sweeper) Next(ctx context.Context, longest time.Duration) time.Duration {
	now := s.Uploads.Now().UTC()
	ahead, err := s.Uploads.Index.Due(ctx, now.Add(longest), 1)
	if err != nil || len(ahead) == 0 {
		return longest
	}
	return min(max(ahead[0].Wake.Sub(now), soonest), longest)
}

// page looks at the sessions but for those that are stuck, several at once, and
// tells of those that it may. It gives how many it moved, and tried.
func (s *Sweeper) page(ctx context.Context, due []*Session, stuck map[string]bool, mayTell func() bool) (moved, tried int) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	work := make(chan *Session)
	for range min(sweepWorkers, len(due)) {
		wg.Go(func() {
			for one := range work {
				did, fast := s.one(ctx, one, mayTell)
				mu.Lock()
				if did {
					moved++
				}
				if fast {
					stuck[one.ID] = true
				}
				mu.Unlock()
			}
		})
	}
	for _, one := range due {
		mu.Lock()
		skip := stuck[one.ID]
		mu.Unlock()
		if skip || ctx.Err() != nil {
			continue
		}
		tried++
		work <- one
	}
	close(work)
	wg.Wait()
	return moved, tried
}

// one looks at one session: whether it moved it, and whether this sweep should
// not look at it again: what it was found by may be older than what is stored.
func (s *Sweeper) one(ctx context.Context, one *Session, mayTell func() bool) (moved, stuck bool) {
	if one.telling() && !mayTell() {
		return false, !s.tellLater(ctx, one)
	}
	late := max(s.Uploads.Now().Sub(one.Wake), 0)
	what, now, err := s.guarded(ctx, one)
	switch {
	case errors.Is(err, ErrConflict), errors.Is(err, ErrNotFound):
		return false, true // somebody else was first
	case err != nil && ctx.Err() != nil:
		return false, true // this gateway stops
	case err != nil:
		s.report(Swept{Session: now, What: SweptFailed, Err: err, Late: late})
		return false, !s.putOff(ctx, now)
	case what == "":
		return false, false // put off
	}
	s.report(Swept{Session: now, What: what, Late: late})
	return true, false
}

// guarded is look, of which a panic is a failure: what one session holds must not
// end the gateway, and again at each start.
func (s *Sweeper) guarded(ctx context.Context, one *Session) (what string, now *Session, err error) {
	defer func() {
		if broken := recover(); broken != nil {
			what, now, err = "", one, fmt.Errorf("%w: panic: %v\n%s", ErrUnavailable, broken, debug.Stack())
		}
	}()
	return s.look(ctx, one)
}

func (s *Sweeper) report(swept Swept) {
	if s.Report != nil {
		s.Report(swept)
	}
}

// putOff has the session looked at again later, and says whether it is stored.
func (s *Sweeper) putOff(ctx context.Context, one *Session) bool {
	now := s.Uploads.Now().UTC().Truncate(time.Millisecond)
	next := *one
	next.Wake = now.Add(min(max(now.Sub(one.ConfirmBy), minRetry), maxRetry))
	return s.Uploads.Store.Transition(ctx, one.Status, &next) == nil
}

// look does what the session is due for, and says what that was and how the
// session then stands. ErrConflict says that somebody else did.
func (s *Sweeper) look(ctx context.Context, one *Session) (what string, now *Session, err error) {
	switch {
	case one.Status.Open():
		return s.end(ctx, one)
	case one.telling():
		s.deleteMisfit(ctx, one) // a receiver can be away for days
		return s.tell(ctx, one)
	}
	return s.resolve(ctx, one)
}

// end confirms a session that nobody is expected to confirm, and expires what
// is over.
func (s *Sweeper) end(ctx context.Context, one *Session) (string, *Session, error) {
	u := s.Uploads
	next, moved, err := u.confirm(ctx, one, one.over())
	switch {
	case errors.Is(err, ErrNotUploaded):
		return "", next, s.move(ctx, next, func(next *Session) { next.Wake = next.again(u.Now().UTC()) })
	case next == nil || next.Status.Open():
		return "", one, err
	case !moved:
		return "", next, ErrConflict
	case next.Status != Expired:
		return string(next.Status), next, nil
	case u.Now().Before(next.Wake):
		return "", next, nil // more may land
	}
	return s.resolve(ctx, next)
}

// move stores a change of a session that stays in its state, in one too.
func (s *Sweeper) move(ctx context.Context, one *Session, change func(next *Session)) error {
	next := *one
	change(&next)
	if err := s.Uploads.Store.Transition(ctx, one.Status, &next); err != nil {
		if errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) {
			return err
		}
		return unavailable("store the upload's new state", err)
	}
	*one = next
	return nil
}

const (
	lateKept     = "late: kept"
	lateDeleting = "late: to be deleted"
	lateDeleted  = "late: deleted"
)

// resolve looks after what an ended session has left at the store. It can be
// done again from its beginning at any time: Wake goes last.
func (s *Sweeper) resolve(ctx context.Context, one *Session) (string, *Session, error) {
	bucket, err := s.Uploads.bucket(one.Bucket)
	if err != nil {
		return "", one, err
	}
	// Before its multipart upload is ended: afterwards an object under a key
	// that several share could not be told from another's.
	o, found := left(ctx, bucket, one)
	if found != nil && !errors.Is(found, ErrNoObject) {
		return "", one, unavailable("look at the uploaded object", found)
	}
	what := SweptTidied
	if one.Status == Expired && !one.Wake.Equal(one.ExpiresAt.Add(lastLook)) {
		what = SweptExpired
	}
	if one.Multipart {
		n, err := s.Uploads.abortLeft(ctx, bucket, one, func() error { return s.record(ctx, one, SweptAborted) })
		if err != nil {
			return "", one, unavailable("abort the multipart upload", err)
		}
		if n > 0 {
			what = SweptAborted
		}
		if n > 0 && one.sole() { // a completion may have got in before it was ended
			if o, found = left(ctx, bucket, one); found != nil && !errors.Is(found, ErrNoObject) {
				return "", one, unavailable("look at the uploaded object", found)
			}
		}
	}
	if found == nil && one.misfit() {
		if err := s.removeMisfit(ctx, bucket, one, o); err != nil {
			return "", one, err
		}
		return SweptMisfitDeleted, one, s.move(ctx, one, func(next *Session) { next.Wake = time.Time{} })
	}
	if found == nil && !one.DeleteLate && !one.exceeds(o) {
		return SweptLateKept, one, s.move(ctx, one, func(next *Session) { next.Reason, next.Wake = lateKept, time.Time{} })
	}
	if found == nil {
		if err := s.deleteLate(ctx, bucket, one, o); err != nil {
			return "", one, err
		}
	}
	err = s.move(ctx, one, func(next *Session) {
		next.Wake = one.looksAgain(s.Uploads.Now())
		if one.Status == Expired || one.Status == Aborted {
			next.Held = false // nothing is there
		}
		if one.Reason == lateDeleting {
			next.Reason, what = lateDeleted, SweptLateDeleted
		}
	})
	return what, one, err
}

// left is the object that an ended session may have left where nobody minds it,
// or ErrNoObject.
func left(ctx context.Context, bucket Bucket, one *Session) (Object, error) {
	if one.Status == Expired || one.Status == Aborted && (!one.Multipart || one.Held || one.sole()) || one.misfit() {
		return landed(ctx, bucket, one)
	}
	return Object{}, ErrNoObject
}

// misfit reports whether the session was rejected for an object that only its
// client could make: in parts of another size than were looked at before the
// call that completes them was signed. It does not stay, since what the policy
// allows at most would bind nobody who means ill.
func (s *Session) misfit() bool {
	return s.Status == Rejected && s.Direct && s.sole() && strings.HasPrefix(s.Reason, "size: ")
}

func (s *Sweeper) removeMisfit(ctx context.Context, bucket Bucket, one *Session, o Object) error {
	if err := s.record(ctx, one, SweptMisfitDeleted); err != nil {
		return err
	}
	return remove(ctx, bucket, one, o)
}

// deleteMisfit deletes what does not stay before somebody is told of it. What it
// cannot do is done afterwards.
func (s *Sweeper) deleteMisfit(ctx context.Context, one *Session) {
	bucket, err := s.Uploads.bucket(one.Bucket)
	if err != nil || !one.misfit() {
		return
	}
	o, err := left(ctx, bucket, one)
	if err != nil || s.removeMisfit(ctx, bucket, one, o) != nil {
		return
	}
	s.report(Swept{Session: one, What: SweptMisfitDeleted, Late: max(s.Uploads.Now().Sub(one.Wake), 0)})
}

// exceeds reports the same of what such a client completed so late that nobody
// judged it.
func (s *Session) exceeds(o Object) bool { return s.Direct && s.sole() && s.compareSize(o) != nil }

// deleteLate deletes what landed: first the session says so, then the record,
// then it is done.
func (s *Sweeper) deleteLate(ctx context.Context, bucket Bucket, one *Session, o Object) error {
	err := s.move(ctx, one, func(next *Session) {
		next.Reason, next.ETag, next.VersionID = lateDeleting, o.ETag, o.VersionID
	})
	if err != nil {
		return err
	}
	if err := s.record(ctx, one, SweptLateDeleted); err != nil {
		return err
	}
	return remove(ctx, bucket, one, o)
}

// remove deletes the session's object. With versions, those below the newest are
// this session's too: its key is nobody else's.
func remove(ctx context.Context, bucket Bucket, one *Session, o Object) error {
	for range maxVersions {
		if err := bucket.Delete(ctx, one.Key, o.VersionID); err != nil {
			return unavailable("delete the object", err)
		}
		var err error
		if o, err = landed(ctx, bucket, one); errors.Is(err, ErrNoObject) {
			return nil
		}
		if err != nil {
			return unavailable("look at the object", err)
		}
	}
	return unavailable("delete the object", fmt.Errorf("more than %d versions are there", maxVersions))
}

func (s *Sweeper) record(ctx context.Context, one *Session, what string) error {
	if s.Record == nil {
		return fmt.Errorf("%w: there is nowhere to put %s on record", ErrUnavailable, what)
	}
	if err := s.Record(ctx, one, what); err != nil {
		return unavailable("put "+what+" on record", err)
	}
	return nil
}
