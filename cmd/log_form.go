package cmd

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// logLine bounds a line of the log as it is written. An entry of Cloud Logging
// holds 256 KiB (https://cloud.google.com/logging/quotas), of which its own
// fields take a part.
const logLine = 200 << 10

// logShown is how much is shown of a longer one, in bytes before they are
// escaped once more.
const logShown = 16 << 10

// logForm is how lines are shown: as the configuration says.
func logForm(s settings) func(to, line []byte) []byte {
	if s.config.Log.Format != "console" {
		return appendJSONLine
	}
	p := program{env: s.env}
	c := consoleForm{colour: p.colour(s.stderr)}
	return c.appendLine
}

// A formWriter writes each line as it is shown.
type formWriter struct {
	out  io.Writer
	form func(to, line []byte) []byte
}

func (f *formWriter) Write(line []byte) (int, error) {
	if _, err := f.out.Write(f.form(nil, bytes.TrimSuffix(line, []byte("\n")))); err != nil {
		return 0, err
	}
	return len(line), nil
}

// appendJSONLine appends a line that zerolog made, which has no line feed, and
// one. JSON escapes control characters; what else a terminal may take for
// commands, or shows in another order, or not at all, is escaped here, whoever
// wrote the line: outside of strings there is nothing but ASCII.
func appendJSONLine(to, line []byte) []byte {
	before := len(to)
	for from := 0; ; {
		n := ascii(line[from:])
		to = append(to, line[from:from+n]...)
		if from += n; from == len(line) {
			break
		}
		r, size := utf8.DecodeRune(line[from:])
		switch {
		case unicode.IsPrint(r):
			to = append(to, line[from:from+size]...)
		case r < 0x10000:
			to = fmt.Appendf(to, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			to = fmt.Appendf(to, `\u%04x\u%04x`, high, low)
		}
		from += size
	}
	if len(to)-before > logLine {
		to = append(to[:before], shortLine(line)...)
	}
	return append(to, '\n')
}

// ascii is how many bytes at the beginning are plain ASCII. Most lines have no
// others: they are looked at eight at a time.
func ascii(b []byte) (n int) {
	const tops = 0x8080808080808080
	for len(b)-n >= 8 && binary.LittleEndian.Uint64(b[n:])&tops == 0 {
		n += 8
	}
	for n < len(b) && b[n] < utf8.RuneSelf {
		n++
	}
	return n
}

// shortLine takes the place of a line that is too long: its beginning as text,
// under the same level.
func shortLine(line []byte) []byte {
	var kept struct {
		Level    string `json:"level,omitempty"`
		Severity string `json:"severity,omitempty"`
		Time     string `json:"time,omitempty"`
		Message  string `json:"message"`
		Bytes    int    `json:"bytes"`
		Line     string `json:"line"`
	}
	_ = json.Unmarshal(line, &kept) // what it does not hold stays empty
	if len(kept.Level)+len(kept.Severity)+len(kept.Time) > 100 {
		kept.Level, kept.Severity, kept.Time = "error", "ERROR", ""
	}
	kept.Message = "a line was too long for the log; this is its beginning"
	kept.Bytes, kept.Line = len(line), steerless(string(line[:logShown]))
	short, err := json.Marshal(kept)
	if err != nil {
		return []byte(`{"level":"error","severity":"ERROR","message":"a line was too long for the log"}`)
	}
	return short
}

// droppedLine tells of lines that are missing here.
func droppedLine(n uint64) []byte {
	var b bytes.Buffer
	log := newLogger(&b)
	log.WithLevel(zerolog.WarnLevel).Uint64("lines", n).Msg("log lines were dropped: nobody read them in time, or they could not be written")
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
