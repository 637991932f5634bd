package cmd

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"sidegate/policy/document"
	"sidegate/proxy"
)

// headerToken is a header's name (RFC 9110, section 5.6.2).
var headerToken = newForm("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}$")

// defaultCORSHeaders are what API clients send besides what every page may.
var defaultCORSHeaders = []string{"Authorization", "Content-Type"}

// readCORS reads the word upstream, or whose pages may read answers.
func (l *configLoader) readCORS(v document.Value) *proxy.CORS {
	if !v.Present() {
		return nil
	}
	if !v.IsMap() {
		if v.OneOf("upstream") == "" {
			return nil
		}
		return &proxy.CORS{Upstream: true}
	}
	m := v.Map(l.keys["cors"])
	c := &proxy.CORS{Headers: defaultCORSHeaders, Credentials: m.Get("credentials").Bool(), MaxAge: l.duration(m.Get("max_age"), 10*time.Minute, 0, longest)}
	for _, e := range m.Need("origins").List() {
		origin := l.origin(e)
		if slices.Contains(c.Origins, origin) {
			e.Errorf("`%s`: %s is there twice", e.Path(), e.Quote())
		} else if origin != "" {
			c.Origins = append(c.Origins, origin)
		}
	}
	l.checkEverybody(m.Get("origins"), c.Origins, c.Credentials)
	if list := m.Get("headers"); list.Present() {
		c.Headers = nil
		for _, e := range list.List() {
			if name := l.matching(e, headerToken, "a header's name"); name != "" {
				c.Headers = append(c.Headers, name)
			}
		}
		if slices.Contains(c.Headers, "*") && c.Credentials {
			list.Errorf("`%s`: browsers do not take `*` for every header where credentials are sent: name them", list.Path())
		}
	}
	return c
}

// checkEverybody refuses `*` where it does not stand alone, and where pages may
// send cookies: then every page could act as whoever looks at it.
func (l *configLoader) checkEverybody(v document.Value, origins []string, credentials bool) {
	switch {
	case !slices.Contains(origins, "*"):
	case len(origins) > 1:
		v.Errorf("`%s`: `*` is everybody, and stands alone", v.Path())
	case credentials:
		v.Errorf("`%s`: `*` with `credentials: true` would let every page act as whoever looks at it: name the origins", v.Path())
	}
}

// origin reads an origin as browsers write it: they are compared byte for byte.
func (l *configLoader) origin(v document.Value) string {
	s, ok := v.Text()
	if !ok || s == "*" {
		return s
	}
	u, err := url.Parse(s)
	port := map[string]string{"http": ":80", "https": ":443"}
	switch {
	case err != nil || port[u.Scheme] == "" || u.Hostname() == "" || strings.Contains(u.Host, "*") || u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		v.Errorf("`%s`: want an origin such as https://app.acme.dev, without a path, not %s", v.Path(), v.Quote())
	case s != strings.ToLower(s) || strings.HasSuffix(s, port[u.Scheme]) || strings.HasSuffix(s, ":"):
		v.Errorf("`%s`: browsers write an origin in lower case and without its scheme's own port", v.Path())
	default:
		return s
	}
	return ""
}
