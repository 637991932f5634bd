package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Joined is a decision with the outcome that belongs to it.
type Joined struct {
	Decision Line
	Outcome  Line // without Raw: unknown
	// NotAwaited: so many requests were open at once that its outcome was no
	// longer looked for.
	NotAwaited bool
}

// Record is the request's id as its line has it; empty in a summary.
func (r *Joined) Record() string { return recordOf(&r.Decision) }

// Event is the decision as an event, which has the outcome, too, where that is
// known. An error is a *CorruptError.
func (r *Joined) Event() (*Event, error) {
	e, err := wholeEvent(&r.Decision)
	if err != nil || len(r.Outcome.Raw) == 0 {
		return e, err
	}
	o, err := wholeEvent(&r.Outcome)
	if err != nil {
		return nil, err
	}
	e.Outcome = o.Outcome
	return e, nil
}

// wholeEvent is Line.Event where nothing is behind it, either.
func wholeEvent(l *Line) (*Event, error) {
	e, err := l.Event()
	if err == nil && !json.Valid(l.Raw) {
		err = errors.New("something follows it")
	}
	if err != nil {
		return nil, notAnEvent(l, err)
	}
	return e, nil
}

// A Filter says which requests are asked for. Of a list, one value has to be
// the event's (see Spellings); an empty one asks for nothing. A summary of
// refusals is asked for by each of its routes and codes.
type Filter struct {
	Record, Namespace, UID, Actor, Bucket, Key, Route, Effect, Code []string

	IP           netip.Prefix // the zero Prefix: any
	Since, Until time.Time    // of the decision: at or after, before; zero: any
}

// Spellings are the values that a word on a command line can mean: itself, and
// what it stands for as a line of the log, or Printable, spells it.
func Spellings(word string) []string {
	list := []string{word}
	if strings.ContainsRune(word, '\\') {
		var s string
		if json.Unmarshal([]byte(`"`+word+`"`), &s) == nil && Unescape(s) != word {
			list = append(list, Unescape(s))
		}
	}
	return list
}

// In says whether a time is among those that are asked for.
func (f *Filter) In(t time.Time) bool {
	return !t.Before(f.Since) && (f.Until.IsZero() || t.Before(f.Until))
}

// Match says whether a line is a decision that is asked for. An error is a
// *CorruptError: this line is not what a ledger writes.
func (f *Filter) Match(l *Line) (bool, error) {
	if l.Type != TypeDecision || !f.In(l.Time) || !f.possible(l.Raw) {
		return false, nil
	}
	if !f.IP.IsValid() && !slices.ContainsFunc(f.lists(), func(list []string) bool { return len(list) > 0 }) {
		return true, nil // whoever asks for all reads them all
	}
	e, err := wholeEvent(l)
	if err != nil {
		return false, err
	}
	return f.matches(e), nil
}

// notAnEvent names a line that starts as an event does and is none.
func notAnEvent(l *Line, err error) error {
	if inner := errors.Unwrap(err); inner != nil { // Line.Event names the line, too
		err = inner
	}
	return &CorruptError{File: l.File, Line: l.Number, Offset: l.Offset, Seq: l.Seq,
		Reason: "it is not the JSON of an event: " + err.Error()}
}

// possible tells most lines apart without parsing them: a value can only be in
// a line that holds its spelling, or that of a summary's other names.
func (f *Filter) possible(raw []byte) bool {
	if bytes.Contains(raw, []byte(`"`+otherNames+`"`)) {
		return true
	}
	for _, list := range f.lists() {
		if len(list) > 0 && !slices.ContainsFunc(list, func(v string) bool {
			return bytes.Contains(raw, appendString(nil, v))
		}) {
			return false
		}
	}
	return true
}

func (f *Filter) lists() [][]string {
	return [][]string{f.Record, f.Namespace, f.UID, f.Actor, f.Bucket, f.Key, f.Route, f.Effect, f.Code}
}

func (f *Filter) matches(e *Event) bool {
	is := func(want []string, have ...string) bool {
		return len(want) == 0 || slices.ContainsFunc(have, func(h string) bool { return slices.Contains(want, h) })
	}
	i, d, o := orZero(e.Identity), orZero(e.Decision), orZero(e.Object)
	routes, codes := []string{d.Route}, []string{d.Code}
	if s := e.Summary; s != nil {
		routes, codes = summed(f.Route, s.Routes), summed(f.Code, s.Codes)
	}
	return is(f.Record, e.Record) && is(f.Namespace, i.Namespace) && is(f.UID, i.UID) && is(f.Actor, i.Actor) &&
		is(f.Bucket, o.Bucket) && is(f.Key, o.Key) && is(f.Effect, d.Effect) &&
		is(f.Route, routes...) && is(f.Code, codes...) && f.from(orZero(e.Request).IP)
}

func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// summed are the names that a summary counts; where it does not name all, it may
// be about each that is asked for.
func summed(asked []string, counts map[string]int) []string {
	names := slices.Collect(maps.Keys(counts))
	if _, ok := counts[otherNames]; ok {
		names = append(names, asked...)
	}
	return names
}

// otherNames is what a summary counts all further routes or codes under.
const otherNames = "(other)"

// from says whether an address, or the network that a summary is about, is
// among those that are asked for.
func (f *Filter) from(ip string) bool {
	if !f.IP.IsValid() {
		return true
	}
	if addr, err := netip.ParseAddr(ip); err == nil {
		return f.IP.Contains(addr.Unmap())
	}
	p, err := netip.ParsePrefix(ip)
	return err == nil && f.IP.Overlaps(p)
}

// maxWaiting bounds, in bytes of their lines, the decisions that a Joiner keeps
// until their outcome comes: more than a gateway's open requests need.
const maxWaiting = 64 << 20

// A Joiner finds the outcomes of decisions. It is for one run.
type Joiner struct {
	// Match says which lines are decisions that are asked for (see Filter).
	Match func(*Line) (bool, error)
	// Other is told of every line that is no decision and no outcome. nil: they
	// are left out.
	Other func(*Line) error

	Stubs int // events of which only the hash is there

	waiting map[string]*waitingRequest
	order   []*waitingRequest // the oldest first, also those that are done
	bytes   int
	max     int // tests: in place of maxWaiting
}

type waitingRequest struct {
	Joined
	key  string
	done bool
}

// Requests yields the requests of lines, which come in the order of chain and
// seq, each as soon as its outcome is known. Memory is bounded. An error does
// not end it where lines go on behind it; Match's and Other's do not either.
func (j *Joiner) Requests(lines iter.Seq2[Line, error]) iter.Seq2[Joined, error] {
	return func(yield func(Joined, error) bool) {
		j.waiting = map[string]*waitingRequest{}
		for l, err := range lines {
			var done []Joined
			if err == nil {
				done, err = j.take(&l)
			}
			if err != nil && !yield(Joined{}, err) {
				return
			}
			for _, r := range done {
				if !yield(r, nil) {
					return
				}
			}
		}
		for _, r := range j.flush("") {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (j *Joiner) take(l *Line) ([]Joined, error) {
	switch {
	case l.Stub:
		j.Stubs++
	case l.Type == TypeDecision:
		ok, err := j.Match(l)
		if err != nil || !ok {
			return nil, err
		}
		return j.decided(l), nil
	case l.Type == TypeOutcome:
		w := j.waiting[waitingKey(l)]
		if w == nil {
			return nil, nil
		}
		if _, err := wholeEvent(l); err != nil {
			return nil, err
		}
		w.Outcome = keep(l)
		return []Joined{j.end(w)}, nil
	default:
		var done []Joined
		if startsGateway(l) {
			// One gateway at a time writes a chain: those of the one before
			// have ended without an outcome.
			done = j.flush(l.Chain)
		}
		if j.Other != nil {
			return done, j.Other(l)
		}
		return done, nil
	}
	return nil, nil
}

func (j *Joiner) decided(l *Line) (done []Joined) {
	key := waitingKey(l)
	if key == "" { // a summary
		return []Joined{{Decision: keep(l)}}
	}
	if w := j.waiting[key]; w != nil { // not what a gateway writes
		done = append(done, j.end(w))
	}
	w := &waitingRequest{Joined: Joined{Decision: keep(l)}, key: key}
	j.waiting[key] = w
	j.order = append(j.order, w)
	j.bytes += len(w.Decision.Raw)
	limit := j.max
	if limit == 0 {
		limit = maxWaiting
	}
	for j.bytes > limit {
		w := j.order[0]
		j.order = j.order[1:]
		if !w.done {
			w.NotAwaited = true
			done = append(done, j.end(w))
		}
	}
	if len(j.order) > 1024 && len(j.order) > 2*len(j.waiting) {
		j.order = slices.DeleteFunc(j.order, func(w *waitingRequest) bool { return w.done })
	}
	return done
}

// end lets a request go.
func (j *Joiner) end(w *waitingRequest) Joined {
	w.done = true
	j.bytes -= len(w.Decision.Raw)
	delete(j.waiting, w.key)
	r := w.Joined
	w.Joined = Joined{}
	return r
}

// flush lets go all that wait, or those of one chain.
func (j *Joiner) flush(chain string) (done []Joined) {
	for _, w := range j.order {
		if !w.done && (chain == "" || w.Decision.Chain == chain) {
			done = append(done, j.end(w))
		}
	}
	j.order = slices.DeleteFunc(j.order, func(w *waitingRequest) bool { return w.done })
	return done
}

// startsGateway says whether a line is a gateway's first. The bytes cannot be
// within a value: a quote there is escaped.
func startsGateway(l *Line) bool {
	return l.Type == TypeSystem && bytes.Contains(l.Raw, []byte(`"system":{"event":"start"`))
}

// keep is a copy of a line, which its reader may go on from.
func keep(l *Line) Line {
	k := *l
	k.Raw = bytes.Clone(l.Raw)
	return k
}

func waitingKey(l *Line) string {
	if r := recordOf(l); r != "" {
		return l.Chain + " " + r
	}
	return ""
}

// recordOf is the record as the line spells it; empty where it has none.
func recordOf(l *Line) string {
	rest, ok := bytes.CutPrefix(l.Raw, []byte(`{"type":"`+l.Type+`","id":"`+l.ID+`","record":"`))
	if n := stringEnd(string(rest[:min(len(rest), usualHeader)])); ok && n >= 0 {
		return string(rest[:n])
	}
	return ""
}

// IsCorrupt says whether an error is about one line or document, behind which
// others may be read.
func IsCorrupt(err error) bool {
	var c *CorruptError
	return errors.As(err, &c)
}
