package audit

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"time"
)

// A Report is what Verify can vouch for: that the lines from First to Last are
// those that the chain was made of, in order, and complete between the two. It
// cannot know whether lines before First or behind Last were removed, nor, for
// who can write the folder, whether the whole chain was computed anew: only a
// note of Head that was kept elsewhere shows that.
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
}

// A Gap is a span of missing seqs.
type Gap struct{ From, To uint64 }

// Verify recomputes the chains of lines, which come in the order of chain and
// seq: one report for each chain. A line that is not what was written is the
// report's Broken; behind it nothing of that chain is vouched for. At
// the time now, lines behind one that has expired may be missing: they are
// Gaps. The error is the reading's.
func Verify(ctx context.Context, lines iter.Seq2[Line, error], now time.Time) ([]Report, error) {
	var reports []Report
	var k link
	var expires time.Time
	for l, err := range lines {
		if ctx.Err() != nil {
			return reports, context.Cause(ctx)
		}
		if n := len(reports); n == 0 || l.Chain != "" && l.Chain != reports[n-1].Chain {
			reports = append(reports, Report{Chain: l.Chain})
			k = link{}
		}
		r := &reports[len(reports)-1]
		if r.Broken != nil {
			continue
		}
		if err == nil {
			if gone := k.seq > 0 && l.Seq > k.seq+1 && !expires.IsZero() && !now.Before(expires); gone {
				r.Gaps = append(r.Gaps, Gap{k.seq + 1, l.Seq - 1})
				k.seq = 0 // the line starts anew
			}
			expires = l.Expires
			err = check(&k, &l)
		}
		if err == nil {
			r.add(&k, &l)
			continue
		}
		if !errors.As(err, &r.Broken) {
			return reports, err
		}
		if r.Broken.Seq == 0 {
			r.Broken.Seq = k.seq + 1
		}
	}
	return reports, nil
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
	if r.First == 0 {
		r.First, r.From = l.Seq, l.Time
	}
	r.Last, r.To, r.Head = l.Seq, l.Time, hex.EncodeToString(k.hash[:])
	if l.Stub {
		r.Stubs = append(r.Stubs, l.Seq)
	}
}

// VerifyDir verifies a folder, also while a ledger writes to it.
func VerifyDir(ctx context.Context, dir string) (Report, error) {
	list, err := segments(dir)
	if err != nil {
		return Report{}, err
	}
	if len(list) == 0 {
		return Report{}, fmt.Errorf("%s holds no audit log", dir)
	}
	reports, err := Verify(ctx, single(Lines(dir)), time.Time{})
	if err != nil || len(reports) == 0 {
		return Report{}, err
	}
	r := reports[0]
	if r.Broken == nil {
		r.Torn, err = tornBytes(dir)
	}
	return r, err
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
			case l.Number == 1 && l.File != segmentName(l.Seq):
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

// tornBytes is how many bytes of an unfinished line the last segment ends with.
func tornBytes(dir string) (int, error) {
	list, err := segments(dir)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	name := segmentName(list[len(list)-1])
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	part := make([]byte, min(end, MaxLine+1))
	if _, err := f.ReadAt(part, end-int64(len(part))); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	for i := len(part); i > 0; i-- {
		if part[i-1] == '\n' {
			return len(part) - i, nil
		}
	}
	return len(part), nil
}
