package upload

import "time"

// begin is when the window of that moment begins.
func (q *Quota) begin(now time.Time) time.Time {
	if q.Window <= 0 {
		return time.Unix(0, 0).UTC() // one window for ever
	}
	at := now.UnixNano()
	into := at % int64(q.Window)
	if into < 0 {
		into += int64(q.Window)
	}
	return time.Unix(0, at-into).UTC()
}

// next is the time until the next window, in whole seconds and at least one.
func (q *Quota) next(now time.Time) time.Duration {
	left := q.begin(now).Add(q.Window).Sub(now)
	if rest := left % time.Second; rest > 0 {
		left += time.Second - rest
	}
	return max(left, time.Second)
}

// checkQuota refuses what a quota of bytes could not count.
func (r *Request) checkQuota() error {
	if r.Quota != nil && r.Quota.Bytes > 0 && r.Size < 0 {
		return &InvalidError{"size", "is needed: the quota counts bytes"}
	}
	return nil
}
