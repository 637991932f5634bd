package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
)

// A cursor reads a folder's lines across its segments, also while a ledger
// writes to it and retention deletes there: only whole lines, each once. It
// keeps no file open between rounds, because a segment may be replaced.
type cursor struct {
	dir    string
	first  uint64 // the segment; 0: none yet
	last   uint64 // seq of the last line; 0: none yet
	lines  lineReader
	file   segmentFile
	strict bool // lines that retention took away unread are errRetired, and not passed over
	torn   int  // bytes of an unfinished line, where next came to the end
}

// errRetired says that retention deleted what was to be read next.
var errRetired = errors.New("retention deleted segments while they were read")

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
			corrupt.Seq = max(c.last+1, c.first)
		}
		if !errors.Is(err, io.EOF) {
			return Line{}, err
		}
		if more, err := c.advance(); err != nil {
			return Line{}, err
		} else if !more {
			c.torn = len(c.lines.rest())
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
	for {
		f, name, err := openSegment(c.dir, c.first)
		if err == nil {
			c.file, c.lines.file, c.lines.name = f, f, name
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		list, lerr := segments(c.dir)
		switch {
		case lerr != nil:
			return lerr
		case len(list) == 0 || list[0] <= c.first: // not taken from the old end, as retention does
			return err
		}
		if err := c.retired(list[0]); err != nil {
			return err
		}
	}
}

// retired goes on with the oldest segment that is left.
func (c *cursor) retired(oldest uint64) error {
	if c.strict && c.last != 0 && oldest != c.last+1 {
		return errRetired
	}
	c.start(oldest)
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
	if c.last == 0 || list[i] == c.last+1 {
		c.start(list[i])
		return true, nil
	}
	return c.overtaken(list[i])
}

// overtaken tells the reasons apart why the next segment is missing: the ledger
// has put another file in this one's place, which holds more (Ledger), or
// retention, which takes the oldest first, has taken this one, too.
func (c *cursor) overtaken(next uint64) (bool, error) {
	f, name, err := openSegment(c.dir, c.first)
	if err == nil {
		c.release()
		c.file, c.lines.file, c.lines.name = f, f, name
		if err := c.lines.fill(); !errors.Is(err, io.EOF) {
			return err == nil, err
		}
		return false, &CorruptError{File: segmentName(c.last + 1), Seq: c.last + 1,
			Reason: fmt.Sprintf("the segment is missing: the one before ends with seq %d, the next is %s", c.last, segmentName(next))}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	list, err := segments(c.dir)
	if err != nil {
		return false, err
	}
	if len(list) == 0 || list[0] < c.first {
		return false, &CorruptError{File: segmentName(c.first), Seq: c.first, Reason: "the segment is missing, and an older one is there"}
	}
	return true, c.retired(list[0])
}

// release closes the file and forgets what was read ahead.
func (c *cursor) release() {
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
	c.lines.forget()
}
