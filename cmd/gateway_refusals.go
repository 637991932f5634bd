package cmd

import (
	"context"
	"time"
)

// refusalFlush is how often counted refusals are put on record: as often as the
// proxy begins to write them in full again.
const refusalFlush = time.Minute

// flushRefusals puts counted refusals on record until ctx ends. The last ones are
// shutdown's.
func (g *gateway) flushRefusals(ctx context.Context) {
	tick := time.NewTicker(refusalFlush)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := g.proxy.FlushRefusals(ctx, false); err != nil {
				g.log.Warn().Err(err).Msg("the audit log does not take the counts of refusals now; they are kept for the next minute")
			}
		}
	}
}

// flushLastRefusals is for when no request is running any more.
func (g *gateway) flushLastRefusals(ctx context.Context) {
	if err := g.proxy.FlushRefusals(ctx, true); err != nil {
		g.log.Error().Err(err).Msg("the audit log does not have the last counts of refusals")
	}
}
