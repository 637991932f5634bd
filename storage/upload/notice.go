package upload

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"
)

// noticeDelays are how long after each attempt that failed the next one
// comes; after the last it is given up.
// https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
var noticeDelays = [...]time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

const (
	maxNotices = len(noticeDelays) + 1
	// noticeLease is how long an attempt may take at least before another
	// gateway makes the next: longer than any time-out of a notice.
	noticeLease = 2 * time.Minute
	// noticeTime is for how long one sweep begins to tell: whoever is told may
	// take long to answer, or hang, and sessions are to be ended all the same.
	noticeTime = 10 * time.Second
	// noticeLeft is for how long a gateway without a webhook leaves what is due to
	// those that have one.
	noticeLeft = time.Hour
	// maxTellLater bounds for how long a notice waits that one sweep had no time
	// for.
	maxTellLater = 10 * time.Minute
)

// telling reports whether the session is due to be told of.
func (s *Session) telling() bool { return !s.Status.Open() && s.Notice == NoticeDue }

// noticeClock says during one sweep whether there is time to tell. It starts
// with the first notice: a bucket that is slow takes none of it.
func (s *Sweeper) noticeClock() func() bool {
	begun := sync.OnceValue(s.Uploads.Now)
	return func() bool {
		first := begun()
		return s.Uploads.Now().Sub(first) <= noticeTime
	}
}

// tellLater puts a notice off that this sweep has no time for, and says whether
// that is stored. It is no attempt. The longer it waits already the longer it
// is put off, so that a receiver that hangs makes few writes.
func (s *Sweeper) tellLater(ctx context.Context, one *Session) bool {
	waited := s.Uploads.Now().Sub(cmp.Or(one.ReadyAt, one.RejectedAt))
	pause := min(max(waited, minRetry), maxTellLater)
	return s.move(ctx, one, func(next *Session) { next.Wake = s.at(pause + rand.N(pause/5+1)) }) == nil
}

// tell makes one attempt to tell of a session. It is claimed before, so that of
// several gateways one makes it, and one whose gateway is killed is made
// again: what is told twice has the same id.
func (s *Sweeper) tell(ctx context.Context, one *Session) (string, *Session, error) {
	if s.Notify == nil {
		return s.untold(ctx, one)
	}
	if one.Attempts >= maxNotices {
		return SweptNoticeGivenUp, one, s.move(ctx, one, func(next *Session) { s.told(next, NoticeGivenUp) })
	}
	delay := time.Duration(0)
	if one.Attempts < len(noticeDelays) {
		delay = noticeDelays[one.Attempts]
	}
	if err := s.move(ctx, one, func(next *Session) {
		next.Attempts++
		next.Wake = s.at(max(delay, noticeLease))
	}); err != nil {
		return "", one, err
	}
	told := *one
	if err := s.Notify.Notify(ctx, &told); err != nil {
		return s.notTold(ctx, one, delay, err)
	}
	// Not stored: it is told again.
	return SweptNotified, one, s.move(ctx, one, func(next *Session) { s.told(next, NoticeSent) })
}

// untold gives a notice up that nobody here can be told of. First it leaves it
// to other gateways for a while: while a configuration with a webhook is being
// rolled out, those that have it already share the sessions.
func (s *Sweeper) untold(ctx context.Context, one *Session) (string, *Session, error) {
	if s.Uploads.Now().Sub(one.Wake) < noticeLeft {
		return "", one, ErrConflict
	}
	return SweptNoticeGivenUp, one, s.move(ctx, one, func(next *Session) { s.told(next, NoticeGivenUp) })
}

// notTold has the next attempt made after the delay and up to a fifth more, so
// that what failed together does not come back together.
func (s *Sweeper) notTold(ctx context.Context, one *Session, delay time.Duration, why error) (string, *Session, error) {
	what := SweptNoticeFailed
	late := max(s.Uploads.Now().Sub(one.Wake), 0)
	err := s.move(ctx, one, func(next *Session) {
		if one.Attempts >= maxNotices || errors.Is(why, ErrGone) {
			what = SweptNoticeGivenUp
			s.told(next, NoticeGivenUp)
			return
		}
		next.Wake = s.at(delay + rand.N(delay/5+1))
	})
	s.report(Swept{Session: one, What: what, Err: why, Late: late})
	return "", one, err
}

// told ends a notice. What else there is to do for the session comes next.
func (s *Sweeper) told(next *Session, n Notice) {
	next.Notice, next.Wake = n, time.Time{}
	if next.untidy() {
		next.Wake = s.at(0)
	}
}

func (s *Sweeper) at(after time.Duration) time.Time {
	return s.Uploads.Now().UTC().Truncate(time.Millisecond).Add(after)
}
