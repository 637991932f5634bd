package cmd

import (
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"sidegate/policy/document"
)

func (l *configLoader) readUpstreams(v document.Value, c *Config) {
	for _, e := range v.Entries() {
		if !e.At.CheckName(e.Key) {
			continue
		}
		m := e.Value.Map(l.keys["upstreams.*"])
		u := UpstreamConfig{Name: e.Key}
		if at := m.Need("url"); at.IsList() {
			at.Errorf("`%s`: a list of URLs is not supported by this version of sidegate; write one", at.Path())
		} else if at.Present() {
			l.readUpstreamURL(at, &u)
		}
		l.readUpstreamTLS(m.Get("tls"), &u)
		u.IDToken = l.matching(m.Get("id_token"), idTokenAudience, "an audience, such as the service's https URL")
		u.KeepHost = l.oneOf(m.Get("host"), "keep", "upstream") == "keep"
		u.Timeout = l.duration(m.Get("timeout"), time.Minute, time.Millisecond, longest)
		u.IdleTimeout = l.duration(m.Get("idle_timeout"), 5*time.Minute, time.Millisecond, longest)
		u.MaxBody = l.size(m.Get("max_body"), 10<<20, 1, 1<<50)
		u.KeepAuthorization = l.oneOf(m.Get("authorization"), "drop", "keep") == "keep"
		u.Unlimited = l.oneOf(m.Get("streams"), "until_token", "unlimited") == "unlimited"
		u.Headers = l.readHeaders(m.Get("headers"), c.Assertion.Key.IsSet())
		c.Upstreams = append(c.Upstreams, u)
	}
}

// readUpstreamURL reads a base URL, or unix:// and the absolute path of a socket.
func (l *configLoader) readUpstreamURL(v document.Value, u *UpstreamConfig) {
	path, ok := strings.CutPrefix(v.String(), "unix://")
	if !ok {
		u.URL = l.baseURL(v)
		return
	}
	if !filepath.IsAbs(path) || len(path) > maxSocketPath || strings.ContainsAny(path, "\x00?#") {
		v.Errorf("`%s`: want unix:// and the absolute path of a socket, such as unix:///run/app.sock, of at most %d bytes", v.Path(), maxSocketPath)
		return
	}
	u.URL, u.Socket = &url.URL{Scheme: "http", Host: "localhost"}, filepath.Clean(path)
}

// maxSocketPath is what the smallest of the systems' addresses holds (unix(7)
// has 108 bytes with the zero at the end, others 104).
const maxSocketPath = 103

func (l *configLoader) readUpstreamTLS(v document.Value, u *UpstreamConfig) {
	if !v.Present() {
		return
	}
	m := v.Map(l.keys["upstreams.*.tls"])
	if u.URL != nil && u.URL.Scheme != "https" {
		v.Errorf("`%s` is for an https url", v.Path())
	}
	ca, cert, key := m.Get("ca"), m.Get("cert"), m.Get("key")
	if cert.Present() != key.Present() {
		v.Errorf("`%s` needs both cert and key, or neither", v.Path())
	}
	u.TLS.CA, u.TLS.Cert, u.TLS.Key = l.optionalPath(ca), l.optionalPath(cert), l.optionalPath(key)
}

func (l *configLoader) readLog(m document.Map, c *Config) {
	c.Log.Level = "info"
	if v := m.Get("level"); v.Present() {
		c.Log.Level = v.OneOf(logLevels()...)
	}
	c.Log.Format = l.oneOf(m.Get("format"), "json", "console")
}
