package cmd

import (
	"context"
	"time"

	"sidegate/storage/audit"
)

// ledgerWatch is how often the ledger is looked at for the log.
const ledgerWatch = time.Second

// watchLedger says in the log when the audit log's disk, Firestore or its copy
// begin or end to fail, once for each change, with the cause.
func (g *gateway) watchLedger(ctx context.Context) {
	tick := time.NewTicker(ledgerWatch)
	defer tick.Stop()
	var before audit.Stats
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			before = g.tellLedger(before, g.ledger.Stats())
		}
	}
}

func (g *gateway) tellLedger(before, now audit.Stats) audit.Stats {
	tell := func(was, is error, broken, mended string) {
		switch {
		case is != nil && was == nil:
			g.log.Error().Err(is).Int64("waiting_bytes", now.Waiting).Msg(broken)
		case is == nil && was != nil:
			g.log.Info().Msg(mended)
		}
	}
	tell(before.Failure, now.Failure, "the audit log cannot be written: requests get 503 until it can", "the audit log is written again")
	tell(before.Oversize, now.Oversize, "the audit log cannot begin a new segment and goes on in the old one", "the audit log begins new segments again")
	tell(before.Outage, now.Outage, "Firestore does not take the audit log's events; they wait on disk", "Firestore takes the audit log's events again")
	tell(before.CopyError, now.CopyError, "the copy of the audit log on standard output stands still", "the copy of the audit log goes on")
	tell(before.CheckpointError, now.CheckpointError, "the audit log's checkpoints cannot be written", "the audit log's checkpoints are written again")
	tell(before.HeadError, now.HeadError, "Firestore does not take the audit log's checkpoint", "Firestore takes the audit log's checkpoints again")
	tell(before.RetentionError, now.RetentionError, "the audit log's old files are not deleted", "the audit log's old files are deleted again")
	if n := now.Unstorable - before.Unstorable; n > 0 {
		g.log.Error().Int("events", n).Msg("Firestore will never take these events: they are in the dead-letter file beside the ledger, and a stub stands in their place")
	}
	return now
}
