package policy

import "time"

// Spent is the limit that the request would have to wait for longest, the first of
// those in the list, and nil where all have something left: it is for saying, once
// Take refused, which one it was. It takes nothing. now is as for Take.
func (l *Limiter) Spent(limits []*Limit, in *Input, now time.Time) (spent *Limit) {
	when := l.moment(now)
	var longest time.Duration
	for _, limit := range limits {
		b, ok := l.budget(limit, in)
		if !ok {
			return limit
		}
		s := &l.shards[b.shard]
		s.mu.Lock()
		wait, _, has := b.draw(s.at(b.key, when), when)
		s.mu.Unlock()
		if !has && (spent == nil || wait > longest) {
			spent, longest = limit, wait
		}
	}
	return spent
}

// Held is how many budgets are kept: those that were drawn on and are, as far as
// anybody looked, not whole again.
func (l *Limiter) Held() int {
	n := 0
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		n += len(s.all)
		s.mu.Unlock()
	}
	return n
}
