package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sidegate/storage/audit"
	"sidegate/storage/firestore"
)

// newAuditCommand reads audit logs; the gateway need not run.
func newAuditCommand(env environment, stdout, stderr io.Writer) *cobra.Command {
	p := &program{env: env, stdout: stdout, stderr: stderr}
	c := &cobra.Command{
		Use:     "audit",
		Short:   "Read, verify and repair the audit log",
		Long:    "Read, verify and repair the audit log: a ledger's folder or, with --firestore, a collection.",
		Example: "  sidegate audit tail -f\n  sidegate audit query --uid u1 --since 7d\n  sidegate audit verify",
	}
	c.AddCommand(newAuditTail(env, stdout, stderr), p.newAuditQuery(), p.newAuditExport(),
		newAuditVerify(env, stdout, stderr), newAuditRepair(env, stdout, stderr), newAuditKeygen(stdout))
	return c
}

// An auditSource is where a log is read from.
type auditSource struct {
	dir       string
	firestore bool
	options   firestore.Options
	name      string // of the collection
	emulator  bool   // FIRESTORE_EMULATOR_HOST counts
	env       environment
}

func (s *auditSource) flags(c *cobra.Command) {
	s.flagsAs(c, "dir")
	c.Args = cobra.NoArgs
}

// flagsAs has the folder's flag under another name.
func (s *auditSource) flagsAs(c *cobra.Command, dir string) {
	f := c.Flags()
	f.StringVar(&s.dir, dir, "data/audit", "the ledger's folder (audit.dir)")
	f.BoolVar(&s.firestore, "firestore", false, "read the collection in Firestore instead")
	s.firestoreFlags(c)
	c.MarkFlagsMutuallyExclusive(dir, "firestore")
}

// firestoreFlags say where the collection is.
func (s *auditSource) firestoreFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.options.Project, "project", "", "with --firestore: the Google Cloud project (default $GOOGLE_CLOUD_PROJECT)")
	f.StringVar(&s.options.Database, "database", "(default)", "with --firestore: the database")
	f.StringVar(&s.name, "collection", "auditLog", "with --firestore: the collection")
	f.BoolVar(&s.emulator, "insecure-emulator", false, "with --firestore: allow FIRESTORE_EMULATOR_HOST, asked without TLS and credentials")
}

// logError says which log it is, and what to do where it is not there.
func logError(where string, err error) error {
	if _, serr := os.Stat(where); errors.Is(err, fs.ErrNotExist) && errors.Is(serr, fs.ErrNotExist) {
		return fmt.Errorf("audit log %s: %w: give the folder that audit.dir of sidegate.yaml names", where, err)
	}
	return fmt.Errorf("audit log %s: %w", where, err)
}

// open connects to the collection, to read it.
func (s *auditSource) open(ctx context.Context) (*firestore.Client, *firestore.Audit, error) {
	return s.openFor(ctx, 0)
}

// openFor connects to the collection; what is stored there may be deleted after
// ttl.
func (s *auditSource) openFor(ctx context.Context, ttl time.Duration) (*firestore.Client, *firestore.Audit, error) {
	if s.options.Project == "" {
		s.options.Project = s.env.get("GOOGLE_CLOUD_PROJECT")
	}
	if s.options.Project == "" {
		return nil, nil, usageError{errors.New("--firestore needs --project, or GOOGLE_CLOUD_PROJECT")}
	}
	host := s.env.get("FIRESTORE_EMULATOR_HOST")
	if host != "" && !s.emulator {
		return nil, nil, errors.New("FIRESTORE_EMULATOR_HOST is set: unset it, or add --insecure-emulator to read the emulator's collection")
	}
	s.options.Emulator = host
	client, err := firestore.Connect(ctx, s.options)
	if err != nil {
		return nil, nil, err
	}
	return client, client.Audit(s.name, ttl), nil
}

func newAuditTail(env environment, stdout, stderr io.Writer) *cobra.Command {
	s := auditSource{env: env}
	var follow, asJSON bool
	var n int
	c := &cobra.Command{
		Use:   "tail",
		Short: "Show the last events",
		Long: `Show the last events, one line each: time, effect or type, status, method and
path, who (identity:uid), route/rule, bucket/key. What steers a terminal is escaped.
Of refusals that were only counted: how many, whose, and counts by route and code.
With --firestore -f, the last ten minutes are read again every two seconds, at most
10,000 events of each of eight shards, and each read is paid for; an event that was
shipped later than that is not shown.`,
		Example: "  sidegate audit tail -n 20\n  sidegate audit tail -f --json | jq .request.path\n" +
			"  sidegate audit tail --firestore --project acme-prod",
	}
	s.flags(c)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with new events until interrupted")
	c.Flags().IntVarP(&n, "lines", "n", 10, "how many of the last events, up to 10,000")
	c.Flags().BoolVar(&asJSON, "json", false, "the lines as they are stored")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if n < 0 || n > 10_000 {
			return usageError{fmt.Errorf("-n %d: give a number from 0 to 10000", n)}
		}
		b := broken{w: stderr}
		show := func(l *audit.Line) error {
			if err := l.OneLine(); err != nil {
				return b.note(err)
			}
			return b.note(showLine(stdout, l, asJSON))
		}
		if s.firestore {
			return b.result(s.where(), s.tailFirestore(c.Context(), n, follow, show, &b))
		}
		return b.result(s.where(), s.tailFolder(c.Context(), n, follow, show))
	}
	return c
}

func (s *auditSource) tailFolder(ctx context.Context, n int, follow bool, show func(*audit.Line) error) error {
	if !follow {
		lines, err := audit.Tail(s.dir, n)
		if err != nil {
			return err
		}
		for i := range lines {
			if err := show(&lines[i]); err != nil {
				return err
			}
		}
		return nil
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for l, err := range audit.Follow(ctx, s.dir, n, tick.C) {
		if err != nil {
			return err
		}
		if err := show(&l); err != nil {
			return err
		}
	}
	return nil
}

func (s *auditSource) tailFirestore(ctx context.Context, n int, follow bool, show func(*audit.Line) error, b *broken) error {
	client, log, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	t := collectionTail{read: log.Tail, show: show, broken: b, seen: map[lineKey]time.Time{}}
	if !follow {
		return t.newest(ctx, n)
	}
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	return t.follow(ctx, n, tick.C)
}

// auditLate is how late an event may come to Firestore and still be followed.
const auditLate = 10 * time.Minute

// A collectionTail shows the end of a collection, which is asked for again and
// again: what comes late is not at the end.
type collectionTail struct {
	read   func(ctx context.Context, n int, since time.Time) iter.Seq2[audit.Line, error]
	show   func(*audit.Line) error
	broken *broken
	seen   map[lineKey]time.Time // when, or the line's own time where that is later
}

type lineKey struct {
	chain string
	seq   uint64
	name  string // of the document
}

// A readError is the collection's, and not of one document.
type readError struct{ error }

func (e readError) Unwrap() error { return e.error }

func keyOf(l *audit.Line) lineKey { return lineKey{l.Chain, l.Seq, l.File} }

// newest shows the last n events.
func (t *collectionTail) newest(ctx context.Context, n int) error {
	if err := t.each(ctx, t.read(ctx, n, time.Time{}), t.tell); err != nil {
		return err
	}
	return ctx.Err() // not all of them were shown
}

// follow shows the last n events and then every new one, until ctx ends.
func (t *collectionTail) follow(ctx context.Context, n int, tick <-chan time.Time) error {
	// What is there before the first is shown is not new, however late it came.
	err := t.each(ctx, t.late(ctx), func(l *audit.Line, _ error) error {
		t.see(l)
		return nil
	})
	if err != nil {
		return err
	}
	err = t.each(ctx, t.read(ctx, n, time.Time{}), func(l *audit.Line, err error) error {
		t.see(l)
		return t.tell(l, err)
	})
	for err == nil {
		select {
		case <-tick:
		case <-ctx.Done():
			return nil
		}
		err = t.each(ctx, t.late(ctx), func(l *audit.Line, err error) error {
			if _, ok := t.seen[keyOf(l)]; ok {
				return nil
			}
			t.see(l)
			return t.tell(l, err)
		})
		if away := (readError{}); errors.As(err, &away) { // it answered before, and may again
			fmt.Fprintln(t.broken.w, "note: not followed now, and tried again:", audit.Printable(err.Error()))
			err = nil
		}
		for k, at := range t.seen {
			if time.Since(at) > 2*auditLate {
				delete(t.seen, k)
			}
		}
	}
	return err
}

// late is all that may be new.
func (t *collectionTail) late(ctx context.Context) iter.Seq2[audit.Line, error] {
	return t.read(ctx, 10_000, time.Now().Add(-auditLate))
}

func (t *collectionTail) see(l *audit.Line) {
	at := time.Now()
	if l.Time.After(at) { // by another clock
		at = l.Time
	}
	t.seen[keyOf(l)] = at
}

// tell shows a line, or names a broken document.
func (t *collectionTail) tell(l *audit.Line, err error) error {
	if err == nil {
		err = t.show(l)
	}
	return t.broken.note(err)
}

// each ends at the first error that is not of one document.
func (t *collectionTail) each(ctx context.Context, lines iter.Seq2[audit.Line, error], do func(*audit.Line, error) error) error {
	for l, err := range lines {
		switch {
		case err == nil || audit.IsCorrupt(err):
			err = do(&l, err)
		case ctx.Err() != nil: // interrupted: it is over
			return nil
		default:
			return readError{err}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func showLine(w io.Writer, l *audit.Line, asJSON bool) error {
	switch {
	case l.Stub && asJSON:
		_, err := fmt.Fprintf(w, `{"chain":"%s","seq":%d,"sha256":"%x"}`+"\n", audit.Printable(l.Chain), l.Seq, l.SHA256)
		return err
	case l.Stub:
		_, err := fmt.Fprintf(w, "%s stub seq=%d sha256=%x\n", l.Time.Format(time.RFC3339), l.Seq, l.SHA256)
		return err
	case asJSON:
		_, err := fmt.Fprintf(w, "%s\n", l.Raw)
		return err
	}
	e, err := (&audit.Joined{Decision: *l}).Event()
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, describe(e)+"\n")
	return err
}

// describe is an event, or a decision with its outcome, as one terse line.
func describe(e *audit.Event) string {
	d := description{}
	d.add(e.Time.UTC().Format("2006-01-02T15:04:05.000Z"))
	switch {
	case e.Summary != nil:
		d.add("deny")
		d.add("×" + strconv.Itoa(e.Summary.Repeated))
		d.add(e.Summary.Source)
	case e.Decision != nil:
		d.add(e.Decision.Effect)
		switch {
		case e.Outcome != nil:
			d.add(strconv.Itoa(e.Outcome.Status))
		case e.Decision.Status != 0:
			d.add(strconv.Itoa(e.Decision.Status))
		default:
			d.add("-")
		}
	case e.Outcome != nil:
		d.add(e.Type)
		d.add(strconv.Itoa(e.Outcome.Status))
	default:
		d.add(e.Type)
	}
	if r := e.Request; r != nil {
		d.add(r.Method)
		d.add(r.Path)
		if e.Summary != nil {
			d.add(r.IP)
		}
	}
	if i := e.Identity; i != nil {
		name := i.Name
		if e.Summary != nil { // which is of a user, by whatever identity
			name = i.Namespace
		}
		d.add(name + ":" + i.UID)
		if i.Actor != "" {
			d.add("actor=" + i.Actor)
		}
	}
	if x := e.Decision; x != nil {
		if x.Rule != "" { // which begins with the route
			d.add(x.Rule)
		} else {
			d.add(x.Route)
		}
		d.add(x.Code)
	}
	if s := e.Summary; s != nil {
		for _, counts := range []map[string]int{s.Routes, s.Codes} {
			for _, name := range slices.Sorted(maps.Keys(counts)) {
				d.add(name + "=" + strconv.Itoa(counts[name]))
			}
		}
	}
	if o := e.Object; o != nil {
		d.add(o.Bucket + "/" + o.Key)
	}
	if o := e.Outcome; o != nil {
		d.text += fmt.Sprintf(" in=%d out=%d ms=%.1f", o.BytesIn, o.BytesOut, o.MS)
		if o.Error != "" {
			d.add("error=" + o.Error)
		}
	}
	if s := e.System; s != nil {
		d.add(s.Event)
		for _, k := range slices.Sorted(maps.Keys(s.Detail)) {
			d.text += " " + audit.Printable(k+"="+s.Detail[k]) // the gateway's own words, to the line's end
		}
	}
	if e.Record != "" {
		d.add("record=" + e.Record)
	}
	return d.text
}

type description struct{ text string }

// add appends a word. Nothing in it can end the line or steer the terminal, or
// pass for more words: a stranger's path must not show somebody else's uid.
func (d *description) add(word string) {
	if word == "" {
		return
	}
	if d.text != "" {
		d.text += " "
	}
	d.text += strings.ReplaceAll(audit.Printable(word), " ", `\u0020`)
}

// A printer prints lines and keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}
