package audit

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"time"
)

// Lines yields a folder's lines in order, also while a ledger writes to it: up
// to the last whole one. It ends at the first error, a *CorruptError where the
// lines cannot be told apart. A line is valid until the next one. Lines does
// not check the chain: Verify does. What retention deletes meanwhile, before it
// was read, is passed over.
func Lines(dir string) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		c := cursor{dir: dir}
		defer c.release()
		c.all()(yield)
	}
}

// all is every line that is there.
func (c *cursor) all() iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		for {
			l, err := c.next()
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(l, err) || err != nil {
				return
			}
		}
	}
}

// Follow yields the last n lines of a folder and then every new one, until ctx
// ends. It asks for new ones at each tick. A segment that somebody took away has
// a few ticks in which the ledger may put it back.
func Follow(ctx context.Context, dir string, n int, tick <-chan time.Time) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		c := cursor{dir: dir}
		defer c.release()
		last, err := c.tail(n)
		for _, l := range last {
			if !yield(l, nil) {
				return
			}
		}
		away := 0
		for {
			var l Line
			missing := false
			if err == nil {
				l, err = c.next()
				missing = errors.Is(err, fs.ErrNotExist)
			}
			if missing {
				away++
			} else {
				away = 0
			}
			if errors.Is(err, io.EOF) || missing && away <= followAway {
				err = nil
				select {
				case <-tick:
					continue
				case <-ctx.Done():
					return
				}
			}
			if !yield(l, err) || err != nil {
				return
			}
		}
	}
}

// followAway is how many ticks in a row a segment may be away: longer than a
// ledger takes to notice, where they are as often as the commands'.
const followAway = 25

// Tail is the last n lines of a folder, the oldest first.
func Tail(dir string, n int) ([]Line, error) {
	c := cursor{dir: dir}
	defer c.release()
	return c.tail(n)
}

// tail moves the cursor behind the last line. It begins with the last segment
// and goes back by as many as it needs.
func (c *cursor) tail(n int) ([]Line, error) {
	list, err := segments(c.dir)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	from := len(list) - 1
	if n > 0 {
		// Names are seqs: the line that is n before the end is in the last
		// segment that starts at or before it.
		end, err := c.skip(list[from], nil)
		if err != nil {
			return nil, err
		}
		for from > 0 && list[from]+uint64(n) > end+1 {
			from--
		}
	}
	var last []Line
	_, err = c.skip(list[from], func(l Line) {
		if n <= 0 {
			return
		}
		l.Raw = append([]byte(nil), l.Raw...)
		if len(last) == n {
			copy(last, last[1:])
			last = last[:n-1]
		}
		last = append(last, l)
	})
	return last, err
}

// skip reads from a segment to the end: the last seq.
func (c *cursor) skip(first uint64, each func(Line)) (uint64, error) {
	c.start(first)
	c.last = first - 1
	for {
		l, err := c.next()
		if errors.Is(err, io.EOF) {
			return c.last, nil
		}
		if err != nil {
			return 0, err
		}
		if each != nil {
			each(l)
		}
	}
}
