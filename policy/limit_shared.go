package policy

import (
	"crypto/sha256"
	"time"
)

// A Draw is one request taken from one budget, for a store of budgets that
// several gateways share: gateways with the same limit make the same Draw of the
// same caller. The rate and the burst are the Limit's.
type Draw struct {
	// Key tells the budget from all others of this policy: a SHA-256, cut off, of
	// the limit and of whose budget it is. Nobody's uid or address stands in it,
	// but who knows which there are can try them. Nobody makes two budgets meet:
	// that would be a collision of 192 bits.
	Key    [24]byte
	Count  int
	Period time.Duration
	Burst  int
}

// Draws appends what a request takes from each of the limits. It is not ok where
// in does not say whose budget one is (see [Limiter.Take]): then nobody is let
// through. No limit may be there twice.
func Draws(to []Draw, limits []*Limit, in *Input) (_ []Draw, ok bool) {
	var room [512]byte
	for _, l := range limits {
		if !l.valid() {
			return nil, false
		}
		name, ok := l.appendName(room[:0], in)
		if !ok {
			return nil, false
		}
		d := Draw{Count: l.Count, Period: l.Period, Burst: l.Burst}
		sum := sha256.Sum256(name)
		copy(d.Key[:], sum[:])
		to = append(to, d)
	}
	return to, true
}
