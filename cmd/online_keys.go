package cmd

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"sidegate/proxy/oidc"
)

// keysProbes are one for each source of issuers' keys. They fetch as the gateway
// does, and keep nothing in keys_cache.
func keysProbes(s settings) []probe {
	dates := &dateReader{to: environmentTransport(), ahead: map[string]time.Duration{}}
	sources, err := keySources(s, &http.Client{Transport: dates})
	if err != nil {
		return []probe{single("keys", "", func(_ context.Context, b probe) check {
			return b.fails("mend identities in sidegate.yaml", "identities cannot be opened: %v", err)
		})}
	}
	var out []probe
	for _, k := range sources {
		b := probe{id: "keys", subject: k.Status().Source}
		b.run = func(ctx context.Context) []check { return checkKeys(ctx, b, k, dates) }
		out = append(out, b)
	}
	return out
}

// environmentTransport goes by HTTPS_PROXY and SSL_CERT_FILE, as the gateway does.
func environmentTransport() http.RoundTripper {
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		return t.Clone()
	}
	return &http.Transport{Proxy: http.ProxyFromEnvironment}
}

// keySources are the key sets of all identities, each once. What is asked besides
// (revoked users) is another check's.
func keySources(s settings, client *http.Client) ([]*oidc.KeySet, error) {
	c := *s.config
	c.KeysCache = ""
	c.Identities = slices.Clone(c.Identities)
	for i := range c.Identities {
		if f := c.Identities[i].Firebase; f != nil {
			still := *f
			still.Revocation = 0
			c.Identities[i].Firebase = &still
		}
	}
	s.config = &c
	g := &gateway{s: s, keysClient: client}
	_, err := g.openIdentities(context.Background())
	return g.keys, err
}

func checkKeys(ctx context.Context, b probe, k *oidc.KeySet, dates *dateReader) []check {
	by := ""
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: sourceURL(b.subject)})
	switch {
	case err != nil:
		return []check{b.fails("mend HTTPS_PROXY", "the environment names a proxy that is no URL")}
	case proxy != nil:
		by = " through the proxy " + proxy.Host
	}
	if err := k.Prefetch(ctx); err != nil {
		return []check{b.fails(keysFailure(err), "its keys cannot be fetched%s: %s", by, plainCause(err))}
	}
	out := []check{b.pass("%s fetched%s", countOf(k.Status().Keys, "key", "keys"), by)}
	if ahead, known := dates.of(sourceURL(b.subject).Host); known {
		out = append(out, checkSkew(b.named("clock"), "this issuer", ahead))
	}
	return out
}

func sourceURL(source string) *url.URL {
	u, err := url.Parse(source)
	if err != nil {
		return &url.URL{} // it loaded, so it is one
	}
	return u
}

// A dateReader sends requests and reads the clocks of those who answer.
type dateReader struct {
	to http.RoundTripper

	mu    sync.Mutex
	ahead map[string]time.Duration // by host
}

// RoundTrip implements http.RoundTripper.
func (d *dateReader) RoundTrip(r *http.Request) (*http.Response, error) {
	begin := time.Now()
	answer, err := d.to.RoundTrip(r)
	if err != nil || answer.Header.Get("Age") != "" { // a cache's answer has an old Date
		return answer, err
	}
	if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
		took := time.Since(begin)
		d.mu.Lock()
		// Date is cut to whole seconds, and is that of the middle.
		d.ahead[r.URL.Host] = date.Add(time.Second / 2).Sub(begin.Add(took / 2))
		d.mu.Unlock()
	}
	return answer, nil
}

func (d *dateReader) of(host string) (time.Duration, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	ahead, known := d.ahead[host]
	return ahead, known
}

// keysFailure says what to do about keys that cannot be fetched.
func keysFailure(err error) string {
	var asked *url.Error
	if errors.As(err, &asked) || errors.Is(err, context.DeadlineExceeded) {
		return networkAdvice(err, "SSL_CERT_FILE")
	}
	return "ask for it yourself (curl -i URL): a JSON object of keys (a JWK set) has to come, or, of an issuer, what it says of itself at /.well-known/openid-configuration. See issuer, keys and --insecure-keys"
}
