package upload

import (
	"errors"
	"math"
	"testing"
	"time"
)

func TestUsageNeverExceedsTheQuota(t *testing.T) {
	at := time.Date(2026, 3, 2, 10, 20, 0, 0, time.UTC)
	for _, c := range []struct {
		u    Usage
		n    int64
		q    Quota
		what string // of the QuotaError; "-": another error
	}{
		{Usage{}, 10, Quota{Bytes: 10}, ""},
		{Usage{}, 11, Quota{Bytes: 10}, "bytes"},
		{Usage{5, 4}, 6, Quota{Bytes: 10}, ""},
		{Usage{5, 5}, 6, Quota{Bytes: 10}, "bytes"},
		{Usage{5, 50}, 0, Quota{Bytes: 10}, "bytes"}, // the quota became smaller meanwhile
		{Usage{5, 50}, 1, Quota{Objects: 5}, "objects"},
		{Usage{4, 50}, 1, Quota{Objects: 5}, ""},
		{Usage{5, 10}, 1, Quota{Objects: 5, Bytes: 10}, "objects"},
		{Usage{0, 0}, math.MaxInt64, Quota{Bytes: 10}, "bytes"},
		{Usage{0, 1}, math.MaxInt64, Quota{Bytes: math.MaxInt64}, "-"},
		{Usage{-1, 0}, 1, Quota{Objects: 5}, "-"},
		{Usage{0, -1}, 1, Quota{Objects: 5}, "-"},
		{Usage{math.MaxInt64, 0}, 1, Quota{Bytes: 5}, "-"},
	} {
		c.q.Window = time.Hour
		s := &Session{CreatedAt: at, QuotaWindow: at.Truncate(time.Hour), Counted: c.n}
		got, err := c.u.Add(s, &c.q)
		var over *QuotaError
		switch errors.As(err, &over) {
		case true:
			if over.What != c.what || over.Retry != 40*time.Minute || got != c.u {
				t.Errorf("%+v: %+v, %+v", c, over, got)
			}
		case false:
			if (err == nil) != (c.what == "") || err == nil && got != (Usage{c.u.Objects + 1, c.u.Bytes + c.n}) {
				t.Errorf("%+v: %+v, %v", c, got, err)
			}
			if err == nil && got.Sub(s) != c.u {
				t.Errorf("%+v: given back, %+v", c, got.Sub(s))
			}
		}
	}
	if got := (Usage{}).Sub(&Session{Counted: 5}); got != (Usage{}) {
		t.Errorf("less than nothing: %+v", got)
	}
}
