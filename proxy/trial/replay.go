package trial

import (
	"errors"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync"
	"time"

	"sidegate/policy"
	"sidegate/storage/audit"
)

// A Replay says how a log is replayed.
type Replay struct {
	Since, Until time.Time // of the decisions; zero: all
	Examples     int       // of each change
	// Workers is how many judge at once; 0: one for each CPU.
	Workers int
	// Progress is told how many lines were read; nil: nobody is.
	Progress func(lines int)
}

// Replayed is what became of recorded decisions.
type Replayed struct {
	Decisions   int            // that were read, within the time that was asked for
	Same        int            // decided as they were
	Changed     int            // decided otherwise
	Undecidable int            // what the decision depends on is not on record
	Limited     int            // refused for their rate: limits are not replayed
	Skipped     int            // no policy decided: refused before, or for a fault
	Why         map[string]int // why they are undecidable
	Codes       map[string]int // of those skipped
	Stubs       int            // lines of which only the hash is there
	Summarised  int            // refusals that are only counted: nothing is known of each
	First, Last time.Time      // of the decisions
	Changes     []*Change
}

// maxReasons bounds Why and Codes: both come from files.
const maxReasons = 200

// Run judges every decision of a log anew by the policy that newGate makes
// gates for, from what is on record. Memory does not grow with the log. The
// error is the log's first; what could be read is told with it.
func (o Replay) Run(lines iter.Seq2[audit.Line, error], newGate func() (*Gate, error)) (*Replayed, error) {
	n := o.Workers
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	batches := make(chan *batch, n)
	free := make(chan *batch, 2*n)
	workers := make([]*replayer, n)
	var running sync.WaitGroup
	for i := range workers {
		g, err := newGate()
		if err != nil {
			close(batches)
			return nil, err
		}
		w := &replayer{gate: g, o: o, changes: newChanges(o.Examples)}
		w.out.Why, w.out.Codes = map[string]int{}, map[string]int{}
		workers[i] = w
		free <- &batch{}
		free <- &batch{}
		running.Go(func() {
			for b := range batches {
				w.batch(b)
				free <- b
			}
		})
	}
	err := o.feed(lines, batches, free)
	close(batches)
	running.Wait()
	total := workers[0]
	for _, w := range workers[1:] {
		total.merge(w)
	}
	for _, w := range workers {
		if err == nil {
			err = w.err
		}
	}
	total.out.Changes = total.changes.list()
	return &total.out, err
}

// A batch is some lines, copied out of the reader's own.
type batch struct {
	text  []byte
	ends  []int
	first int // place of the first line
	stubs int
}

const batchLines = 256

// feed hands decisions to the workers. A line that is not as it was written
// ends a folder, and not a collection: what is behind it is read too.
func (o Replay) feed(lines iter.Seq2[audit.Line, error], batches, free chan *batch) error {
	var bad error
	b := <-free
	b.reset(0)
	read := 0
	for l, err := range lines {
		read++
		if corrupt := (*audit.CorruptError)(nil); errors.As(err, &corrupt) {
			if bad == nil {
				bad = err
			}
			continue
		}
		if err != nil {
			if bad == nil {
				bad = err
			}
			break // what was read before counts
		}
		if o.Progress != nil {
			o.Progress(read)
		}
		switch {
		case (!o.Since.IsZero() && l.Time.Before(o.Since)) || (!o.Until.IsZero() && !l.Time.Before(o.Until)):
			continue
		case l.Stub:
			b.stubs++
			continue
		case l.Type != audit.TypeDecision:
			continue
		}
		b.text = append(b.text, l.Raw...)
		if b.ends = append(b.ends, len(b.text)); len(b.ends) == batchLines {
			batches <- b
			b = <-free
			b.reset(read)
		}
	}
	batches <- b
	return bad
}

func (b *batch) reset(first int) {
	b.text, b.ends, b.first, b.stubs = b.text[:0], b.ends[:0], first, 0
}

// A replayer judges batches by one gate.
type replayer struct {
	gate    *Gate
	o       Replay
	changes *changes
	out     Replayed
	err     error
}

func (w *replayer) batch(b *batch) {
	w.out.Stubs += b.stubs
	from := 0
	for i, end := range b.ends {
		l := audit.Line{Raw: b.text[from:end]}
		from = end
		e, err := l.Event()
		if err != nil {
			if w.err == nil {
				w.err = fmt.Errorf("a decision cannot be read: %w", err)
			}
			continue
		}
		switch {
		case e.Summary != nil:
			w.out.Summarised += e.Summary.Repeated
		case e.Decision != nil:
			w.event(e, b.first+i)
		}
	}
}

// event counts one recorded decision.
func (w *replayer) event(e *audit.Event, place int) {
	w.out.Decisions++
	if w.out.First.IsZero() || e.Time.Before(w.out.First) {
		w.out.First = e.Time
	}
	if e.Time.After(w.out.Last) {
		w.out.Last = e.Time
	}
	switch v := w.judge(e); {
	case v.standing == limited:
		w.out.Limited++
	case v.standing == notPolicy:
		w.out.Skipped++
		count(w.out.Codes, skippedAs(e))
	case v.why != "":
		w.out.Undecidable++
		count(w.out.Why, v.why)
	case v.before.same(v.after):
		w.out.Same++
	default:
		w.out.Changed++
		w.changes.add(changeKey{before: v.before, after: v.after}, place, func() Example { return recordExample(e, v.request) })
	}
}

// A verdict is what a replay says of one recorded decision.
type verdict struct {
	standing      standing
	why           string // it is undecidable
	before, after Decided
	request       *Request
}

func (w *replayer) judge(e *audit.Event) (v verdict) {
	recorded := policy.ReadInputs(e.Decision.Inputs, slices.Contains(e.Cut, "decision.inputs"))
	if v.standing = standingOf(e, recorded); v.standing != replayed {
		return v
	}
	if v.request, v.why = requestOf(e, recorded, w.gate.Policy); v.why != "" {
		return v
	}
	j := w.gate.Judge(v.request)
	v.why = undecidable(e, &j, recorded)
	v.before, v.after = recordedDecision(e.Decision), after(e, &j)
	return v
}

// skippedAs names a decision that is not the policy's.
func skippedAs(e *audit.Event) string {
	d := e.Decision
	if e.Object != nil && e.Object.Operation == "batch" {
		return "batch"
	}
	if d.Effect != "allow" && d.Effect != "deny" {
		return d.Effect
	}
	return d.Code
}

func count(m map[string]int, key string) {
	if _, there := m[key]; !there && len(m) >= maxReasons {
		key = "other"
	}
	m[key]++
}

// merge takes what another found.
func (w *replayer) merge(o *replayer) {
	a, b := &w.out, &o.out
	a.Decisions += b.Decisions
	a.Same += b.Same
	a.Changed += b.Changed
	a.Undecidable += b.Undecidable
	a.Limited += b.Limited
	a.Skipped += b.Skipped
	a.Stubs += b.Stubs
	a.Summarised += b.Summarised
	for key, n := range b.Why {
		a.Why[key] += n
	}
	for key, n := range b.Codes {
		a.Codes[key] += n
	}
	if a.First.IsZero() || (!b.First.IsZero() && b.First.Before(a.First)) {
		a.First = b.First
	}
	if b.Last.After(a.Last) {
		a.Last = b.Last
	}
	w.changes.merge(o.changes)
}
