package cmd

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"sidegate/storage/audit"
)

func newAuditRepair(env environment, stdout, stderr io.Writer) *cobra.Command {
	s := auditSource{env: env}
	var with checkpointFlags
	var ttl int
	c := &cobra.Command{
		Use:   "repair",
		Short: "Begin a new chain where the log is not what was written, and keep the evidence",
		Long: `Verify a ledger's folder. Where it is not what was written, move every file of it,
unaltered, into a folder damaged-TIME within, with a report, and begin a new chain
whose first event says so. Where it is, change nothing. The gateway must not run. A
repair that was interrupted is run again.

With --firestore, first store the events that were not shipped yet and can still be
read; an event that is stored already stays as it is.`,
		Example: "  sidegate audit repair --dir data/audit\n  sidegate audit repair --dir data/audit --firestore --project acme-prod",
		Args:    cobra.NoArgs,
	}
	f := c.Flags()
	f.StringVar(&s.dir, "dir", "data/audit", "the ledger's folder (audit.dir)")
	f.BoolVar(&s.firestore, "firestore", false, "first store what was not shipped and can be read")
	s.firestoreFlags(c)
	f.IntVar(&ttl, "ttl-days", 400, "with --firestore: days after which Firestore may delete these events (audit.firestore.ttl)")
	with.addKey(c)
	c.RunE = func(c *cobra.Command, _ []string) error {
		if ttl < 1 || ttl > 36600 {
			return usageError{fmt.Errorf("--ttl-days %d: give a number from 1 to 36600", ttl)}
		}
		keys, err := with.verifiers()
		if err != nil {
			return err
		}
		told := (&program{stderr: stderr}).progress("events read", false)
		o := audit.RepairOptions{Dir: s.dir, Gateway: audit.Gateway{Name: "sidegate audit repair", Version: readBuild().Version}, Keys: keys, Progress: told.tell}
		if s.firestore {
			client, log, err := s.openFor(c.Context(), time.Duration(ttl)*24*time.Hour)
			if err != nil {
				return err
			}
			defer client.Close()
			o.Sink = log
		}
		r, err := audit.RepairFolder(c.Context(), o)
		told.end()
		if errors.Is(err, audit.ErrLocked) {
			return fmt.Errorf("audit log %s: %w: stop the gateway first", s.dir, err)
		}
		if err != nil {
			return logError(s.dir, err)
		}
		return showRepaired(stdout, &r, s.dir, s.firestore)
	}
	return c
}

func showRepaired(w io.Writer, r *audit.Repaired, dir string, stored bool) error {
	p := printer{w: w}
	if !r.Damaged {
		p.line("%s is as it was written: nothing was changed", dir)
		return p.err
	}
	p.line("%s is not what was written:", dir)
	p.line("  %s", audit.Printable(r.Problem))
	if r.Seq > 0 {
		p.line("chain %s is vouched for up to seq %d, head %s", audit.Printable(r.Chain), r.Seq, r.Hash)
	} else {
		p.line("nothing of chain %s is vouched for", audit.Printable(r.Chain))
	}
	if stored && !r.Resumed {
		p.line("of the events that were not shipped %d are in Firestore now, and %d as their hash only; %d lines could not be read", r.Stored, r.Stubs, r.Unreadable)
	}
	p.line("everything that was there is in %s; keep it", r.Evidence)
	p.line("chain %s begins", r.NewChain)
	return p.err
}
