package oidc

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// A keyServer publishes keys over a real connection; its behaviour can be
// exchanged while it runs.
type keyServer struct {
	*httptest.Server
	handler atomic.Pointer[http.HandlerFunc]
	fetches atomic.Int64
}

func newKeyServer(t testing.TB, handler http.HandlerFunc) *keyServer {
	t.Helper()
	s := &keyServer{}
	s.handler.Store(&handler)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fetches.Add(1)
		(*s.handler.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) now(handler http.HandlerFunc) { s.handler.Store(&handler) }

func publish(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=3600, must-revalidate")
		_, _ = io.WriteString(w, body)
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func newKeys(t testing.TB, s *keyServer, c *clock) *KeySet {
	t.Helper()
	k, err := NewKeySet(KeySetOptions{URL: s.URL, AllowHTTP: true, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func fetched(t testing.TB, k *KeySet) *KeySet {
	t.Helper()
	if err := k.Prefetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

func verify(t testing.TB, k *KeySet, raw string) error {
	t.Helper()
	return k.Verify(t.Context(), parsed(t, raw), []string{RS256})
}

func certificateMap(t *testing.T, numbers ...int) string {
	t.Helper()
	certificates := map[string]string{}
	for _, n := range numbers {
		template := &x509.Certificate{SerialNumber: big.NewInt(1)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, testKeys()[n].Public(), testKeys()[n])
		if err != nil {
			t.Fatal(err)
		}
		certificates[fmt.Sprintf("k%d", n)] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	text, err := json.Marshal(certificates)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestKeySetForms(t *testing.T) {
	usable := strings.TrimSuffix(strings.TrimPrefix(jwks(0), `{"keys":[`), `]}`)
	for name, body := range map[string]string{
		"JWK set":             jwks(0, 1),
		"X.509 map":           certificateMap(t, 0, 1),
		"beside unknown keys": `{"keys":[{"kty":"??","kid":"a"},1,null,"x",{},{"kty":"oct","kid":"k0","k":"AAAA"},` + usable + `]}`,
		"map beside others":   strings.Replace(certificateMap(t, 0), "{", `{"a":"not a certificate","b":1,`, 1),
	} {
		k := fetched(t, newKeys(t, newKeyServer(t, publish(body)), newClock()))
		if err := verify(t, k, mint(0, "k0", "{}")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		wantReason(t, name, verify(t, k, mint(1, "k0", "{}")), ReasonSignature)
	}
}

// A key that is published for something else verifies nothing.
func TestKeysForOtherPurposes(t *testing.T) {
	public := jose.JSONWebKey{Key: testKeys()[0].Public(), KeyID: "k0", Algorithm: RS256, Use: "sig"}
	text, err := json.Marshal(public)
	if err != nil {
		t.Fatal(err)
	}
	private, err := json.Marshal(jose.JSONWebKey{Key: testKeys()[0], KeyID: "k0"})
	if err != nil {
		t.Fatal(err)
	}
	modulus := new(big.Int).Lsh(big.NewInt(1), 1023)
	for name, body := range map[string]string{
		"encryption":      strings.Replace(string(text), `"use":"sig"`, `"use":"enc"`, 1),
		"key_ops":         strings.Replace(string(text), `"use":"sig"`, `"key_ops":["encrypt"]`, 1),
		"private":         string(private),
		"no kid":          strings.Replace(string(text), `"kid":"k0",`, ``, 1),
		"1024 bits":       fmt.Sprintf(`{"kty":"RSA","kid":"k0","e":"AQAB","n":%q}`, b64(modulus.Add(modulus, big.NewInt(1)).Bytes())),
		"exponent of 1":   strings.Replace(string(text), `"e":"AQAB"`, `"e":"AQ"`, 1),
		"exponent of 4":   strings.Replace(string(text), `"e":"AQAB"`, `"e":"BA"`, 1),
		"huge exponent":   strings.Replace(string(text), `"e":"AQAB"`, `"e":"`+strings.Repeat("_", 40)+`"`, 1),
		"secret":          `{"kty":"oct","kid":"k0","alg":"HS256","k":"c2VjcmV0"}`,
		"list, not a JWK": `[]`,
	} {
		k := newKeys(t, newKeyServer(t, publish(`{"keys":[`+body+`]}`)), newClock())
		if err := k.Prefetch(t.Context()); err == nil || k.Ready() {
			t.Errorf("%s: taken: %v", name, k.Status())
		}
	}
	other := strings.Replace(string(text), `"alg":"RS256"`, `"alg":"PS256"`, 1)
	k := fetched(t, newKeys(t, newKeyServer(t, publish(`{"keys":[`+other+`]}`)), newClock()))
	wantReason(t, "a key for PS256", verify(t, k, mint(0, "k0", "{}")), ReasonSignature)
}

// F7: the issuer is down at the start.
func TestKeysDownAtStart(t *testing.T) {
	s := newKeyServer(t, status(500))
	k := newKeys(t, s, newClock())
	wantUnavailable(t, "before anything", verify(t, k, mint(0, "k0", "{}")))
	wantUnavailable(t, "prefetch", k.Prefetch(t.Context()))
	wantUnavailable(t, "after a failure", verify(t, k, mint(0, "k0", "{}")))
	if k.Ready() || k.Status().Failures != 1 || k.Status().Keys != 0 {
		t.Errorf("%+v", k.Status())
	}
	if n := s.fetches.Load(); n != 1 {
		t.Errorf("callers without keys caused %d fetches", n)
	}
	s.now(publish(jwks(0)))
	fetched(t, k)
	if err := verify(t, k, mint(0, "k0", "{}")); err != nil || !k.Ready() {
		t.Error(err)
	}
}

// F8: the issuer fails in every way after the keys have run out: the last good
// ones go on.
func TestKeysFailingWhileRunning(t *testing.T) {
	elsewhere := newKeyServer(t, publish(jwks(1)))
	for name, fault := range map[string]http.HandlerFunc{
		"500": status(500), "503": status(503), "404": status(404), "204": status(204), "304": status(304),
		"garbage": publish("<html>sorry</html>"), "empty": publish(""), "null": publish("null"), "a list": publish("[]"),
		"empty object": publish("{}"), "empty set": publish(`{"keys":[]}`), "keys null": publish(`{"keys":null}`),
		"no usable key":    publish(`{"keys":[{"kty":"oct","kid":"k0","k":"AAAA"}]}`),
		"bad certificates": publish(`{"k0":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}`),
		"cut JSON":         publish(jwks(0)[:100]),
		"too long":         publish(jwks(0) + strings.Repeat(" ", maxKeysBytes)),
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL, http.StatusFound)
		},
		"reset": func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_ = c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		},
		"cut body": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5000")
			_, _ = io.WriteString(w, jwks(0))
		},
		"not HTTP": func(w http.ResponseWriter, _ *http.Request) {
			if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
				_, _ = io.WriteString(c, "\x16\x03\x01garbage\r\n\r\n")
				c.Close()
			}
		},
	} {
		s, c := newKeyServer(t, publish(jwks(0))), newClock()
		k := fetched(t, newKeys(t, s, c))
		s.now(fault)
		c.move(2 * time.Hour)
		wantUnavailable(t, name, k.Prefetch(t.Context()))
		if err := verify(t, k, mint(0, "k0", "{}")); err != nil {
			t.Errorf("%s: the last good keys are gone: %v", name, err)
		}
		if st := k.Status(); !k.Ready() || st.Failures == 0 || st.Err == nil || st.Age != 2*time.Hour || st.Keys != 1 {
			t.Errorf("%s: %+v", name, st)
		} else if strings.Contains(st.Err.Error(), "sorry") {
			t.Errorf("%s: the error holds the body: %v", name, st.Err)
		}
		wantUnavailable(t, name+", unknown key", verify(t, k, mint(1, "k1", "{}")))
		s.now(publish(jwks(1)))
		fetched(t, k)
		wantReason(t, name+", withdrawn key", verify(t, k, mint(0, "k0", "{}")), ReasonUnknownKey)
	}
	if n := elsewhere.fetches.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

// F9: the issuer rotates its keys.
func TestKeyRotation(t *testing.T) {
	s, c := newKeyServer(t, publish(jwks(0))), newClock()
	k := fetched(t, newKeys(t, s, c))
	epoch := k.Epoch()
	s.now(publish(jwks(0, 1)))
	if err := verify(t, k, mint(1, "k1", "{}")); err != nil {
		t.Errorf("new key: %v", err)
	}
	if k.Epoch() != epoch {
		t.Error("a key that was added made verified tokens void")
	}
	s.now(publish(jwks(1)))
	c.move(2 * time.Hour)
	fetched(t, k)
	if k.Epoch() == epoch {
		t.Error("a key went away and verified tokens stay")
	}
	c.move(2 * time.Minute)
	wantReason(t, "old key", verify(t, k, mint(0, "k0", "{}")), ReasonUnknownKey)
}

func TestUnknownKeyFlood(t *testing.T) {
	s, c := newKeyServer(t, publish(jwks(0))), newClock()
	k := fetched(t, newKeys(t, s, c))
	flood := func(want string) {
		var wg sync.WaitGroup
		for worker := range 10 {
			wg.Go(func() {
				for i := range 100 {
					token := &Token{Algorithm: RS256, KeyID: fmt.Sprintf("stranger-%d-%d", worker, i), signature: []byte("x")}
					err := k.Verify(t.Context(), token, []string{RS256})
					if want == "" {
						wantUnavailable(t, token.KeyID, err)
					} else {
						wantReason(t, token.KeyID, err, want)
					}
				}
			})
		}
		wg.Wait()
	}
	flood(ReasonUnknownKey)
	if n := s.fetches.Load(); n != 2 {
		t.Errorf("1000 strangers: %d fetches, not the first and one more", n)
	}
	c.move(59 * time.Second)
	flood(ReasonUnknownKey)
	if n := s.fetches.Load(); n != 2 {
		t.Errorf("within the minute: %d fetches", n)
	}
	s.now(status(500))
	c.move(time.Second)
	flood("")
	if n := s.fetches.Load(); n != 3 {
		t.Errorf("after the minute, failing: %d fetches", n)
	}
}

// A caller whose key is known never waits for a fetch, one whose context ends
// does not wait for the others', and does not end the fetch for them.
func TestFetchIsSharedAndNobodyWaitsForStrangers(t *testing.T) {
	s, c := newKeyServer(t, publish(jwks(0))), newClock()
	k := fetched(t, newKeys(t, s, c))
	hanging, release := make(chan struct{}), make(chan struct{})
	s.now(func(w http.ResponseWriter, r *http.Request) {
		close(hanging)
		<-release
		publish(jwks(0, 1))(w, r)
	})
	impatient, cancel := context.WithCancel(t.Context())
	results := make(chan error, 3)
	go func() { results <- k.Verify(impatient, parsed(t, mint(1, "k1", "{}")), []string{RS256}) }()
	<-hanging
	if err := verify(t, k, mint(0, "k0", "{}")); err != nil {
		t.Errorf("a known key during a fetch: %v", err)
	}
	cancel()
	wantUnavailable(t, "a caller that gave up", <-results)
	for range 2 {
		go func() { results <- verify(t, k, mint(1, "k1", "{}")) }()
	}
	close(release)
	for range 2 {
		if err := <-results; err != nil {
			t.Errorf("a caller that waited: %v", err)
		}
	}
	if n := s.fetches.Load(); n != 2 {
		t.Errorf("%d fetches", n)
	}
}

// A fake issuer for tests in which time is not real; it fails with an error
// or, where it hangs, with the request's context.
type fakeIssuer struct {
	body    atomic.Pointer[string] // nil: fails
	hang    atomic.Bool
	fetches atomic.Int64
}

func (f *fakeIssuer) RoundTrip(r *http.Request) (*http.Response, error) {
	f.fetches.Add(1)
	if f.hang.Load() {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	body := f.body.Load()
	if body == nil {
		return nil, io.ErrUnexpectedEOF
	}
	w := httptest.NewRecorder()
	publish(*body)(w, r)
	return w.Result(), nil
}

func TestRunRefreshesAndBacksOff(t *testing.T) {
	one, both := jwks(0), jwks(0, 1)
	token := parsed(t, mint(1, "k1", "{}"))
	synctest.Test(t, func(t *testing.T) {
		issuer := &fakeIssuer{}
		k, err := NewKeySet(KeySetOptions{URL: "https://issuer.example/keys", Client: &http.Client{Transport: issuer}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); k.Run(ctx) }()

		time.Sleep(time.Minute) // the bubble's time: nothing waits
		if n := issuer.fetches.Load(); n < 60 || n > 600 || k.Ready() {
			t.Errorf("a minute without keys: %d fetches", n)
		}
		issuer.body.Store(&one)
		time.Sleep(time.Second)
		if !k.Ready() {
			t.Error("not ready a second after the issuer's return")
		}
		before := issuer.fetches.Load()
		time.Sleep(50 * time.Minute)
		if n := issuer.fetches.Load() - before; n != 0 {
			t.Errorf("%d fetches while the keys were fresh", n)
		}
		issuer.body.Store(&both)
		time.Sleep(10 * time.Minute) // nine tenths of max-age have passed
		if err := k.Verify(t.Context(), token, []string{RS256}); err != nil || issuer.fetches.Load()-before != 1 {
			t.Errorf("after the refresh: %v, %d fetches", err, issuer.fetches.Load()-before)
		}

		issuer.hang.Store(true)
		time.Sleep(time.Hour)
		before = issuer.fetches.Load()
		time.Sleep(time.Hour)
		if n := issuer.fetches.Load() - before; n < 50 || n > 200 {
			t.Errorf("%d fetches in an hour of hanging", n)
		}
		if err := k.Verify(t.Context(), token, []string{RS256}); err != nil {
			t.Errorf("after two hours of hanging: %v", err)
		}
		issuer.hang.Store(false)
		time.Sleep(maxBackoff + fetchTimeout)
		if st := k.Status(); st.Failures != 0 || st.Err != nil || st.Failed == 0 {
			t.Errorf("%+v", st)
		}
		cancel()
		<-ended
	})
}

func TestHangingFetchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		issuer := &fakeIssuer{}
		issuer.hang.Store(true)
		k, err := NewKeySet(KeySetOptions{URL: "https://issuer.example/keys", Client: &http.Client{Transport: issuer}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		wantUnavailable(t, "prefetch", k.Prefetch(t.Context()))
		if took := time.Since(start); took != firstTimeout {
			t.Errorf("a hanging fetch took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		wantUnavailable(t, "impatient prefetch", k.Prefetch(ctx))
		if took := time.Since(start); took != time.Second {
			t.Errorf("an impatient caller waited %s", took)
		}
		time.Sleep(fetchTimeout)
	})
}

func TestRefreshAfter(t *testing.T) {
	for _, c := range []struct {
		control, age string
		want         time.Duration
	}{
		{"", "", 54 * time.Minute},
		{"no-cache", "", 54 * time.Minute},
		{"public, max-age=20000, must-revalidate", "", 18000 * time.Second},
		{"Max-Age=20000", "10000", 9000 * time.Second},
		{`max-age="7200"`, "", 6480 * time.Second},
		{"max-age=0", "", minLifetime},
		{"max-age=10", "", minLifetime},
		{"max-age=3600", "4000", minLifetime},
		{"max-age=-5", "", minLifetime},
		{"max-age=soon", "", minLifetime},
		{"max-age=99999999", "", maxLifetime},
		{"max-age=99999999999999999999999999", "", maxLifetime},
		{"max-age=3600", "99999999999999999999", minLifetime},
		{"max-age=3600", "x", 54 * time.Minute},
		{"s-maxage=5", "", 54 * time.Minute},
	} {
		h := http.Header{"Cache-Control": {c.control}, "Age": {c.age}}
		if got := refreshAfter(h); got != c.want {
			t.Errorf("%q, age %q: %s; want %s", c.control, c.age, got, c.want)
		}
	}
}

func TestKeySetOptions(t *testing.T) {
	for _, url := range []string{"", "keys.json", "http://issuer.example/keys", "ftp://issuer.example/", "https://user:secret@issuer.example/", "https://%zz"} {
		if _, err := NewKeySet(KeySetOptions{URL: url}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
	k, err := NewKeySet(KeySetOptions{URL: "https://issuer.example/keys"})
	if err != nil || k.client.Transport.(*http.Transport).Proxy == nil {
		t.Errorf("%v; HTTPS_PROXY is not honoured", err)
	}
	own := &http.Client{}
	if _, err := NewKeySet(KeySetOptions{URL: "https://issuer.example/keys", Client: own}); err != nil || own.CheckRedirect != nil {
		t.Errorf("%v; the caller's client was changed: %v", err, own.CheckRedirect != nil)
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(jwks(0)))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"k","n":"AQAB","e":"AQAB"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"","y":""}]}`))
	f.Add([]byte(`{"k":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := parseKeys(body, false)
		if (err == nil) == (len(keys) == 0) {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		for id, list := range keys {
			for _, key := range list {
				if id == "" || checkKey(key.key) != nil {
					t.Fatalf("key %q: %v", id, checkKey(key.key))
				}
			}
		}
	})
}
