package cmd

import (
	"bytes"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// logWaiting is how many bytes of lines wait for a slow standard error: beyond it
// lines are dropped and counted. The log never holds up a request.
const logWaiting = 4 << 20

const (
	// logAtOnce is how much one write takes: a pipe that several processes write
	// to keeps so much together (PIPE_BUF of Linux), and so whole lines whole.
	logAtOnce = 4 << 10
	// logKept is how large a buffer may be that is kept.
	logKept = 512 << 10
)

// A logQueue takes lines from anybody and writes them from a goroutine of its
// own. What cannot be written, because nobody reads or the disk is full, is
// dropped and counted at once.
type logQueue struct {
	out  io.Writer
	form func(to, line []byte) []byte // appends a line as it is shown

	mu      sync.Mutex
	waiting []byte // whole lines
	closed  bool
	wake    chan struct{}
	done    chan struct{}

	dropped atomic.Uint64 // lines
	// Of the goroutine: how many of them a line in the log has told of, and
	// whether the last write ended within a line.
	told uint64
	torn bool
}

func newLogQueue(out io.Writer, form func(to, line []byte) []byte) *logQueue {
	q := &logQueue{out: out, form: form, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write takes one line with its line feed. It neither waits nor fails: zerolog
// would tell of an error on standard error, from the goroutine of a request.
func (q *logQueue) Write(line []byte) (int, error) {
	q.mu.Lock()
	fits := !q.closed && len(q.waiting)+len(line) <= logWaiting
	if fits {
		q.waiting = append(q.waiting, line...)
	}
	q.mu.Unlock()
	if !fits {
		q.dropped.Add(1)
	} else {
		q.poke()
	}
	return len(line), nil
}

func (q *logQueue) poke() {
	select {
	case q.wake <- struct{}{}:
	default: // it is awake, and will see this line too
	}
}

func (q *logQueue) run() {
	defer close(q.done)
	var batch, shown []byte
	for range q.wake {
		runtime.Gosched() // requests that can run now add their lines: many share one write(2)
		for {
			q.mu.Lock()
			batch, q.waiting = q.waiting, batch[:0]
			closed := q.closed
			q.mu.Unlock()
			if len(batch) == 0 {
				if closed {
					return
				}
				break
			}
			shown = q.writeAll(batch, shown)
			if cap(batch) > logKept { // of a burst
				batch = nil
			}
			if cap(shown) > logKept {
				shown = nil
			}
		}
	}
}

// writeAll writes whole lines, several at once where they fit. It gives buf
// back, which it uses.
func (q *logQueue) writeAll(lines, buf []byte) []byte {
	buf = buf[:0]
	for len(lines) > 0 {
		line, rest, _ := bytes.Cut(lines, []byte("\n"))
		lines = rest
		before := len(buf)
		if buf = q.form(buf, line); before > 0 && len(buf) > logAtOnce {
			q.put(buf[:before])
			buf = append(buf[:0], buf[before:]...)
		}
	}
	q.put(buf)
	return buf
}

// put writes lines, and before them how many were dropped since that was last
// said. Where a write fails that can only be counted.
func (q *logQueue) put(lines []byte) {
	if n := q.dropped.Load(); n != q.told && q.write(q.form(nil, droppedLine(n-q.told))) == 0 {
		q.told = n
	}
	if left := q.write(lines); left > 0 {
		q.dropped.Add(uint64(left))
	}
}

// write gives how many of these lines were not taken as a whole.
func (q *logQueue) write(lines []byte) (left int) {
	if q.torn { // else the next line would be a part of the torn one
		if n, _ := q.out.Write([]byte("\n")); n != 1 {
			return bytes.Count(lines, []byte("\n"))
		}
		q.torn = false
	}
	n, _ := q.out.Write(lines)
	n = min(max(n, 0), len(lines))
	q.torn = n > 0 && lines[n-1] != '\n'
	return bytes.Count(lines[n:], []byte("\n"))
}

// close writes what waits, for at most so long; who blocks for ever keeps the
// goroutine until the process ends.
func (q *logQueue) close(wait time.Duration) {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.poke()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-q.done:
	case <-t.C:
	}
}

// metrics counts what the log did not hold.
func (q *logQueue) metrics() prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "sidegate_log_dropped_total", ConstLabels: prometheus.Labels{"stream": "stderr"},
		Help: "Lines of the gateway's own log that were dropped: nobody read them in time, or they could not be written.",
	}, func() float64 { return float64(q.dropped.Load()) })
}
