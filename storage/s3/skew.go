package s3

import (
	"net/http"
	"sync/atomic"
	"time"
)

// A skew is how far the store's clock is ahead of this machine's, as its last
// answer said.
type skew struct {
	now  func() time.Time
	last atomic.Pointer[time.Duration] // nil: no answer yet
}

// maxRoundTrip is the longest that an answer may have taken and still say
// something: its Date is read as that of the middle.
const maxRoundTrip = 2 * time.Second

// measure reads the Date of an answer, which is cut to whole seconds. What came
// out of a cache says nothing.
func (s *skew) measure(header http.Header, begin, end time.Time) {
	took := end.Sub(begin)
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil || header.Get("Age") != "" || took < 0 || took > maxRoundTrip {
		return
	}
	d := date.Add(time.Second / 2).Sub(begin.Add(took / 2))
	s.last.Store(&d)
}

// Skew is how far the store's clock is ahead of this machine's (below 0:
// behind), to about a second, as the last answer of the store said; false where
// there was none yet. S3 refuses requests that are more than 15 minutes off, and
// URLs that begin in its future.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html (RequestTimeTooSkewed)
func (b *Bucket) Skew() (time.Duration, bool) {
	d := b.skew.last.Load()
	if d == nil {
		return 0, false
	}
	return *d, true
}
