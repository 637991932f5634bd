package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// RepairOptions say which folder to repair.
type RepairOptions struct {
	Dir     string
	Gateway Gateway        // of the first event of the new chain
	Keys    note.Verifiers // nil: checkpoints in the folder are believed unsigned
	// Sink gets what can still be read and was not shipped; nil: it stays in
	// the evidence only.
	Sink     Sink
	Now      func() time.Time // nil: time.Now
	Progress func(lines int)  // nil: nobody asks

	rename func(from, to string) error // nil: os.Rename
}

// A Repaired says what RepairFolder found and did.
type Repaired struct {
	Damaged  bool   // false: the log is as it was written, and nothing was changed
	Resumed  bool   // an earlier call had begun it
	Problem  string // the first thing that is not as it was written
	Chain    string // the old chain
	Seq      uint64 // up to which the old chain is vouched for; 0: nothing is
	Hash     string // of that line, in hex
	Evidence string // the folder, within Dir, that holds all that was there
	NewChain string

	Stored     int // lines that the Sink now has
	Stubs      int // lines that it does not take: their hashes
	Unreadable int // lines behind what was shipped that are no events of this chain
}

const (
	// repairFile is there while a repair is under way: what it is about to do.
	repairFile   = "repair.json"
	evidenceName = "damaged-"
	evidenceText = "report.txt"
)

// A repairPlan is the repair file.
type repairPlan struct {
	Evidence string         `json:"evidence"`
	Files    []string       `json:"files"` // to be moved
	Chain    string         `json:"chain,omitempty"`
	Seq      uint64         `json:"seq,omitempty"`
	Hash     string         `json:"hash,omitempty"`
	Bad      CorruptError   `json:"bad"`
	NewChain string         `json:"new_chain"`
	Stored   map[string]int `json:"stored,omitempty"`
}

// unfinishedRepair refuses a folder of which a part was moved away.
func unfinishedRepair(dir string) error {
	_, err := os.Stat(filepath.Join(dir, repairFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return &CorruptError{File: repairFile, Reason: "a repair was begun and did not get to its end: run it again"}
}

// RepairFolder begins a new chain in a folder whose log is not what was
// written, and keeps everything that was there, unaltered, in a folder within.
// A log that is as it was written stays as it is. The error is ErrLocked, the
// Sink's, or the disk's; a call that failed or was killed is called again.
//
// While it works, the file repair.json keeps a ledger from being opened. It
// names what is to be moved, so that a later call neither forgets a file nor
// takes the new chain for a part of the old one.
func RepairFolder(ctx context.Context, o RepairOptions) (Repaired, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.rename == nil {
		o.rename = os.Rename
	}
	if err := o.anything(); err != nil {
		return Repaired{}, err
	}
	lock, err := lockFolder(o.Dir)
	if err != nil {
		return Repaired{}, err
	}
	defer lock.Close()
	if unfinishedRepair(o.Dir) != nil {
		plan, err := readPlan(o.Dir)
		if err != nil {
			return Repaired{}, err
		}
		r := plan.repaired()
		r.Resumed = true
		return r, o.carryOut(plan)
	}
	plan, err := o.judge(ctx)
	if err != nil || plan == nil {
		return Repaired{}, err
	}
	if o.Sink != nil {
		if err := o.salvage(ctx, plan); err != nil {
			return Repaired{}, fmt.Errorf("storing what was not shipped: %w; nothing was changed", err)
		}
	}
	if err := o.begin(plan); err != nil {
		return Repaired{}, err
	}
	return plan.repaired(), o.carryOut(plan)
}

// anything refuses a folder that never held a log, before a lock is made there.
func (o *RepairOptions) anything() error {
	list, err := segments(o.Dir)
	if err != nil || len(list) > 0 {
		return err
	}
	for _, name := range []string{repairFile, resumeFile} {
		if _, err := os.Stat(filepath.Join(o.Dir, name)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%s holds no audit log: no file such as %s", o.Dir, segmentName(1))
}

func (p *repairPlan) repaired() Repaired {
	return Repaired{Damaged: true, Problem: p.Bad.Error(), Chain: p.Chain, Seq: p.Seq, Hash: p.Hash, Evidence: p.Evidence, NewChain: p.NewChain,
		Stored: p.Stored["lines"], Stubs: p.Stored["stubs"], Unreadable: p.Stored["unreadable"]}
}

// judge verifies everything; nil: the log is what was written.
func (o *RepairOptions) judge(ctx context.Context) (*repairPlan, error) {
	plan := &repairPlan{NewChain: NewID()}
	resume, err := readResume(o.Dir)
	if err != nil {
		return nil, err
	}
	plan.Chain = resume.Chain
	list, err := segments(o.Dir)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		plan.Bad = CorruptError{File: resumeFile, Seq: resume.Seq, Reason: fmt.Sprintf("%d events were shipped, and the segments are gone", resume.Seq)}
		return plan, nil
	}
	found, err := Verification{Keys: o.Keys, unsigned: o.Keys == nil, Progress: o.Progress}.Dir(ctx, o.Dir)
	if err != nil {
		return nil, err
	}
	var end uint64
	if len(found.Reports) > 0 {
		r := &found.Reports[0]
		end = r.Last
		plan.Seq, plan.Hash = r.Vouched()
		if plan.Chain = r.Chain; r.Chain == "" {
			plan.Chain = resume.Chain
		}
		if r.Broken != nil {
			plan.Bad = *r.Broken
			return plan, nil
		}
		if r.Chain != resume.Chain && resume.Seq > 0 {
			end = 0
		}
	}
	switch {
	case len(found.Missing) > 0:
		plan.Bad = CorruptError{File: headNote, Reason: found.Missing[0].Error()}
	case resume.Seq > end:
		plan.Bad = CorruptError{File: resumeFile, Seq: end + 1, Reason: fmt.Sprintf(
			"%d events of chain %s were shipped, and this log does not have as many of that chain: lines were removed, or files of another log were mixed in",
			resume.Seq, Printable(resume.Chain))}
	default:
		return o.resumable(plan, resume, list)
	}
	return plan, nil
}

// resumable judges whether shipping can go on; nil: it can.
func (o *RepairOptions) resumable(plan *repairPlan, at resume, list []uint64) (*repairPlan, error) {
	if at.Seq == 0 || !slices.Contains(list, at.Segment) {
		return nil, nil
	}
	size, err := textSize(o.Dir, at.Segment)
	if err != nil || at.Offset <= size {
		return nil, err
	}
	plan.Bad = CorruptError{File: resumeFile, Seq: at.Seq, Reason: "it points behind the end of " + segmentName(at.Segment)}
	return plan, nil
}

// begin makes the evidence's folder with its report, and then the repair file:
// from there on there is no way but to the end.
func (o *RepairOptions) begin(plan *repairPlan) error {
	entries, err := os.ReadDir(o.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); e.Type().IsRegular() && name != lockName && name != repairFile {
			plan.Files = append(plan.Files, name)
		}
	}
	name := evidenceName + o.Now().UTC().Format("20060102T150405Z")
	for i := 1; ; i++ {
		if plan.Evidence = name; i > 1 {
			plan.Evidence += "-" + strconv.Itoa(i)
		}
		err := os.Mkdir(filepath.Join(o.Dir, plan.Evidence), 0o700)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	text, err := o.reportText(plan)
	if err == nil {
		err = writeFile(filepath.Join(o.Dir, plan.Evidence), evidenceText, []byte(text))
	}
	if err == nil {
		err = syncDir(o.Dir)
	}
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(plan, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(o.Dir, repairFile, append(data, '\n'))
}

// reportText is the evidence's report.
func (o *RepairOptions) reportText(plan *repairPlan) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "sidegate audit repair, %s\n\nThe audit log in this folder is not what was written:\n  %s\n",
		o.Now().UTC().Format(time.RFC3339), Printable(plan.Bad.Error()))
	if plan.Seq > 0 {
		fmt.Fprintf(&b, "Up to seq %d (SHA-256 %s) chain %s recomputes; nothing is vouched for behind it.\n", plan.Seq, plan.Hash, Printable(plan.Chain))
	} else {
		fmt.Fprintf(&b, "Nothing of chain %s is vouched for.\n", Printable(plan.Chain))
	}
	if plan.Stored != nil {
		fmt.Fprintf(&b, "Of what was not shipped, %d lines were stored, %d as their hash only, and %d are no events of this chain.\n",
			plan.Stored["lines"], plan.Stored["stubs"], plan.Stored["unreadable"])
	}
	fmt.Fprintf(&b, "The log goes on as chain %s. These files were moved here as they were:\n\n", plan.NewChain)
	for _, name := range plan.Files {
		sum, size, err := hashFile(filepath.Join(o.Dir, name))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%s %12d %s\n", sum, size, Printable(name))
	}
	return b.String(), nil
}

func hashFile(name string) (sum string, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

func readPlan(dir string) (*repairPlan, error) {
	data, err := readSmall(dir, repairFile)
	if err != nil {
		return nil, err
	}
	p := new(repairPlan)
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", repairFile, err)
	}
	local := func(name string) bool { return name != "" && name == filepath.Base(name) && filepath.IsLocal(name) }
	if !local(p.Evidence) || !strings.HasPrefix(p.Evidence, evidenceName) || slices.ContainsFunc(p.Files, func(f string) bool { return !local(f) }) ||
		!checkpointChain.MatchString(p.NewChain) {
		return nil, fmt.Errorf("%s is damaged: it does not say what a repair is about to do", repairFile)
	}
	return p, nil
}

// carryOut moves what is not moved yet, begins the new chain and ends the
// repair. Every step may have been done before.
func (o *RepairOptions) carryOut(plan *repairPlan) error {
	evidence := filepath.Join(o.Dir, plan.Evidence)
	info, err := os.Lstat(evidence)
	if err != nil {
		return err
	}
	if !info.IsDir() { // a link would take files to where this log has no business
		return fmt.Errorf("%s names %s, which is no folder: move it away", repairFile, plan.Evidence)
	}
	for _, name := range plan.Files {
		from, to := filepath.Join(o.Dir, name), filepath.Join(evidence, name)
		if _, err := os.Lstat(to); err == nil {
			continue // nothing in the evidence is ever replaced
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := o.rename(from, to); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("keeping %s as evidence: %w", name, err)
		}
	}
	if err := errors.Join(syncDir(evidence), syncDir(o.Dir)); err != nil {
		return err
	}
	if _, err := os.Lstat(filepath.Join(o.Dir, segmentName(1))); errors.Is(err, os.ErrNotExist) {
		if err := writeFile(o.Dir, segmentName(1), o.firstLine(plan)); err != nil {
			return fmt.Errorf("the new chain's first event: %w", err)
		}
	} else if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(o.Dir, repairFile)); err != nil {
		return err
	}
	return syncDir(o.Dir)
}

// firstLine is the event with which the new chain begins.
func (o *RepairOptions) firstLine(plan *repairPlan) []byte {
	detail := map[string]string{
		"problem":  "the log was not what was written, and a new chain begins: " + plan.Bad.Reason,
		"chain":    plan.Chain,
		"seq":      strconv.FormatUint(plan.Seq, 10),
		"sha256":   plan.Hash,
		"file":     plan.Bad.File,
		"line":     strconv.Itoa(plan.Bad.Line),
		"offset":   strconv.FormatInt(plan.Bad.Offset, 10),
		"bad_seq":  strconv.FormatUint(plan.Bad.Seq, 10),
		"evidence": plan.Evidence,
	}
	enc := newEncoder(o.Gateway)
	enc.line(&Event{Type: TypeSystem, System: &System{Event: "repair", Detail: detail}}, o.Now, plan.NewChain, 1, &[sha256.Size]byte{})
	return append(enc.buf, '\n')
}
