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
		if at := m.Need("url"); at.IsList() {
			at.Errorf("`%s`: a list of URLs is not supported by this version of sidegate; write one", at.Path())
		} else if at.Present() {
			u.URL = l.baseURL(at)
		}
		u.KeepHost = l.oneOf(m.Get("host"), "keep", "upstream") == "keep"
		u.Timeout = l.duration(m.Get("timeout"), time.Minute, time.Millisecond, longest)
		u.IdleTimeout = l.duration(m.Get("idle_timeout"), 5*time.Minute, time.Millisecond, longest)
		u.MaxBody = l.size(m.Get("max_body"), 10<<20, 1, 1<<50)
		u.KeepAuthorization = l.oneOf(m.Get("authorization"), "drop", "keep") == "keep"
		u.Headers = l.readHeaders(m.Get("headers"), c.Assertion.Key.IsSet())
		c.Upstreams = append(c.Upstreams, u)
	}
}

func (l *configLoader) readLog(m document.Map, c *Config) {
	c.Log.Level = "info"
	if v := m.Get("level"); v.Present() {
		c.Log.Level = v.OneOf(logLevels()...)
	}
	c.Log.Format = l.oneOf(m.Get("format"), "json", "console")
}
