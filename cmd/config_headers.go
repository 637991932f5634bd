package cmd

import (
	"strings"
	"time"

	"sidegate/policy/document"
	"sidegate/proxy"
)

// presets are the identity headers that have a name.
var presets = []string{"native", "oauth2-proxy", "esp", "none"}

// readHeaders reads in which headers an upstream is told who calls. assertions
// says whether something signs.
func (l *configLoader) readHeaders(v document.Value, assertions bool) proxy.Headers {
	if v.IsMap() && len(v.Entries()) == 0 {
		v.Errorf("`%s` is empty: write none, or headers", v.Path())
		return proxy.Headers{}
	}
	if v.IsMap() {
		if v.Field("esp").Present() {
			return l.readESP(v)
		}
		return l.readHeaderMap(v, assertions)
	}
	switch l.oneOf(v, presets...) {
	case "native":
		return proxy.NativeHeaders()
	case "oauth2-proxy":
		return proxy.OAuth2ProxyHeaders()
	case "esp":
		headers, _ := proxy.ESPHeaders(proxy.ESPPrefix)
		return headers
	}
	return proxy.Headers{}
}

func (l *configLoader) readESP(v document.Value) proxy.Headers {
	prefix, ok := v.Map(document.Keys{Known: []string{"esp"}}).Get("esp").Text()
	if !ok {
		return proxy.Headers{}
	}
	headers, err := proxy.ESPHeaders(prefix)
	if err != nil || prefix == "" {
		v.Field("esp").Errorf("`%s.esp`: want what the header begins with, such as X-Apigateway-", v.Path())
	}
	return headers
}

func (l *configLoader) readHeaderMap(v document.Value, assertions bool) proxy.Headers {
	all, bad := map[string]string{}, false
	seen := map[string]string{}
	for _, e := range v.Entries() {
		text, ok := e.Value.Template()
		if !ok {
			bad = true
			continue
		}
		if first, twice := seen[strings.ToLower(e.Key)]; twice {
			e.At.Errorf("`%s`: this header is there already, as %s", e.At.Path(), first)
			bad = true
			continue
		}
		seen[strings.ToLower(e.Key)] = e.Key
		if _, err := proxy.HeaderMap(map[string]string{e.Key: text}, assertions); err != nil {
			e.At.Errorf("`%s`: %v", v.Path(), err)
			bad = true
			continue
		}
		all[e.Key] = text
	}
	if bad {
		return proxy.Headers{}
	}
	headers, err := proxy.HeaderMap(all, assertions)
	if err != nil {
		v.Errorf("`%s`: %v", v.Path(), err)
	}
	return headers
}

func (l *configLoader) readAssertion(m document.Map, c *Config) {
	if !m.Present() {
		return
	}
	key, next := m.Need("key"), m.Get("next_key")
	c.Assertion.Key, c.Assertion.NextKey = l.pem(key), l.pem(next)
	if !c.Assertion.Key.IsSet() && c.Assertion.NextKey.IsSet() && !key.Failed() {
		next.Errorf("`%s` takes the place of `assertion.key`, and there is none", next.Path())
	}
	if c.Assertion.Key.IsSet() && c.Assertion.NextKey.IsSet() {
		if _, err := proxy.NewAssertions(c.Name, []byte(c.Assertion.Key.Reveal()), []byte(c.Assertion.NextKey.Reveal()), time.Now); err != nil {
			next.Errorf("`%s` is the key itself", next.Path())
		}
	}
}

// pem reads a private key, which has several lines; empty: none.
func (l *configLoader) pem(v document.Value) Secret {
	text, ok := v.Text()
	if !ok || text == "" {
		return Secret{}
	}
	if v.Literal() {
		l.warn(v, "`%s` stands in the file; write ${file:PATH}, so that the file holds no secret", v.Path())
	}
	if err := proxy.CheckAssertionKey([]byte(text)); err != nil {
		v.Errorf("`%s`: %v", v.Path(), err)
		return Secret{}
	}
	return NewSecret(text)
}
