package audit

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A Report is what Verify can vouch for: that the lines from First to Last are
// those that the chain was made of, in order, and complete between the two. It
// cannot know whether lines before First or behind Last were removed, nor, for
// who can write the folder, whether the whole chain was computed anew: only a
// checkpoint that was kept elsewhere shows that.
type Report struct {
	Chain  string
	First  uint64
	Last   uint64
	From   time.Time // of the first line
	To     time.Time // of the last line
	Head   string    // SHA-256 of the last line, in hex
	Stubs  []uint64  // lines of which only the hash is stored there
	Gaps   []Gap     // lines that are missing because they may have expired
	Torn   int       // bytes of an unfinished line at the end of a folder
	Broken *CorruptError

	Checkpoints int        // signed ones that the lines are as they say
	Newest      Checkpoint // of those; its Seq is 0 where there is none
	Passed      int        // checkpoints of lines that are gone: nothing shows of them
	Anchored    bool       // a checkpoint vouches for where First begins
	Retired     uint64     // up to which seq the log says that retention deleted

	before     uint64 // seq of the line before the last one
	beforeHash string // its SHA-256 in hex
	anew       bool   // the chain fits, and a checkpoint does not fit it
}

// Vouched is the last line that something vouches for, and its SHA-256 in hex.
// Where the chain breaks that is the last but one that fits, unless a
// checkpoint is about the last: no good line holds that one's hash. Where the
// chain was computed anew it is that of the newest checkpoint that fits. 0:
// there is none.
func (r *Report) Vouched() (seq uint64, hash string) {
	switch {
	case r.Broken == nil || r.Newest.Seq == r.Last:
		return r.Last, r.Head
	case r.anew && r.Newest.Seq == 0:
		return 0, ""
	case r.anew:
		return r.Newest.Seq, hex.EncodeToString(r.Newest.Hash[:])
	}
	return r.before, r.beforeHash
}

// A Gap is a span of missing seqs.
type Gap struct{ From, To uint64 }

// A Verification is what lines are held against. The zero value recomputes
// chains.
type Verification struct {
	// Keys are the public keys of those who sign checkpoints; nil: Notes are
	// not looked at.
	Keys note.Verifiers
	// AllowUnsigned says that chains that no checkpoint vouches for are no
	// failure where Keys are given: they may be from before there was a key.
	AllowUnsigned bool
	// Notes are checkpoints that were kept elsewhere. Those of a folder are
	// read from there.
	Notes []Note
	// Now is by when lines may have expired; zero: none has.
	Now time.Time
	// Progress is called with the number of lines read so far; nil: nobody asks.
	Progress func(lines int)

	// folder says that what is missing at the beginning must be accounted for.
	folder bool
	// unsigned believes notes without looking at their signatures: whatever
	// does not fit them is a reason to look closer.
	unsigned bool
}

// A Result is what a Verification found.
type Result struct {
	Reports []Report // one for each chain
	// Refused are notes that are not signed by one of the keys.
	Refused []error
	// Missing are checkpoints of chains of which no event is here.
	Missing []error
	// Unsigned are chains that no checkpoint vouches for.
	Unsigned []error
	// Unchecked are names of notes that no key was given for.
	Unchecked []string
}

// Failure is the first thing that is not as it was written; nil: there is none.
func (r *Result) Failure() error {
	for i := range r.Reports {
		if b := r.Reports[i].Broken; b != nil {
			return b
		}
	}
	for _, err := range slices.Concat(r.Missing, r.Refused, r.Unsigned) {
		return err
	}
	return nil
}

// A claim is a checkpoint that lines are held against.
type claim struct {
	Checkpoint
	name    string
	expires time.Time
}

// claims verifies the notes, and sorts them by chain and seq.
func (v *Verification) claims(notes []Note, result *Result) map[string][]claim {
	byChain := map[string][]claim{}
	for _, n := range notes {
		var c Checkpoint
		var err error
		switch {
		case v.unsigned:
			c, err = n.unsigned()
		case v.Keys == nil:
			result.Unchecked = append(result.Unchecked, n.Name)
			continue
		default:
			c, err = n.open(v.Keys)
		}
		if err != nil {
			result.Refused = append(result.Refused, err)
			continue
		}
		byChain[c.Chain] = append(byChain[c.Chain], claim{c, n.Name, n.Expires})
	}
	for _, list := range byChain {
		slices.SortStableFunc(list, func(x, y claim) int { return int(int64(x.Seq) - int64(y.Seq)) })
	}
	return byChain
}

// A verifier is the state of a Verification.
type verifier struct {
	*Verification
	result  Result
	claims  map[string][]claim
	seen    map[string]bool // chains
	report  *Report
	left    []claim // of this chain, in order
	link    link
	expires time.Time // of the line before
	before  place     // of the line before
}

// A place is where a line is.
type place struct {
	file   string
	number int
	offset int64
}

// Lines recomputes the chains of lines, which come in the order of chain and
// seq, and holds them against the notes. A line that is not what was written
// is the report's Broken; behind it nothing of that chain is vouched for. At
// the time Now, lines behind one that has expired may be missing: they are
// Gaps. The error is the reading's.
func (v Verification) Lines(ctx context.Context, lines iter.Seq2[Line, error]) (Result, error) {
	w := verifier{Verification: &v, seen: map[string]bool{}}
	w.claims = v.claims(v.Notes, &w.result)
	n := 0
	for l, err := range lines {
		if ctx.Err() != nil {
			return w.result, context.Cause(ctx)
		}
		if n++; v.Progress != nil {
			v.Progress(n)
		}
		if w.report == nil || l.Chain != "" && l.Chain != w.report.Chain {
			w.endChain()
			if dup := w.begin(l.Chain); dup {
				w.broken(&CorruptError{File: l.File, Line: l.Number, Offset: l.Offset, Seq: l.Seq,
					Reason: "lines of another chain stand between it and those of its own"})
			}
		}
		if w.report.Broken != nil {
			continue
		}
		if err == nil {
			err = w.line(&l)
		}
		var corrupt *CorruptError
		if err != nil && !errors.As(err, &corrupt) {
			return w.result, err
		}
		w.broken(corrupt)
	}
	w.endChain()
	w.absent()
	return w.result, nil
}

func (w *verifier) begin(chain string) (again bool) {
	again = w.seen[chain]
	w.seen[chain] = true
	w.result.Reports = append(w.result.Reports, Report{Chain: chain})
	w.report = &w.result.Reports[len(w.result.Reports)-1]
	w.link, w.left, w.expires = link{}, w.claims[chain], time.Time{}
	return again
}

func (w *verifier) broken(c *CorruptError) {
	if c == nil {
		return
	}
	if c.Seq == 0 {
		c.Seq = w.link.seq + 1
	}
	w.report.Broken = c
}

// line holds one line against the chain and the checkpoints.
func (w *verifier) line(l *Line) error {
	r, k := w.report, &w.link
	if gone := k.seq > 0 && l.Seq > k.seq+1 && !w.expires.IsZero() && !w.Now.Before(w.expires); gone {
		r.Gaps = append(r.Gaps, Gap{k.seq + 1, l.Seq - 1})
		k.seq = 0 // the line starts anew
	}
	w.expires = l.Expires
	if err := check(k, l); err != nil {
		return err
	}
	for len(w.left) > 0 && w.left[0].Seq <= l.Seq {
		if err := w.checkpoint(&w.left[0], l); err != nil {
			return err
		}
		w.left = w.left[1:]
	}
	r.add(k, l)
	w.before = place{l.File, l.Number, l.Offset}
	return nil
}

// checkpoint holds l, whose seq is that of the checkpoint or behind it, against
// it: a line's prev is the hash of the line before.
func (w *verifier) checkpoint(c *claim, l *Line) error {
	r := w.report
	bad := func(format string, args ...any) error {
		return &CorruptError{File: l.File, Line: l.Number, Offset: l.Offset, Seq: l.Seq, Reason: fmt.Sprintf(format, args...)}
	}
	since := "the first one"
	if r.Newest.Seq > 0 {
		since = fmt.Sprintf("seq %d", r.Newest.Seq+1)
	}
	switch {
	case c.Seq == l.Seq && w.link.hash != c.Hash:
		r.anew = true
		return bad("the checkpoint %s of %s has another SHA-256 of this line: it, or one from %s on, was changed and the chain computed anew",
			c.name, c.Time.Format(time.RFC3339), since)
	case c.Seq == l.Seq-1 && r.First == 0 && !l.Stub:
		if l.Prev != c.Hash {
			return bad("its prev is not the SHA-256 that the checkpoint %s of %s has of the line before", c.name, c.Time.Format(time.RFC3339))
		}
		r.Anchored = true
	case c.Seq < l.Seq:
		r.Passed++
		return nil
	}
	r.Checkpoints++
	r.Newest = c.Checkpoint
	return nil
}

// endChain judges what only shows when all lines of a chain are read.
func (w *verifier) endChain() {
	r := w.report
	if r == nil || r.Broken != nil {
		return
	}
	if w.folder && w.Keys != nil && r.First > 1 && !r.Anchored && r.Retired < r.First-1 {
		w.broken(&CorruptError{File: segmentName(1), Seq: 1, Reason: fmt.Sprintf(
			"the events before seq %d are missing: neither a retention event nor a checkpoint says that they may be", r.First)})
		return
	}
	for _, c := range w.left {
		if !c.expires.IsZero() && !w.Now.Before(c.expires) {
			r.Gaps = append(r.Gaps, Gap{r.Last + 1, c.Seq})
			r.Passed++
			continue
		}
		w.broken(&CorruptError{File: w.before.file, Seq: r.Last + 1, Reason: fmt.Sprintf(
			"the log ends with seq %d, and when the checkpoint %s was signed (%s) it had seq %d: events were removed from its end",
			r.Last, c.name, c.Time.Format(time.RFC3339), c.Seq)})
		return
	}
	w.vouchedFor()
}

// vouchedFor judges a chain that no checkpoint vouches for: that there is one about
// lines that are not here proves nothing, as whoever made these may have kept it.
// Where the last line has expired the checkpoint has, too.
func (w *verifier) vouchedFor() {
	r := w.report
	expired := !w.expires.IsZero() && !w.Now.Before(w.expires)
	if w.Keys == nil || w.AllowUnsigned || r.First == 0 || r.Newest.Seq > 0 || expired {
		return
	}
	w.result.Unsigned = append(w.result.Unsigned, fmt.Errorf(
		"no checkpoint of a given key vouches for chain %s: it may have been made by somebody else, or be from before there was a key", Printable(r.Chain)))
}

// absent judges the checkpoints of chains of which no line is here.
func (w *verifier) absent() {
	for _, chain := range slices.Sorted(maps.Keys(w.claims)) {
		list := w.claims[chain]
		if w.seen[chain] || w.seen[""] { // "": the first line cannot even be read
			continue
		}
		for _, c := range list {
			if !c.expires.IsZero() && !w.Now.Before(c.expires) {
				continue
			}
			w.result.Missing = append(w.result.Missing, fmt.Errorf("the checkpoint %s (%s) is about seq %d of chain %s, and no event of that chain is here",
				c.name, c.Time.Format(time.RFC3339), c.Seq, chain))
		}
	}
}

// Verify recomputes chains without checkpoints: see Verification.Lines.
func Verify(ctx context.Context, lines iter.Seq2[Line, error], now time.Time) ([]Report, error) {
	r, err := Verification{Now: now}.Lines(ctx, lines)
	return r.Reports, err
}

func check(k *link, l *Line) error {
	if err := k.check(l); err != nil {
		return err
	}
	if !l.Stub && !json.Valid(l.Raw) {
		return &CorruptError{File: l.File, Line: l.Number, Offset: l.Offset, Seq: l.Seq, Reason: "it is not valid JSON"}
	}
	return nil
}

func (r *Report) add(k *link, l *Line) {
	r.before, r.beforeHash = r.Last, r.Head
	if r.First == 0 {
		r.First, r.From = l.Seq, l.Time
	}
	r.Last, r.To, r.Head = l.Seq, l.Time, hex.EncodeToString(k.hash[:])
	r.Retired = max(r.Retired, announced(l))
	if l.Stub {
		r.Stubs = append(r.Stubs, l.Seq)
	}
}

// VerifyDir verifies a folder without checkpoints: see Verification.Dir.
func VerifyDir(ctx context.Context, dir string) (Report, error) {
	r, err := Verification{}.Dir(ctx, dir)
	if err != nil || len(r.Reports) == 0 {
		return Report{}, err
	}
	return r.Reports[0], nil
}

// Dir verifies a folder with its checkpoints, also while a ledger writes to it
// and retention deletes there. There is one report, or none while the folder
// has no event.
func (v Verification) Dir(ctx context.Context, dir string) (Result, error) {
	v.folder = true
	for {
		r, err := v.dir(ctx, dir)
		if !errors.Is(err, errRetired) { // else a younger segment is the first one now
			return r, err
		}
	}
}

func (v Verification) dir(ctx context.Context, dir string) (Result, error) {
	if err := unfinishedRepair(dir); err != nil {
		return Result{}, err
	}
	list, err := segments(dir)
	if err != nil {
		return Result{}, err
	}
	if len(list) == 0 {
		return Result{}, fmt.Errorf("%s holds no audit log: no file such as %s", dir, segmentName(1))
	}
	// Before the lines: so that they have at least what was signed.
	own, err := folderNotes(dir)
	if err != nil {
		return Result{}, err
	}
	v.Notes = append(slices.Clone(v.Notes), own...)
	c := cursor{dir: dir, strict: true}
	defer c.release()
	r, err := v.Lines(ctx, single(c.all()))
	if err != nil {
		return r, err
	}
	if len(r.Reports) == 0 && list[0] != 1 {
		r.Reports = []Report{{Broken: &CorruptError{File: segmentName(list[0]), Seq: list[0], Reason: "it is empty, and the segment before it is missing"}}}
	}
	if len(r.Reports) == 1 && r.Reports[0].Broken == nil {
		r.Reports[0].Torn = c.torn
	}
	return r, nil
}

// single checks what a folder has beyond a chain: there is only one, and each
// segment is named after its first line.
func single(lines iter.Seq2[Line, error]) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		chain := ""
		for l, err := range lines {
			bad := ""
			switch {
			case err != nil:
			case l.Number == 1 && strings.TrimSuffix(l.File, gzipSuffix) != segmentName(l.Seq):
				bad = "the file's name is not the seq of its first line"
			case chain != "" && l.Chain != chain:
				bad = "it is of chain " + Printable(l.Chain) + ", and the line before of chain " + chain
			}
			if bad != "" {
				err = &CorruptError{File: l.File, Line: l.Number, Offset: l.Offset, Seq: l.Seq, Reason: bad}
				l.Chain = chain
			}
			chain = l.Chain
			if !yield(l, err) || err != nil {
				return
			}
		}
	}
}
