package cmd

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
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
	// logLinger is how long a line waits for company, as outcomes do in the audit
	// log: the writing goroutine is then woken, and writes, once for many requests.
	logLinger = 10 * time.Millisecond
	// logCompany is how many bytes are company enough.
	logCompany = 32 << 10
)

// A logQueue takes lines from anybody and writes them from a goroutine of its
// own, a moment later: only what warns is written at once, with all before it.
// What cannot be written, because nobody reads or the disk is full, is dropped and
// counted at once.
type logQueue struct {
	out  io.Writer
	form func(to, line []byte) []byte // appends a line as it is shown

	mu      sync.Mutex
	waiting []byte // whole lines
	closed  bool
	wake    chan struct{} // a line waits
	now     chan struct{} // and not for company
	done    chan struct{}

	dropped atomic.Uint64 // lines
	// Of the goroutine: how many of them a line in the log has told of, and
	// whether the last write ended within a line.
	told uint64
	torn bool
}

func newLogQueue(out io.Writer, form func(to, line []byte) []byte) *logQueue {
	q := &logQueue{out: out, form: form, wake: make(chan struct{}, 1), now: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// Write takes one line with its line feed, of a level that nobody told.
func (q *logQueue) Write(line []byte) (int, error) { return q.WriteLevel(zerolog.NoLevel, line) }

// WriteLevel takes one line with its line feed. It neither waits nor fails:
// zerolog would tell of an error on standard error, from the goroutine of a request.
func (q *logQueue) WriteLevel(level zerolog.Level, line []byte) (int, error) {
	q.mu.Lock()
	before := len(q.waiting)
	fits := !q.closed && before+len(line) <= logWaiting
	if fits {
		q.waiting = append(q.waiting, line...)
	}
	q.mu.Unlock()
	if !fits {
		q.dropped.Add(1)
		return len(line), nil
	}
	if before == 0 {
		poke(q.wake)
	}
	if level >= zerolog.WarnLevel || before < logCompany && before+len(line) >= logCompany {
		poke(q.now)
	}
	return len(line), nil
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // who waits there is told already, and will see this line too
	}
}

func (q *logQueue) run() {
	defer close(q.done)
	var batch, shown []byte
	company := time.NewTimer(logLinger)
	defer company.Stop()
	for range q.wake {
		company.Reset(logLinger)
		select {
		case <-company.C:
		case <-q.now:
		}
		q.mu.Lock()
		batch, q.waiting = q.waiting, batch[:0]
		closed := q.closed
		q.mu.Unlock()
		shown = q.writeAll(batch, shown)
		if closed { // and so takes no more
			return
		}
		if cap(batch) > logKept { // of a burst
			batch = nil
		}
		if cap(shown) > logKept {
			shown = nil
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
	if len(buf) > 0 {
		q.put(buf)
	}
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
	poke(q.wake)
	poke(q.now)
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
