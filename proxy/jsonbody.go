package proxy

import (
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sidegate/policy"
	"sidegate/proxy/strictjson"
)

// Bounds of the bodies of served routes, in bytes.
const (
	maxRequest       = 16 << 10
	maxBatchRequest  = 256 << 10 // of 100 uploads or downloads, or of 1000 parts
	maxPartsComplete = 1 << 20   // 10,000 parts with the ETags of S3 are two thirds of it
)

// readBody reads a served route's body whole.
func (x *exchange) readBody(limit int64) ([]byte, *problem) {
	if x.body == nil {
		return readBounded(http.NoBody, limit)
	}
	x.body.until = time.Now().Add(x.p.o.IdleTimeout) // it is small: dripping is no way to send it
	return readBounded(x.body, limit)
}

func readBounded(body io.Reader, limit int64) ([]byte, *problem) {
	data, err := io.ReadAll(io.LimitReader(body, limit+1))
	switch {
	case int64(len(data)) > limit:
		return nil, &problem{status: http.StatusRequestEntityTooLarge, code: codeTooLarge, detail: "the request's body is larger than " + strconv.FormatInt(limit>>10, 10) + " KiB", hangUp: true}
	case err != nil:
		return nil, &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "the request's body is malformed or stalled", hangUp: true, cause: err}
	case !utf8.Valid(data): // encoding/json would put something else in its place
		return nil, malformed("the body is not UTF-8")
	}
	return data, nil
}

// A jsonReader reads JSON of a shape that its caller knows: objects whose names
// are known and stand once each, lists of bounded length. It goes no deeper than
// its caller does, and takes nothing for something else: 1.0 is no whole number,
// and null is no text.
type jsonReader struct{ strictjson.Reader }

// readJSON reads data, which must be valid UTF-8, and one JSON object and nothing
// else; member reads the value of each name. What was read before a mistake stays
// with whoever reads.
func readJSON(data []byte, member func(j *jsonReader, name string) *problem) *problem {
	j := &jsonReader{strictjson.NewReader(string(data))}
	if pr := j.object(func(name string) *problem { return member(j, name) }); pr != nil {
		return pr
	}
	if !j.End() {
		return malformed("something follows the JSON object")
	}
	return nil
}

// maxMembers bounds the names of one object; no shape has as many.
const maxMembers = 64

func (j *jsonReader) object(member func(name string) *problem) *problem {
	if j.Skip(); !j.Take('{') {
		return malformed("a JSON object is missing in the body")
	}
	if j.Skip(); j.Take('}') {
		return nil
	}
	var room [8]string
	seen := room[:0]
	for {
		j.Skip()
		name, err := j.String()
		if err != nil || slices.Contains(seen, name) || len(seen) == maxMembers {
			return malformed("the body is not a JSON object with each key once")
		}
		seen = append(seen, name)
		if j.Skip(); !j.Take(':') {
			return badJSON()
		}
		if pr := member(name); pr != nil {
			return pr
		}
		if j.Skip(); j.Take('}') {
			return nil
		}
		if !j.Take(',') {
			return malformed("the JSON object does not end")
		}
	}
}

// list reads a list of 1 to most items.
func (j *jsonReader) list(name string, most int, item func() *problem) *problem {
	wrong := func() *problem { return wrongField(name, name+" is a list of 1 to "+strconv.Itoa(most)) }
	if j.Skip(); !j.Take('[') {
		if _, err := j.Raw(); err != nil {
			return badJSON()
		}
		return wrong()
	}
	if j.Skip(); j.Take(']') {
		return wrong()
	}
	for n := 0; ; {
		if n++; n > most {
			return wrong()
		}
		if pr := item(); pr != nil {
			return pr
		}
		if j.Skip(); j.Take(']') {
			return nil
		}
		if !j.Take(',') {
			return malformed("the JSON list does not end")
		}
	}
}

// nested reports whether a list or an object comes next.
func (j *jsonReader) nested() bool {
	c := j.Skip()
	return c == '{' || c == '['
}

// other is the problem of a value that is not what it must be.
func (j *jsonReader) other(wrong *problem) *problem {
	if j.nested() {
		return malformed("the body holds a list or an object where it must not")
	}
	if _, err := j.Raw(); err != nil {
		return badJSON()
	}
	return wrong
}

func (j *jsonReader) text(name string, to *string) *problem {
	if j.Skip() != '"' {
		return j.other(wrongField(name, name+" is a string"))
	}
	s, err := j.String()
	if err != nil {
		return badJSON()
	}
	*to = s
	return nil
}

func (j *jsonReader) number(name string, to **int64) *problem {
	wrong := func() *problem { return wrongField(name, name+" is a whole number") }
	if c := j.Skip(); c != '-' && (c < '0' || c > '9') {
		return j.other(wrong())
	}
	n, err := j.Number()
	if err != nil {
		return badJSON()
	}
	i, err := strconv.ParseInt(string(n), 10, 64)
	if err != nil {
		return wrong()
	}
	*to = &i
	return nil
}

// table reads an object of texts.
func (j *jsonReader) table(name string, to *map[string]string) *problem {
	out := map[string]string{}
	pr := j.object(func(key string) *problem {
		var value string
		if pr := j.text(name, &value); pr != nil {
			return pr
		}
		out[key] = value
		return nil
	})
	*to = out
	return pr
}

// unknownMember is what is said of a name that nobody knows.
func unknownMember(name string) *problem {
	if len(name) > 64 {
		name = strings.ToValidUTF8(name[:64], "")
	}
	return wrongField(name, "a field that is not known")
}

func wrongField(name, text string) *problem {
	return violated(&policy.Violation{Code: codeInvalidField, Status: http.StatusUnprocessableEntity, Field: name, Text: text})
}

func malformed(detail string) *problem {
	return &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: detail}
}

func badJSON() *problem { return malformed("the JSON in the body is malformed") }
