package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A segment is a file of the ledger; its name is the seq of its first line.
const segmentSuffix = ".jsonl"

func segmentName(first uint64) string { return fmt.Sprintf("%020d%s", first, segmentSuffix) }

func onlyDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// segments lists the first seqs of a folder's segments, in order, also of those
// that somebody compressed.
func segments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []uint64
	for _, e := range entries {
		digits, ok := strings.CutSuffix(strings.TrimSuffix(e.Name(), gzipSuffix), segmentSuffix)
		if !ok || len(digits) != 20 || !onlyDigits(digits) || !e.Type().IsRegular() {
			continue // also dead-letter-20261123.jsonl, which somebody moved out of the way
		}
		first, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || first == 0 {
			return nil, fmt.Errorf("%s is not named as a segment of an audit log is", filepath.Join(dir, e.Name()))
		}
		list = append(list, first)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// A lineReader reads whole lines of one file from an offset. What it returns
// is valid until the next call.
type lineReader struct {
	file   io.ReaderAt
	name   string
	offset int64 // of the next line
	number int   // of the next line, from 1
	buf    []byte
	from   int // buf[from:] is read and not yet returned
}

const readSize = 64 << 10

// next is the next whole line; io.EOF where only a part of one, or nothing, is
// left.
func (r *lineReader) next() (Line, error) {
	searched := 0
	for {
		if n := bytes.IndexByte(r.buf[r.from+searched:], '\n'); n >= 0 {
			n += searched
			l, err := ParseLine(r.buf[r.from : r.from+n])
			if err != nil {
				return Line{}, &CorruptError{File: r.name, Line: r.number, Offset: r.offset, Reason: err.Error()}
			}
			l.File, l.Number, l.Offset = r.name, r.number, r.offset
			r.from += n + 1
			r.offset += int64(n) + 1
			r.number++
			return l, nil
		}
		searched = len(r.buf) - r.from
		if searched > MaxLine {
			return Line{}, &CorruptError{File: r.name, Line: r.number, Offset: r.offset,
				Reason: fmt.Sprintf("it is longer than any event (%d bytes)", MaxLine)}
		}
		if err := r.fill(); err != nil {
			return Line{}, err
		}
	}
}

func (r *lineReader) fill() error {
	r.buf = append(r.buf[:0], r.buf[r.from:]...)
	r.from = 0
	have := len(r.buf)
	r.buf = slices.Grow(r.buf, readSize)
	n, err := r.file.ReadAt(r.buf[have:have+readSize], r.offset+int64(have))
	r.buf = r.buf[:have+n]
	if n > 0 {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.EOF
	}
	if bad := (*gzipError)(nil); errors.As(err, &bad) {
		return &CorruptError{File: r.name, Line: r.number, Offset: r.offset,
			Reason: fmt.Sprintf("it cannot be decompressed behind byte %d of its text: %v", r.offset+int64(have), bad.err)}
	}
	return fmt.Errorf("reading %s: %w", r.name, err)
}

// rest is the part of a line that next could not return.
func (r *lineReader) rest() []byte { return r.buf[r.from:] }

// forget drops what was read ahead: it may be cut off and written anew.
func (r *lineReader) forget() { r.buf, r.from = r.buf[:0], 0 }
