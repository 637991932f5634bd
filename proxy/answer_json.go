package proxy

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"
)

// The answers that are given most are written field by field: encoding/json
// finds out anew each time what they are made of. A fuzz test holds every byte
// against it.

// appendText adds a JSON string as encoding/json writes it, with what HTML would
// take for its own escaped or not. What is not plain is left to encoding/json.
func appendText(b []byte, s string, escapeHTML bool) []byte {
	for i := range len(s) {
		c := s[i]
		if c < ' ' || c > '~' || c == '"' || c == '\\' || escapeHTML && (c == '<' || c == '>' || c == '&') {
			return appendAnyText(b, s, escapeHTML)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendAnyText(b []byte, s string, escapeHTML bool) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(escapeHTML)
	_ = enc.Encode(s) // of a string it has no error
	return append(b, bytes.TrimSuffix(out.Bytes(), []byte("\n"))...)
}

// appendTexts adds an object of strings, by name.
func appendTexts(b []byte, texts map[string]string) []byte {
	if texts == nil {
		return append(b, "null"...)
	}
	var room [8]string
	names := slices.AppendSeq(room[:0], maps.Keys(texts))
	slices.Sort(names)
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, name, false)
		b = append(b, ':')
		b = appendText(b, texts[name], false)
	}
	return append(b, '}')
}

// A fast is an answer that is written without encoding/json, URLs as they are.
type fast interface {
	appendJSON(to []byte) ([]byte, error)
}

// appendJSON is a presigned upload's.
func (a *presigned) appendJSON(to []byte) ([]byte, error) {
	text := func(name, value string) {
		to = append(to, name...)
		to = appendText(to, value, false)
	}
	text(`{"key":`, a.Key)
	if a.PutURL != "" {
		text(`,"putUrl":`, a.PutURL)
	}
	if a.PostURL != "" {
		text(`,"postUrl":`, a.PostURL)
	}
	to = append(to, `,"expiresSeconds":`...)
	to = strconv.AppendInt(to, a.ExpiresSeconds, 10)
	text(`,"session":`, a.Session)
	text(`,"method":`, a.Method)
	to = append(to, `,"headers":`...)
	to = appendTexts(to, a.Headers)
	if len(a.Fields) > 0 {
		to = append(to, `,"fields":`...)
		to = appendTexts(to, a.Fields)
	}
	return appendEnd(to, a.ExpiresAt)
}

// appendJSON is a presigned download's.
func (a *downloadable) appendJSON(to []byte) ([]byte, error) {
	to = append(to, `{"getUrl":`...)
	to = appendText(to, a.GetURL, false)
	to = append(to, `,"expiresSeconds":`...)
	to = strconv.AppendInt(to, a.ExpiresSeconds, 10)
	return appendEnd(to, a.ExpiresAt)
}

// appendEnd adds when a URL ends, which is the last of its answer.
func appendEnd(to []byte, at time.Time) ([]byte, error) {
	to = append(to, `,"expiresAt":"`...)
	to, err := at.AppendText(to)
	return append(to, '"', '}'), err
}

// appendJSON adds the problem's body, but for Uppy's clients.
func (b *problemBody) appendJSON(to []byte) []byte {
	to = append(to, `{"type":`...)
	to = appendText(to, b.Type, true)
	to = append(to, `,"title":`...)
	to = appendText(to, b.Title, true)
	to = append(to, `,"status":`...)
	to = strconv.AppendInt(to, int64(b.Status), 10)
	if b.Detail != "" {
		to = append(to, `,"detail":`...)
		to = appendText(to, b.Detail, true)
	}
	to = append(to, `,"code":`...)
	to = appendText(to, b.Code, true)
	if b.Field != "" {
		to = append(to, `,"field":`...)
		to = appendText(to, b.Field, true)
	}
	to = append(to, `,"request_id":`...)
	to = appendText(to, b.RequestID, true)
	return append(to, '}')
}
