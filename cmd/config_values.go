package cmd

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sidegate/policy/document"
)

var (
	variableName = newForm(`^[A-Za-z_][A-Za-z0-9_]*$`)
	gatewayName  = newForm(`^[A-Za-z0-9._-]{1,128}$`)
	redisPrefix  = newForm(`^[A-Za-z0-9._:-]{1,128}$`)
)

// longest bounds durations that hold something open.
const longest = 24 * time.Hour

// The readers below give the default where the key is absent. What a variable
// gave never stands in a mistake: they show what was written.

func (l *configLoader) duration(v document.Value, fallback, min, max time.Duration) time.Duration {
	if !v.Present() {
		return fallback
	}
	return v.DurationIn(min, max)
}

func (l *configLoader) size(v document.Value, fallback, min, max int64) int64 {
	if !v.Present() {
		return fallback
	}
	return v.SizeIn(min, max)
}

func (l *configLoader) oneOf(v document.Value, words ...string) string {
	if !v.Present() {
		return words[0]
	}
	return v.OneOf(words...)
}

// matching reads text of a form; rule says the form in words.
func (l *configLoader) matching(v document.Value, form textForm, rule string) string {
	s, ok := v.Text()
	if ok && !form.matches(s) {
		v.Errorf("`%s`: want %s, not %s", v.Path(), rule, v.Quote())
		return ""
	}
	return s
}

// path reads a path and makes it absolute.
func (l *configLoader) path(v document.Value, fallback string) string {
	if !v.Present() {
		return l.absolute(fallback)
	}
	s, ok := v.Text()
	switch {
	case !ok:
		return ""
	case s == "":
		v.Errorf("`%s` is empty", v.Path())
		return ""
	case strings.ContainsRune(s, 0):
		v.Errorf("`%s` holds a zero byte", v.Path())
		return ""
	}
	return l.absolute(s)
}

// optionalPath reads a path, which is empty where none is written.
func (l *configLoader) optionalPath(v document.Value) string {
	if !v.Present() {
		return ""
	}
	return l.path(v, "")
}

// address reads a listener's host:port.
func (l *configLoader) address(v document.Value, fallback string) string {
	if !v.Present() {
		return fallback
	}
	s, ok := v.Text()
	if !ok {
		return ""
	}
	if _, _, ok := splitAddress(s); !ok {
		v.Errorf("`%s`: want host:port or :port, not %s", v.Path(), v.Quote())
		return ""
	}
	return s
}

// splitAddress takes host:port apart; the host may be empty.
func splitAddress(s string) (host string, port int, ok bool) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, false
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 || strings.ContainsAny(text, "+-") {
		return "", 0, false
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && !hostName.matches(host) {
		return "", 0, false
	}
	return host, port, true
}

// hostName is a DNS name, with the `_` that container networks allow.
var hostName = newForm(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?$`)

// baseURL reads a URL of scheme, host and port alone; without schemes it is http
// or https.
func (l *configLoader) baseURL(v document.Value, schemes ...string) *url.URL {
	if len(schemes) == 0 {
		schemes = []string{"http", "https"}
	}
	s, ok := v.Text()
	if !ok {
		return nil
	}
	u, problem := parseBaseURL(s, schemes)
	switch {
	case problem == "":
		return u
	case strings.Contains(s, "@"): // it may hold a password
		v.Errorf("`%s`: %s", v.Path(), problem)
	default:
		v.Errorf("`%s`: %s, not %s", v.Path(), problem, v.Quote())
	}
	return nil
}

// parseBaseURL says in problem what is wrong, without any part of s.
func parseBaseURL(s string, schemes []string) (u *url.URL, problem string) {
	last := len(schemes) - 1
	want := "want " + strings.Join(schemes[:last], "://host:port, ") + "://host:port or " + schemes[last] + "://host:port"
	u, err := url.Parse(s)
	switch {
	case err != nil || !slices.Contains(schemes, u.Scheme):
		return nil, want
	case u.User != nil:
		return nil, want + " without user and password"
	case u.Path != "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		return nil, want + " without path, query and fragment"
	}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = "0"
	}
	if _, _, ok := splitAddress(net.JoinHostPort(host, port)); !ok || host == "" || strings.HasSuffix(u.Host, ":") {
		return nil, want
	}
	return u, ""
}
