package cmd

import "sidegate/storage/audit"

// memoryDisk says that audit.dir ends with this process, or with its machine,
// so that no next start ships what is there.
func (g *gateway) memoryDisk() bool {
	return g.s.env.get(cloudRunVariable) != "" || diskOf(g.s.config.Audit.Dir) == diskMemory
}

// A lastResort is where events go that a stop could not ship, and that no disk
// keeps: to standard error, as they are, behind a line that says how many
// follow. It writes without the log's queue, which drops lines rather than
// wait; the ledger's Close bounds how long it may take.
type lastResort struct {
	g     *gateway
	begun bool
}

func (r *lastResort) Write(line []byte) (int, error) {
	if !r.begun {
		r.begun = true
		s := r.g.ledger.Stats()
		log := directLog(r.g.s)
		log.Error().Uint64("events", unshipped(&s)).Str("chain", s.Chain).Uint64("from_seq", s.Shipped+1).
			Msg("Firestore did not take the audit log's last events in time, and this disk is memory: they follow here, one a line")
	}
	return r.g.s.stderr.Write(line)
}

// tellUnshipped says what became of the events that a stop could not ship.
func (g *gateway) tellUnshipped(s audit.Stats) {
	left := unshipped(&s)
	switch {
	case left == 0:
	case !g.rescues:
		g.log.Warn().Int64("bytes", s.Waiting).Uint64("events", left).Msg("events wait in the audit log for Firestore; the next start ships them")
	case s.Rescued < left:
		g.log.Error().Uint64("events", left).Uint64("written", s.Rescued).Uint64("lost", left-s.Rescued).
			Msg("events of the audit log are lost: Firestore did not take them, this disk is memory, and standard error did not take them either")
	default:
		g.log.Warn().Uint64("events", left).Uint64("written", s.Rescued).Uint64("lost", 0).
			Msg("the audit log's last events are above, on standard error, and not all of them are in Firestore")
	}
}
