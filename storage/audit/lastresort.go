package audit

import (
	"context"
	"fmt"
	"time"
)

// rescueReserve is the part of what is left of Close's time that is kept for
// the last resort: a quarter.
const rescueReserve = 4

// shippingTime is how long Close may go on shipping: all of its time where the
// folder is there for the next start, else what the last resort leaves.
func (l *Ledger) shippingTime(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if l.opt.LastResort == nil || !ok {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, end.Add(-time.Until(end)/rescueReserve))
}

// rescue hands what is not shipped to the last resort, until ctx ends. It is
// called when the shipper has ended. A LastResort that blocks keeps a
// goroutine, and the caller no longer than ctx.
func (l *Ledger) rescue(ctx context.Context) error {
	if l.opt.LastResort == nil {
		return nil
	}
	l.mu.Lock()
	from, to := l.ship.saved, l.written.seq
	l.mu.Unlock()
	if from.Seq == to {
		return nil
	}
	over := make(chan error, 1)
	go func() { over <- l.rescueLines(ctx, from, to) }()
	var err error
	select {
	case err = <-over:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("events that were not shipped could not all be handed to the last resort: %w", err)
	}
	return nil
}

func (l *Ledger) rescueLines(ctx context.Context, from resume, to uint64) error {
	c := from.cursor(l.opt.Dir)
	defer c.release()
	for c.last < to {
		line, err := c.next()
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			_, err = l.opt.LastResort.Write(line.Raw[:len(line.Raw)+1]) // its line feed is behind it
		}
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.ship.rescued++
		l.mu.Unlock()
	}
	return nil
}
