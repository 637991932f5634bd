package proxy

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Error codes of the gateway's own answers: docs/http.md explains each.
const (
	codeNoToken         = "no_token"
	codeInvalidToken    = "invalid_token"
	codeNotAllowed      = "not_allowed"
	codeBadTarget       = "bad_target"
	codeBadRequest      = "bad_request"
	codeNoRoute         = "no_route"
	codeMethod          = "method"
	codeTooLarge        = "too_large"
	codeUnsupportedType = "unsupported_type"
	codeInvalidField    = "invalid_field"
	codeNoSession       = "no_session"
	codeNotUploaded     = "not_uploaded"
	codeExpired         = "expired"
	codeMismatch        = "mismatch"
	codeExists          = "exists"
	codeState           = "state"
	codeQuota           = "quota"
	codeIdempotencyKey  = "idempotency_key"
	codeUnavailable     = "unavailable"
	codeUpstreamFailed  = "upstream_failed"
	codeUpstreamTimeout = "upstream_timeout"
	codeInternal        = "internal"
	codeRate            = "rate"
	codeCrossOrigin     = "cross_origin"
	// codeNotRepresentable is of headers whose readers decode nothing.
	codeNotRepresentable = "identity_not_representable"
)

// A problem is an answer of the gateway's own that is not a success
// (RFC 9457). As an error it has one text for the caller and another for the
// log.
type problem struct {
	status int
	code   string
	detail string // for the caller: no token, no claim's value, no key
	field  string // the field that is wrong, of invalid_field
	allow  []string
	// challenge is the error of WWW-Authenticate (RFC 6750): "" for none.
	challenge string
	hangUp    bool          // close the connection: its framing is in doubt
	retry     time.Duration // until it makes sense to ask again, of rate
	cause     error         // for the log
	uppy      bool          // its reader is a client of Uppy's
}

func (p *problem) Error() string {
	if p.cause != nil {
		return p.code + ": " + p.cause.Error()
	}
	return p.code + ": " + p.detail
}

func (p *problem) Unwrap() error { return p.cause }

func unavailable(detail string, cause error) *problem {
	return &problem{status: http.StatusServiceUnavailable, code: codeUnavailable, detail: detail, cause: cause}
}

// problemBody is the JSON of RFC 9457; type is about:blank, so title is the
// status's own text.
type problemBody struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	Code      string `json:"code"`
	Field     string `json:"field,omitempty"`
	RequestID string `json:"request_id"`
}

// uppyProblem is a problem's body for a client of Uppy's, which looks for what
// Companion answers.
type uppyProblem struct {
	problemBody
	Message string `json:"message"`
	Error   struct {
		Code string `json:"code"`
	} `json:"error"`
	RequestID string `json:"requestId"`
}

// body is the problem's JSON.
func (p *problem) body(id string) []byte {
	body := problemBody{"about:blank", http.StatusText(p.status), p.status, p.detail, p.code, p.field, id}
	if !p.uppy {
		return body.appendJSON(make([]byte, 0, 256+len(p.detail)))
	}
	shown := uppyProblem{problemBody: body, Message: p.detail, RequestID: id}
	shown.Error.Code = p.code
	out, err := json.Marshal(shown)
	if err != nil {
		return nil
	}
	return out
}

// retryAfter is what unavailable answers suggest, in seconds.
const retryAfter = 5

// retrySeconds is when it makes sense to ask again; 0: it is not known.
func (p *problem) retrySeconds() int64 {
	switch p.status {
	case http.StatusServiceUnavailable:
		return retryAfter
	case http.StatusTooManyRequests:
		return int64(max(p.retry+time.Second-1, time.Second) / time.Second)
	}
	return 0
}

// write sends the problem as the answer.
func (p *problem) write(w http.ResponseWriter, r *http.Request, realm, id string, unread bool) {
	h := w.Header()
	clear(h)
	values := make(lines, 0, 8)
	values.ownAnswer(h, id)
	h["Content-Type"] = values.line("application/problem+json")
	switch {
	case p.status == http.StatusUnauthorized || p.challenge != "":
		h["Www-Authenticate"] = values.line(challenge(realm, p.challenge, p.detail))
	case p.retrySeconds() > 0:
		h["Retry-After"] = values.line(strconv.FormatInt(p.retrySeconds(), 10))
	}
	if p.allow != nil {
		h["Allow"] = values.line(strings.Join(p.allow, ", "))
	}
	if (p.hangUp || unread) && r.ProtoMajor < 2 { // a connection of HTTP/2 is others', too
		// Else net/http would wait for the rest of the body before it answers.
		h["Connection"] = values.line("close")
	}
	if speaksGRPC(r) {
		p.writeGRPC(w, r.Header.Get("Content-Type"))
		return
	}
	body := p.body(id)
	h["Content-Length"] = values.line(strconv.Itoa(len(body)))
	w.WriteHeader(p.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the caller is gone; there is nobody to tell
	}
}

// ownAnswer marks an answer as the gateway's own, and as nobody's to keep.
func ownAnswer(h http.Header, id string) {
	values := make(lines, 0, 4)
	values.ownAnswer(h, id)
}

// lines are the values of an answer's headers, in one piece of memory.
type lines []string

// line is a header's one value. Who adds another gets a slice of its own.
func (l *lines) line(value string) []string {
	*l = append(*l, value)
	n := len(*l)
	return (*l)[n-1 : n : n]
}

func (l *lines) ownAnswer(h http.Header, id string) {
	h["X-Request-Id"] = l.line(id)
	h["X-Sidegate-Response"] = l.line("true")
	h["Cache-Control"] = l.line("no-store")
	h["X-Content-Type-Options"] = l.line("nosniff")
}

// challenge is the value of WWW-Authenticate. Without credentials there is no
// error attribute (RFC 6750, section 3.1).
func challenge(realm, code, description string) string {
	switch {
	case code == "":
		return `Bearer realm="` + quotable(realm) + `"`
	case code == codeInvalidToken && description != "":
		return `Bearer realm="` + quotable(realm) + `", error="` + code + `", error_description="` + quotable(description) + `"`
	}
	return `Bearer realm="` + quotable(realm) + `", error="` + code + `"`
}

// quotable drops what may not stand in error_description (RFC 6750, section 3).
func quotable(s string) string {
	odd := func(r rune) bool { return r < 0x20 || r > 0x7e || r == '"' || r == '\\' }
	if strings.IndexFunc(s, odd) < 0 {
		return s
	}
	return strings.Map(func(r rune) rune {
		if odd(r) {
			return -1
		}
		return r
	}, s)
}
