package cmd

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// logFlush bounds how long the end waits for a standard error that blocks.
const logFlush = 200 * time.Millisecond

// A gatewayLog is the gateway's own log, on standard error: what is written, from
// which level on, and what waits to be written.
type gatewayLog struct {
	zerolog.Logger
	level *logLevel
	queue *logQueue
}

// newLog writes from a goroutine of its own, until close.
func newLog(s settings) gatewayLog {
	l := gatewayLog{level: newLogLevel(s.config.Log.Level)}
	l.queue = newLogQueue(s.stderr, logForm(s))
	l.Logger = newLogger(l.queue).Sample(l.level)
	return l
}

// close writes what is left, for a moment.
func (l gatewayLog) close() { l.queue.close(logFlush) }

// directLog writes at once, and so waits for who reads: for the last words of a
// gateway that ends.
func directLog(s settings) zerolog.Logger {
	return newLogger(&formWriter{s.stderr, logForm(s)})
}

// newLogger gives each line its time and Cloud Logging's name of its level.
func newLogger(w io.Writer) zerolog.Logger { return zerolog.New(w).Hook(stamp{}) }

type stamp struct{}

func (stamp) Run(e *zerolog.Event, level zerolog.Level, _ string) {
	var b [48]byte
	e.Str("severity", severityOf(level)).Bytes("time", appendTime(b[:0], time.Now()))
}

// appendTime appends a time in UTC with microseconds, all six of them: so lines
// sort as text. The package time is quick for one form, which has none.
func appendTime(to []byte, t time.Time) []byte {
	t = t.UTC()
	to = bytes.TrimSuffix(t.AppendFormat(to, time.RFC3339), []byte("Z"))
	micros := t.Nanosecond() / 1000
	to = append(to, '.')
	for unit := 100_000; unit > 0; unit /= 10 {
		to = append(to, byte('0'+micros/unit%10))
	}
	return append(to, 'Z')
}

// severityOf is a level's name in Cloud Logging (LogSeverity).
func severityOf(level zerolog.Level) string {
	switch level {
	case zerolog.DebugLevel:
		return "DEBUG"
	case zerolog.InfoLevel:
		return "INFO"
	case zerolog.WarnLevel:
		return "WARNING"
	}
	return "ERROR"
}

// A logLevel is the least severe level that is written. It may be changed at any
// time, by anybody: zerolog asks it for each line before the line is made.
type logLevel struct{ least atomic.Int32 }

func newLogLevel(name string) *logLevel {
	l := new(logLevel)
	l.set(name)
	return l
}

// set takes one of logLevels; anything else is info.
func (l *logLevel) set(name string) {
	level, err := zerolog.ParseLevel(name)
	if err != nil || name == "" {
		level = zerolog.InfoLevel
	}
	l.least.Store(int32(level))
}

func (l *logLevel) String() string { return zerolog.Level(l.least.Load()).String() }

// Sample is zerolog's question whether a line is written.
func (l *logLevel) Sample(level zerolog.Level) bool { return int32(level) >= l.least.Load() }
