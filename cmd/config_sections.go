package cmd

import (
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
		if at := m.Need("url"); at.Present() {
			l.readUpstreamURL(at, &u)
		}
		u.LeastBusy = l.oneOf(m.Get("balance"), "round_robin", "least_busy") == "least_busy"
		u.NetHTTP = l.oneOf(m.Get("transport"), "own", "net/http") == "net/http"
		l.readUpstreamTLS(m.Get("tls"), &u)
		u.IDToken = l.matching(m.Get("id_token"), idTokenAudience, "an audience, such as the service's https URL")
		u.KeepHost = l.oneOf(m.Get("host"), "keep", "upstream") == "keep"
		u.Timeout = l.duration(m.Get("timeout"), time.Minute, time.Millisecond, longest)
		u.IdleTimeout = l.duration(m.Get("idle_timeout"), 5*time.Minute, time.Millisecond, longest)
		u.MaxBody = l.size(m.Get("max_body"), 10<<20, 1, 1<<50)
		if v := m.Get("max_requests"); v.Present() {
			u.MaxRequests = int(v.Int(0, 10_000_000))
		}
		u.KeepAuthorization = l.oneOf(m.Get("authorization"), "drop", "keep") == "keep"
		u.Unlimited = l.oneOf(m.Get("streams"), "until_token", "unlimited") == "unlimited"
		u.Headers = l.readHeaders(m.Get("headers"), c.Assertion.Key.IsSet())
		c.Upstreams = append(c.Upstreams, u)
	}
}

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
	c.Log.Sample = 1
	if v := m.Get("sample"); v.Present() {
		if c.Log.Sample = v.Float(); !(c.Log.Sample >= 0 && c.Log.Sample <= 1) { // nor is NaN one
			v.Errorf("`%s` must be a share from 0 to 1, not %s", v.Path(), v.Quote())
		}
	}
}
