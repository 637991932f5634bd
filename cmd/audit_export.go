package cmd

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sidegate/storage/audit"
)

// exportOptions are the flags of `audit export`.
type exportOptions struct {
	source       auditSource
	format       string
	since, until string
	output       string
	quiet        bool
}

var exportFormats = []string{"jsonl", "ocsf"}

func (p *program) newAuditExport() *cobra.Command {
	o := exportOptions{source: auditSource{env: p.env}}
	c := &cobra.Command{
		Use:   "export",
		Short: "Write the log for an auditor or a SIEM",
		Long: `Write the log, the oldest first. jsonl: every line, byte for byte as it is stored.
ocsf: one event of OCSF ` + audit.OCSFVersion + ` API Activity for each request, with its outcome, as soon
as that is known; one of Application Lifecycle for each event of the gateway itself.
The file of -o appears under its name at the end, and not where reading or writing
failed. Lines that are no events are named and left out (in a folder also all that is
behind one that cannot be read), and the status is 1. The chain is not checked:
that is what verify does.`,
		Example: "  sidegate audit export --format jsonl --since 30d -o audit.jsonl.gz\n" +
			"  sidegate audit export --format ocsf --firestore --project acme-prod -o audit.ocsf.jsonl",
	}
	o.source.flags(c)
	f := c.Flags()
	f.StringVar(&o.format, "format", "jsonl", "jsonl or ocsf")
	f.StringVar(&o.since, "since", "", "only from then on: `TIME` as 2026-03-02T10:00:00+01:00, or how long ago, as 90m or 7d")
	f.StringVar(&o.until, "until", "", "only before `TIME`")
	f.StringVarP(&o.output, "output", "o", "", "write to `FILE` instead of standard output; one that ends in .gz is compressed")
	f.BoolVar(&o.quiet, "quiet", false, "tell no progress")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(exportFormats, cobra.ShellCompDirectiveNoFileComp))
	_ = c.MarkFlagDirname("dir")
	c.RunE = func(c *cobra.Command, _ []string) error {
		from, to, err := timeSpan(o.since, o.until, time.Now())
		if o.format != "jsonl" && o.format != "ocsf" {
			err = errors.Join(fmt.Errorf("--format %q: it is jsonl or ocsf", o.format), err)
		}
		if err != nil {
			return usageError{err}
		}
		return p.exportAudit(c.Context(), &o, &audit.Filter{Since: from, Until: to})
	}
	return c
}

func (p *program) exportAudit(ctx context.Context, o *exportOptions, span *audit.Filter) error {
	lines, closed, err := o.source.lines(ctx)
	if err != nil {
		return err
	}
	defer closed()
	out, err := newExportFile(p.stdout, o.output)
	if err != nil {
		return err
	}
	defer out.discard()
	e := exporter{out: out, folder: !o.source.firestore, span: span, told: p.progress("events read", o.quiet), broken: broken{w: p.stderr}}
	if o.format == "ocsf" {
		err = e.ocsf(lines)
	} else {
		err = e.jsonl(lines)
	}
	e.told.end()
	for _, n := range e.notes {
		fmt.Fprintln(p.stderr, "note:", n)
	}
	if out.failed != nil {
		return out.failed
	}
	if err != nil && !audit.IsCorrupt(err) && o.output != "" {
		return e.result(o.source.where(), err)
	}
	if cerr := out.commit(); cerr != nil {
		return cerr
	}
	if o.output != "" && !o.quiet {
		fmt.Fprintf(p.stderr, "%s: %s\n", o.output, count(e.written, "event", "events"))
	}
	return e.result(o.source.where(), err)
}

// An exporter writes what lines hold.
type exporter struct {
	out     *exportFile
	folder  bool
	span    *audit.Filter
	told    *progress
	written int
	broken
	notes []string
}

// read passes broken documents over, and yields the others until the first
// error of another kind. In a folder nothing is read behind a broken line.
func (e *exporter) read(lines iter.Seq2[audit.Line, error], failed *error) iter.Seq2[audit.Line, error] {
	n := 0
	return func(yield func(audit.Line, error) bool) {
		for l, err := range lines {
			n++
			e.told.tell(n)
			if err != nil {
				if e.folder || e.note(err) != nil {
					*failed = err
					return
				}
				continue
			}
			if !yield(l, nil) {
				return
			}
		}
	}
}

// jsonl writes the lines as they are; a stub is the JSON that tail shows. What is
// no JSON would be in the way of whoever reads them.
func (e *exporter) jsonl(lines iter.Seq2[audit.Line, error]) error {
	var failed error
	for l := range e.read(lines, &failed) {
		if !e.span.In(l.Time) {
			continue
		}
		if !l.Stub && !json.Valid(l.Raw) {
			if err := e.note(&audit.CorruptError{File: l.File, Line: l.Number, Offset: l.Offset, Seq: l.Seq, Reason: "it is not valid JSON"}); err != nil {
				return err
			}
			continue
		}
		if err := showLine(e.out, &l, true); err != nil {
			return err
		}
		e.written++
	}
	return failed
}

// ocsf writes one event for each request, and for each event of the gateway.
func (e *exporter) ocsf(lines iter.Seq2[audit.Line, error]) error {
	var failed error
	var buf []byte
	notAwaited := 0
	write := func(q *audit.Joined) (err error) {
		if buf, err = audit.AppendOCSF(buf[:0], q); err != nil {
			return err
		}
		if _, err = e.out.Write(buf); err == nil {
			e.written++
		}
		return err
	}
	j := audit.Joiner{Match: e.span.Match, Other: func(l *audit.Line) error {
		if !e.span.In(l.Time) {
			return nil
		}
		return write(&audit.Joined{Decision: *l})
	}}
	for q, err := range j.Requests(e.read(lines, &failed)) {
		if err == nil {
			err = write(&q)
		}
		if err := e.note(err); err != nil {
			return err
		}
		if q.NotAwaited {
			notAwaited++
		}
	}
	if notAwaited > 0 {
		e.notes = append(e.notes, notAwaitedNote(notAwaited))
	}
	if j.Stubs > 0 {
		e.notes = append(e.notes, fmt.Sprintf("of %s only the hash is in the log: left out", count(j.Stubs, "event", "events")))
	}
	return failed
}

// An exportFile is written beside its name, and moved there when it is whole.
// Without a name it is standard output.
type exportFile struct {
	w      *bufio.Writer
	zip    *gzip.Writer
	file   *os.File
	name   string
	failed error // of the first write that failed
}

func newExportFile(stdout io.Writer, name string) (*exportFile, error) {
	f := &exportFile{name: name}
	if name == "" {
		f.w = bufio.NewWriterSize(stdout, 64<<10)
		return f, nil
	}
	var err error
	if info, serr := os.Stat(name); serr == nil && !info.Mode().IsRegular() { // a pipe, a device
		f.name = ""
		f.file, err = os.OpenFile(name, os.O_WRONLY, 0)
	} else { // only for its owner: it is as personal as the log
		f.file, err = os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*.part")
	}
	if err != nil {
		return nil, fmt.Errorf("--output: %w", err)
	}
	f.w = bufio.NewWriterSize(f.file, 64<<10)
	if strings.HasSuffix(name, ".gz") {
		f.zip = gzip.NewWriter(f.w)
	}
	return f, nil
}

func (f *exportFile) Write(b []byte) (n int, err error) {
	if f.zip != nil {
		n, err = f.zip.Write(b)
	} else {
		n, err = f.w.Write(b)
	}
	if err != nil && f.failed == nil {
		f.failed = fmt.Errorf("writing the export: %w", err)
	}
	return n, err
}

// commit ends the file, and makes sure that it is on disk before it has its
// name.
func (f *exportFile) commit() error {
	var err error
	if f.zip != nil {
		err = f.zip.Close()
	}
	err = errors.Join(err, f.w.Flush())
	if f.name != "" && err == nil {
		err = f.file.Sync()
	}
	if f.file != nil && err == nil {
		err = f.file.Close()
	}
	if f.name != "" && err == nil {
		err = os.Rename(f.file.Name(), f.name)
	}
	if err != nil {
		return fmt.Errorf("writing the export: %w", err)
	}
	f.file = nil
	return nil
}

// discard removes what has not become a file.
func (f *exportFile) discard() {
	if f.file == nil {
		return
	}
	f.file.Close()
	if f.name != "" {
		os.Remove(f.file.Name())
	}
}
