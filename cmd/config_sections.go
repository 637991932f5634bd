package cmd

import (
	"regexp"
	"time"

	"sidegate/policy/document"
)

var (
	// Google Cloud project ids, with the domain of legacy ones
	// (cloud.google.com/resource-manager/docs/creating-managing-projects).
	projectID = regexp.MustCompile(`^([a-z0-9.-]{1,100}:)?[a-z][a-z0-9-]{0,61}[a-z0-9]$`)
	tenantID  = regexp.MustCompile(`^[A-Za-z0-9-]{0,128}$`)
)

func (l *configLoader) readIdentities(v document.Value, c *Config) {
	entries := v.Entries()
	maps := make(map[string]document.Map, len(entries))
	for _, e := range entries {
		if !e.At.CheckName(e.Key) {
			continue
		}
		m := e.Value.Map(l.keys["identities.*"])
		maps[e.Key] = m
		id := IdentityConfig{Name: e.Key, Namespace: e.Key}
		l.readFirebase(m, &id)
		for _, other := range c.Identities {
			if id.Project != "" && other.Project == id.Project && other.Tenant == id.Tenant {
				e.At.Errorf("a token could be of `%s` and of `identities.%s` (%s): they have the same project and tenant", e.At.Path(), other.Name, maps[other.Name].Place())
			}
		}
		c.Identities = append(c.Identities, id)
	}
	l.resolveNamespaces(maps, c)
}

func (l *configLoader) readFirebase(m document.Map, id *IdentityConfig) {
	v := m.Get("firebase")
	if !v.Present() {
		// One of a later version was refused already.
		if m.Present() && !m.Get("google").Present() && !m.Get("oidc").Present() {
			m.Errorf("`%s.firebase` is missing: it says whose tokens these are", m.Path())
		}
		return
	}
	f := v.Map(l.keys["identities.*.firebase"])
	id.Project = l.matching(f.Need("project"), projectID, "a Firebase project's id")
	id.Tenant = l.matching(f.Get("tenant"), tenantID, "a tenant's id: letters, digits and `-`")
	id.Leeway = l.duration(f.Get("leeway"), time.Minute, 0, 5*time.Minute)
}

// resolveNamespaces follows `uids` from identity to identity.
func (l *configLoader) resolveNamespaces(maps map[string]document.Map, c *Config) {
	next := map[string]string{}
	for _, id := range c.Identities {
		v := maps[id.Name].Get("uids")
		if !v.Present() {
			continue
		}
		name := v.Name()
		if _, ok := maps[name]; !ok && name != "" {
			v.Errorf("`%s`: there is no identity %q%s", v.Path(), v.Show(), document.DidYouMean(v.Show(), names(c.Identities)))
			continue
		}
		next[id.Name] = name
	}
	for i := range c.Identities {
		id := &c.Identities[i]
		for steps := 0; next[id.Namespace] != "" && next[id.Namespace] != id.Namespace; steps++ {
			if steps > len(next) {
				v := maps[id.Name].Get("uids")
				v.Errorf("`%s` goes round in a circle", v.Path())
				break
			}
			id.Namespace = next[id.Namespace]
		}
	}
}

func names(ids []IdentityConfig) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id.Name
	}
	return out
}

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
		u.Headers = l.readHeaders(m.Get("headers"))
		c.Upstreams = append(c.Upstreams, u)
	}
}

func (l *configLoader) readHeaders(v document.Value) string {
	if s := v.Show(); v.IsMap() || s == "oauth2-proxy" || s == "esp" {
		v.Errorf("`%s`: of native, oauth2-proxy, esp, none and maps, this version of sidegate supports native and none", v.Path())
		return ""
	}
	return l.oneOf(v, "native", "none")
}

func (l *configLoader) readLog(m document.Map, c *Config) {
	c.Log.Level = "info"
	if v := m.Get("level"); v.Present() {
		c.Log.Level = v.OneOf(logLevels()...)
	}
	c.Log.Format = l.oneOf(m.Get("format"), "json", "console")
}
