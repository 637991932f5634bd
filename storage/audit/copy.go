package audit

import (
	"context"
	"errors"
	"io"
	"time"
)

// A copier writes every line that is written from now on to Options.Copy. It
// reads the segments, so that a reader of the copy that stands still costs
// neither memory nor a line.
type copier struct {
	l      *Ledger
	cursor cursor
	wake   chan struct{}
	quit   chan struct{}
	done   chan struct{}
	err    error  // guarded by the ledger's mu, as is copied
	copied uint64 // seq of the last line that is out
}

func newCopier(l *Ledger) *copier {
	c := &copier{l: l, cursor: cursor{dir: l.opt.Dir}, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	c.cursor.start(l.w.first)
	c.cursor.lines.offset, c.cursor.last = l.w.size, l.written.seq
	c.copied = l.written.seq
	return c
}

func (c *copier) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *copier) run() {
	defer close(c.done)
	defer c.cursor.release()
	for {
		select {
		case <-c.wake:
			c.catchUp()
		case <-c.quit:
			c.catchUp()
			return
		}
	}
}

// catchUp copies up to the last line written. What is read beyond the end that
// was seen may yet be cut off and written anew: it is forgotten every round.
func (c *copier) catchUp() {
	for {
		c.l.mu.Lock()
		end := c.l.written.seq
		c.l.mu.Unlock()
		if c.cursor.last >= end {
			return
		}
		err := c.round(end)
		c.cursor.release()
		if err != nil {
			c.note(err)
			return
		}
	}
}

func (c *copier) round(end uint64) error {
	for c.cursor.last < end {
		l, err := c.cursor.next()
		if errors.Is(err, io.EOF) {
			err = errors.New("the log is shorter than what was written: lines were removed")
		}
		if err == nil {
			err = c.write(l.Raw[:len(l.Raw)+1]) // its line feed is behind it
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// write goes on until the whole line is out: half of one would spoil the next.
func (c *copier) write(line []byte) error {
	for {
		n, err := c.l.opt.Copy.Write(line)
		line = line[min(max(n, 0), len(line)):]
		if len(line) == 0 {
			c.l.mu.Lock()
			c.err, c.copied = nil, c.cursor.last
			c.l.mu.Unlock()
			return nil
		}
		if err == nil {
			err = io.ErrShortWrite
		}
		c.note(err)
		t := time.NewTimer(c.l.opt.pause)
		select {
		case <-t.C:
		case <-c.quit:
			t.Stop()
			return err
		}
	}
}

func (c *copier) note(err error) {
	c.l.mu.Lock()
	c.err = err
	c.l.mu.Unlock()
}

// stop copies what is left until ctx ends. A Copy that blocks for ever keeps
// its goroutine until the process ends.
func (c *copier) stop(ctx context.Context) {
	close(c.quit)
	select {
	case <-c.done:
	case <-ctx.Done():
	}
}
