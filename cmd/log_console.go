package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A consoleForm shows lines to people: time, level, what happened, and then the
// fields in the order in which they were written.
//
//	15:04:05.000 INFO  200 GET    /v1/me  12ms  route=me uid=alice
//	15:04:05.000 WARN  the issuer's keys cannot be fetched  error="..."
type consoleForm struct{ colour bool }

// A logField is one field of a line; its value is shown as text.
type logField struct{ name, text string }

// A consoleLine is what a line holds.
type consoleLine struct {
	level, time, message string
	request              map[string]string // httpRequest
	fields               []logField
}

// appendLine appends a line that zerolog made, without its line feed.
func (c consoleForm) appendLine(to, line []byte) []byte {
	l, err := parseLogLine(line)
	if err != nil { // it is zerolog's, so this is for what nobody thought of
		return append(append(to, shownMessage(string(line))...), '\n')
	}
	before := len(to)
	to = append(to, paint(c.colour, "2")(shownMessage(clockOf(l.time)))...)
	to = append(to, ' ')
	level := fmt.Sprintf("%-5s", strings.ToUpper(shownMessage(l.level)))
	to = append(append(to, paint(c.colour, levelColour(l.level))(level)...), ' ')
	if l.request != nil && l.message == "request" {
		to = append(to, c.requestText(l.request)...)
	} else {
		to = append(to, shownMessage(l.message)...)
	}
	gap := "  "
	var stack string
	for _, f := range l.fields {
		if f.name == "stack" {
			stack = f.text
			continue
		}
		to = append(append(to, gap...), paint(c.colour, "2")(shownValue(f.name)+"=")...)
		to = append(to, shownValue(f.text)...)
		gap = " "
	}
	to = appendStack(append(to, '\n'), stack)
	if len(to)-before > logLine {
		return append(append(to[:before], shownMessage(string(shortLine(line)))...), '\n')
	}
	return to
}

// requestText is the line of a request: the fields that all of them have stand
// below each other.
func (c consoleForm) requestText(r map[string]string) string {
	status := r["status"]
	colour := "32"
	switch {
	case status >= "5" || status < "1":
		colour = "31"
	case status >= "4":
		colour = "33"
	}
	took := r["latency"]
	if seconds, err := strconv.ParseFloat(strings.TrimSuffix(took, "s"), 64); err == nil {
		took = strconv.FormatFloat(seconds*1000, 'f', 1, 64) + "ms"
	}
	text := fmt.Sprintf("%s %8s %-6s %s", paint(c.colour, colour)(fmt.Sprintf("%3s", shownMessage(status))), shownMessage(took), shownValue(r["requestMethod"]), shownValue(r["requestUrl"]))
	for _, f := range []logField{{"from", r["remoteIp"]}, {"bytes", r["responseSize"]}, {"agent", r["userAgent"]}} {
		if f.text != "" {
			text += " " + paint(c.colour, "2")(f.name+"=") + shownValue(f.text)
		}
	}
	return text
}

func levelColour(level string) string {
	switch level {
	case "debug":
		return "2"
	case "info":
		return "32"
	case "warn":
		return "33"
	}
	return "31"
}

// clockOf is the time of day of a line's time, in the zone in which it is
// written (UTC).
func clockOf(t string) string {
	_, clock, ok := strings.Cut(strings.TrimSuffix(t, "Z"), "T")
	if !ok {
		return t
	}
	return clock[:min(len(clock), len("15:04:05.000"))]
}

// parseLogLine reads one line, and keeps its fields' order. What is there for
// Cloud Logging only is left out.
func parseLogLine(line []byte) (consoleLine, error) {
	var l consoleLine
	d := json.NewDecoder(bytes.NewReader(line))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return l, fmt.Errorf("no line of a log: %w", err)
	}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return l, err
		}
		name, _ := t.(string)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return l, err
		}
		text := fieldText(value)
		switch {
		case name == "level":
			l.level = text
		case name == "time":
			l.time = text
		case name == "message":
			l.message = text
		case name == "httpRequest":
			l.request = requestFields(value)
		case name == "severity", strings.HasPrefix(name, "logging.googleapis.com/"):
		default:
			l.fields = append(l.fields, logField{name, text})
		}
	}
	return l, nil
}

func requestFields(value json.RawMessage) map[string]string {
	var all map[string]json.RawMessage
	if json.Unmarshal(value, &all) != nil {
		return nil
	}
	fields := make(map[string]string, len(all))
	for name, v := range all {
		fields[name] = fieldText(v)
	}
	return fields
}

// fieldText is a string's text, or another value's JSON.
func fieldText(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) == nil {
		return s
	}
	return string(value)
}

// shownMessage is text on one line that steers no terminal.
func shownMessage(s string) string {
	s = steerless(s)
	if !strings.ContainsAny(s, "\n\t") {
		return s
	}
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(s)
}

// shownValue is a value that ends where it seems to: it is quoted unless it is
// one plain word.
func shownValue(s string) string {
	word := s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return r == '"' || r == '=' || r == utf8.RuneError || unicode.IsSpace(r) || !unicode.IsPrint(r)
	})
	if word {
		return s
	}
	return strconv.Quote(s)
}

// appendStack shows where the program was when it panicked, in lines that none
// of the log can be taken for.
func appendStack(to []byte, stack string) []byte {
	for line := range strings.Lines(stack) {
		to = append(append(append(to, "    | "...), shownMessage(strings.TrimRight(line, "\n"))...), '\n')
	}
	return to
}
