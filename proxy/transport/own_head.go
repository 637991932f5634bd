package transport

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// A refusedRequest is one that must not be sent as it is. It says nothing of the
// upstream.
type refusedRequest struct{ text string }

func (e *refusedRequest) Error() string { return "the request cannot be sent: " + e.text }

func refuse(format string, a ...any) error { return &refusedRequest{fmt.Sprintf(format, a...)} }

// check holds against a request what is no matter of its head.
func (o *own) check(req *http.Request) error {
	switch {
	case req.URL == nil || req.URL.Host == "":
		return refuse("its URL has no host")
	case req.Header == nil:
		return refuse("it has no header")
	case req.URL.Scheme != "http" && req.URL.Scheme != "https", (req.URL.Scheme == "https") != (o.any != nil):
		return refuse("its scheme is not the upstream's")
	case !httpguts.ValidHeaderFieldName(method(req)): // RFC 9110, section 9.1: it is a token, too
		return refuse("its method is none")
	case req.Body == nil && req.ContentLength != 0:
		return refuse("it says a length and has no body")
	}
	return nil
}

func method(req *http.Request) string {
	if req.Method == "" {
		return http.MethodGet
	}
	return req.Method
}

// bodyLength is how long the body is that is sent; -1: in chunks.
func bodyLength(req *http.Request, body *requestBody) int64 {
	switch {
	case body == nil:
		return 0
	case isChunked(req), req.ContentLength <= 0:
		return -1
	}
	return req.ContentLength
}

// appendHead adds the request's head, for a body of this length. Everything that
// comes from the request is held against what may stand there: nothing of it may
// end a line.
func appendHead(b []byte, req *http.Request, host string, length int64) ([]byte, error) {
	b = append(b, method(req)...)
	b = append(b, ' ')
	b, err := appendTarget(b, req.URL)
	if err != nil {
		return b, err
	}
	b = append(b, " HTTP/1.1\r\nHost: "...)
	if req.Host != "" {
		if host, err = hostOf(req.Host); err != nil {
			return b, err
		}
	}
	b = append(b, host...)
	b = append(b, "\r\n"...)
	if req.Close && !httpguts.HeaderValuesContainsToken(req.Header["Connection"], "close") {
		b = append(b, "Connection: close\r\n"...)
	}
	switch {
	case length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case length > 0 || expectsLength(req.Method):
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, length, 10)
		b = append(b, "\r\n"...)
	}
	if b, err = appendFields(b, req.Header); err != nil {
		return b, err
	}
	return append(b, "\r\n"...), nil
}

// expectsLength: RFC 9110, section 8.6, wants one of methods whose request has a
// body usually.
func expectsLength(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

func appendTarget(b []byte, u *url.URL) ([]byte, error) {
	begin := len(b)
	if u.Opaque != "" {
		b = append(b, u.RequestURI()...)
	} else {
		path := u.EscapedPath()
		if path == "" {
			path = "/"
		}
		b = append(b, path...)
		if u.ForceQuery || u.RawQuery != "" {
			b = append(b, '?')
			b = append(b, u.RawQuery...)
		}
	}
	for _, c := range b[begin:] {
		if c <= ' ' || c == 0x7f {
			return b, refuse("its target holds a space or a control character")
		}
	}
	return b, nil
}

var errHost = errors.New("its Host is none")

func hostOf(host string) (string, error) {
	host, err := httpguts.PunycodeHostPort(host)
	if err != nil || !httpguts.ValidHostHeader(host) {
		return "", refuse("%v", errHost)
	}
	return withoutZone(host), nil
}

// appendFields adds what the header says, but for what says where the request
// ends and who is asked: that was added already, and is not taken from a header
// in any spelling.
func appendFields(b []byte, h http.Header) ([]byte, error) {
	for name, values := range h {
		if !httpguts.ValidHeaderFieldName(name) {
			return b, refuse("a header's name is none: %q", name)
		}
		if isOurs(name) {
			continue
		}
		if len(name) == len("User-Agent") && name == "User-Agent" && len(values) > 0 {
			if values = values[:1]; values[0] == "" {
				continue // net/http's word for none
			}
		}
		for _, value := range values {
			if !httpguts.ValidHeaderFieldValue(value) {
				return b, refuse("the value of header %q holds a control character", name) // which may be a secret, and is not shown
			}
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, textproto.TrimString(value)...)
			b = append(b, "\r\n"...)
		}
	}
	return b, nil
}

func isOurs(name string) bool {
	switch len(name) {
	case len("Host"):
		return strings.EqualFold(name, "Host")
	case len("Trailer"):
		return strings.EqualFold(name, "Trailer")
	case len("Content-Length"):
		return strings.EqualFold(name, "Content-Length")
	case len("Transfer-Encoding"):
		return strings.EqualFold(name, "Transfer-Encoding")
	}
	return false
}
