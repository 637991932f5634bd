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

// segments lists the first seqs of a folder's segments, in order.
func segments(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []uint64
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if !ok || len(digits) != 20 || !e.Type().IsRegular() {
			continue
		}
		first, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || first == 0 {
			return nil, fmt.Errorf("%s is not named as a segment of an audit log is", filepath.Join(dir, e.Name()))
		}
		list = append(list, first)
	}
	slices.Sort(list)
	return list, nil
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
	return fmt.Errorf("reading %s: %w", r.name, err)
}

// rest is the part of a line that next could not return.
func (r *lineReader) rest() []byte { return r.buf[r.from:] }

// forget drops what was read ahead: it may be cut off and written anew.
func (r *lineReader) forget() { r.buf, r.from = r.buf[:0], 0 }

// A cursor reads a folder's lines across its segments, also while a ledger
// writes to it: only whole lines, each once. It keeps no file open between
// rounds, because a segment may be replaced.
type cursor struct {
	dir   string
	first uint64 // the segment; 0: none yet
	last  uint64 // seq of the last line; 0: none yet
	lines lineReader
	file  *os.File
}

// next is the next line, io.EOF while there is none, or a *CorruptError.
func (c *cursor) next() (Line, error) {
	for {
		if c.file == nil {
			if err := c.open(); err != nil {
				return Line{}, err
			}
		}
		l, err := c.lines.next()
		if err == nil {
			c.last = l.Seq
			return l, nil
		}
		if corrupt := (*CorruptError)(nil); errors.As(err, &corrupt) && corrupt.Seq == 0 {
			corrupt.Seq = c.last + 1
		}
		if !errors.Is(err, io.EOF) {
			return Line{}, err
		}
		if more, err := c.advance(); err != nil {
			return Line{}, err
		} else if !more {
			c.release()
			return Line{}, io.EOF
		}
	}
}

func (c *cursor) open() error {
	if c.first == 0 {
		list, err := segments(c.dir)
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return io.EOF
		}
		c.start(list[0])
	}
	f, err := os.Open(filepath.Join(c.dir, segmentName(c.first)))
	if err != nil {
		return err
	}
	c.file, c.lines.file = f, f
	return nil
}

// start goes to the beginning of a segment.
func (c *cursor) start(first uint64) {
	c.release()
	c.first = first
	c.lines = lineReader{name: segmentName(first), number: 1, buf: c.lines.buf[:0]}
}

// advance goes to the segment behind, where there is one. The segment that
// ends must have ended before: what was added until then is read first.
func (c *cursor) advance() (bool, error) {
	list, err := segments(c.dir)
	if err != nil {
		return false, err
	}
	i := slices.IndexFunc(list, func(first uint64) bool { return first > c.first })
	if i < 0 {
		return false, nil
	}
	switch err := c.lines.fill(); {
	case err == nil:
		return true, nil
	case !errors.Is(err, io.EOF):
		return false, err
	}
	if n := len(c.lines.rest()); n > 0 {
		return false, &CorruptError{File: c.lines.name, Line: c.lines.number, Offset: c.lines.offset, Seq: c.last + 1,
			Reason: fmt.Sprintf("it is not whole (%d bytes), and a later segment exists", n)}
	}
	if c.last != 0 && list[i] != c.last+1 {
		return false, &CorruptError{File: segmentName(c.last + 1), Seq: c.last + 1,
			Reason: fmt.Sprintf("the segment is missing: the one before ends with seq %d, the next is %s", c.last, segmentName(list[i]))}
	}
	c.start(list[i])
	return true, nil
}

// release closes the file and forgets what was read ahead.
func (c *cursor) release() {
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
	c.lines.forget()
}
