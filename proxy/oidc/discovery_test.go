package oidc

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A site is an issuer that describes itself over a real connection. Its answers
// can be exchanged while it runs.
type site struct {
	*keyServer
	metadata, keys, moved atomic.Pointer[http.HandlerFunc] // at the usual place, /keys and /moved
	described, published  atomic.Int64                     // how often each was asked for
}

func newSite(t testing.TB) *site {
	t.Helper()
	s := &site{}
	s.keyServer = newKeyServer(t, func(w http.ResponseWriter, r *http.Request) {
		handler, count := &s.keys, &s.published
		switch r.URL.Path {
		case discoveryPath:
			handler, count = &s.metadata, &s.described
		case "/moved":
			handler = &s.moved
		case "/keys":
		default:
			t.Errorf("somebody asked for %s", r.URL)
		}
		count.Add(1)
		(*handler.Load())(w, r)
	})
	set(&s.metadata, publish(describe(s.URL, s.URL+"/keys")))
	set(&s.keys, publish(jwks(0)))
	set(&s.moved, status(404))
	return s
}

func set(at *atomic.Pointer[http.HandlerFunc], handler http.HandlerFunc) { at.Store(&handler) }

func describe(issuer, keys string) string {
	return fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q,"authorization_endpoint":"https://issuer.example/auth","id_token_signing_alg_values_supported":["RS256"]}`, issuer, keys)
}

func newDiscovered(t testing.TB, issuer string, c *clock, changes ...func(*KeySetOptions)) *KeySet {
	t.Helper()
	o := KeySetOptions{Issuer: issuer, AllowHTTP: true, Now: c.now}
	for _, change := range changes {
		change(&o)
	}
	k, err := NewKeySet(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestDiscovery(t *testing.T) {
	s, c := newSite(t), newClock()
	for _, slash := range []string{"", "/"} {
		set(&s.metadata, publish(describe(s.URL+slash, s.URL+"/keys")))
		k := fetched(t, newDiscovered(t, s.URL+slash, c))
		if err := verify(t, k, mint(0, "k0", "{}")); err != nil || k.Status().Source != s.URL+slash || k.Status().Keys != 1 {
			t.Errorf("issuer with %q: %v, %+v", slash, err, k.Status())
		}
	}
	// The place of the keys is remembered for a day.
	k := fetched(t, newDiscovered(t, s.URL+"/", c))
	described, published := s.described.Load(), s.published.Load()
	for hours := 2; hours < 24; hours += 2 {
		c.move(2 * time.Hour)
		fetched(t, k)
	}
	if n, m := s.described.Load()-described, s.published.Load()-published; n != 0 || m != 11 {
		t.Errorf("%d and %d fetches within a day", n, m)
	}
	c.move(2 * time.Hour)
	fetched(t, k)
	if n := s.described.Load() - described; n != 1 {
		t.Errorf("%d fetches of the metadata after a day", n)
	}
	// An issuer with a path is asked under it, and a URL needs no metadata.
	below := newKeyServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/oauth2/default"+discoveryPath {
			t.Errorf("somebody asked for %s", r.URL)
		}
		publish(describe("http://"+r.Host+"/oauth2/default", s.URL+"/keys"))(w, r)
	})
	fetched(t, newDiscovered(t, below.URL+"/oauth2/default", c))
	described = s.described.Load()
	fetched(t, newDiscovered(t, s.URL, c, func(o *KeySetOptions) { o.URL = s.URL + "/keys" }))
	if s.described.Load() != described {
		t.Error("the metadata was asked for though the keys' URL is given")
	}
}

// What an issuer says of itself counts only if it says that it is it, byte for
// byte, and only where its keys may be fetched from.
func TestDiscoveryRefuses(t *testing.T) {
	s, c := newSite(t), newClock()
	hidden := newKeyServer(t, publish(jwks(1)))
	for name, metadata := range map[string]http.HandlerFunc{
		"a slash more":             publish(describe(s.URL+"/", s.URL+"/keys")),
		"another host":             publish(describe("https://evil.example", s.URL+"/keys")),
		"another scheme":           publish(describe(strings.Replace(s.URL, "http", "https", 1), s.URL+"/keys")),
		"another case":             publish(describe(strings.ToUpper(s.URL), s.URL+"/keys")),
		"a template":               publish(describe(s.URL+"/{tenantid}", s.URL+"/keys")),
		"issuer empty":             publish(describe("", s.URL+"/keys")),
		"no issuer":                publish(`{"jwks_uri":"` + s.URL + `/keys"}`),
		"issuer a list":            publish(`{"issuer":["` + s.URL + `"],"jwks_uri":"` + s.URL + `/keys"}`),
		"no jwks_uri":              publish(`{"issuer":"` + s.URL + `"}`),
		"jwks_uri empty":           publish(describe(s.URL, "")),
		"jwks_uri null":            publish(`{"issuer":"` + s.URL + `","jwks_uri":null}`),
		"jwks_uri a number":        publish(`{"issuer":"` + s.URL + `","jwks_uri":1}`),
		"jwks_uri relative":        publish(describe(s.URL, "/keys")),
		"jwks_uri without scheme":  publish(describe(s.URL, strings.TrimPrefix(s.URL, "http:")+"/keys")),
		"jwks_uri with a user":     publish(describe(s.URL, strings.Replace(hidden.URL, "://", "://user:secret@", 1))),
		"jwks_uri a file":          publish(describe(s.URL, "file:///dev/null")),
		"jwks_uri of another kind": publish(describe(s.URL, "ftp://issuer.example/keys")),
		"jwks_uri data":            publish(describe(s.URL, "data:application/json,{}")),
		"jwks_uri no URL":          publish(describe(s.URL, "http://%zz")),
		"keys in the metadata":     publish(strings.TrimSuffix(jwks(0), "}") + `,"issuer":"` + s.URL + `"}`),
		"garbage":                  publish("<html>sorry</html>"), "empty": publish(""), "null": publish("null"), "a list": publish("[]"), "text": publish(`"x"`),
		"two objects": publish(describe(s.URL, s.URL+"/keys") + "{}"),
		"500":         status(500), "404": status(404), "204": status(204), "401": status(401),
		"huge": publish(describe(s.URL, s.URL+"/keys") + strings.Repeat(" ", maxKeysBytes)),
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, hidden.URL, http.StatusFound)
		},
		"a permanent redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, s.URL+"/keys", http.StatusPermanentRedirect)
		},
		"a cut body": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "5000")
			_, _ = io.WriteString(w, describe(s.URL, s.URL+"/keys"))
		},
		"a panic": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		set(&s.metadata, metadata)
		published := s.published.Load()
		k := newDiscovered(t, s.URL, c)
		wantUnavailable(t, name, k.Prefetch(t.Context()))
		wantUnavailable(t, name+", a token", verify(t, k, mint(0, "k0", "{}")))
		st := k.Status()
		if k.Ready() || st.Err == nil || st.Failures != 1 || strings.Contains(fmt.Sprint(st.Err), "sorry") || strings.Contains(fmt.Sprint(st.Err), "secret") {
			t.Errorf("%s: %+v", name, st)
		}
		if n := s.published.Load() - published; n != 0 {
			t.Errorf("%s: keys were fetched", name)
		}
		// And the next try finds an issuer that has recovered.
		set(&s.metadata, publish(describe(s.URL, s.URL+"/keys")))
		if err := verify(t, fetched(t, k), mint(0, "k0", "{}")); err != nil {
			t.Errorf("%s, recovered: %v", name, err)
		}
	}
	if n := hidden.fetches.Load(); n != 0 {
		t.Errorf("%d fetches from where no keys are to be fetched", n)
	}
}

// An issuer that is asked over https cannot send the gateway to plain http.
func TestDiscoveryNeverLeavesHTTPS(t *testing.T) {
	clear := newKeyServer(t, publish(jwks(1)))
	target := clear.URL
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == discoveryPath {
			publish(describe("https://"+r.Host, target))(w, r)
			return
		}
		publish(jwks(0))(w, r)
	}))
	defer s.Close()
	k, err := NewKeySet(KeySetOptions{Issuer: s.URL, Client: s.Client()})
	if err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, "http", k.Prefetch(t.Context()))
	if clear.fetches.Load() != 0 || !strings.Contains(fmt.Sprint(k.Status().Err), "must be https") {
		t.Errorf("%d fetches, %v", clear.fetches.Load(), k.Status().Err)
	}
	target = s.URL + "/keys"
	if err := verify(t, fetched(t, k), mint(0, "k0", "{}")); err != nil {
		t.Error(err)
	}
}

// An issuer is an https URL without query and fragment (OpenID Connect Core 1.0,
// section 2): what is none must not become one by the path that is put behind
// it.
func TestDiscoveryIssuerIsAURL(t *testing.T) {
	for _, issuer := range []string{"http://issuer.example", "https://user@issuer.example", "issuer.example", "/", "https://%zz", "https:issuer.example",
		"https://", "https:///", "https://issuer.example?a=b", "https://issuer.example#a", "https://issuer.example/#"} {
		if k, err := NewKeySet(KeySetOptions{Issuer: issuer}); err == nil {
			t.Errorf("%s: accepted, and would be asked at %s", issuer, k.url)
		}
	}
}

// Keys that moved are found again: the try after the one that failed asks the
// issuer anew where they are. Until then the last good ones are used.
func TestDiscoveryOfKeysThatMoved(t *testing.T) {
	for name, fault := range map[string]http.HandlerFunc{
		"404": status(404), "garbage": publish("moved"), "no keys": publish(`{"keys":[]}`),
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/moved", http.StatusFound) },
	} {
		s, c := newSite(t), newClock()
		k := fetched(t, newDiscovered(t, s.URL, c))
		set(&s.moved, publish(jwks(1)))
		set(&s.metadata, publish(describe(s.URL, s.URL+"/moved")))
		set(&s.keys, fault)
		c.move(2 * time.Hour)
		wantUnavailable(t, name+", the old place", k.Prefetch(t.Context()))
		if err := verify(t, k, mint(0, "k0", "{}")); err != nil {
			t.Errorf("%s, the last good keys: %v", name, err)
		}
		if n := s.described.Load(); n != 1 {
			t.Errorf("%s: the metadata was fetched %d times", name, n)
		}
		fetched(t, k)
		if err := verify(t, k, mint(1, "k1", "{}")); err != nil || s.described.Load() != 2 {
			t.Errorf("%s, the new place: %v", name, err)
		}
		wantReason(t, name+", an old key", verify(t, k, mint(0, "k0", "{}")), ReasonUnknownKey)
	}
}

// A thousand strangers with as many kids cause one fetch of the keys in a
// minute, and none of the metadata while it is known.
func TestDiscoveryUnknownKeyFlood(t *testing.T) {
	s, c := newSite(t), newClock()
	k := fetched(t, newDiscovered(t, s.URL, c))
	flood := func(unavailable bool) {
		var wg sync.WaitGroup
		for worker := range 20 {
			wg.Go(func() {
				for i := range 50 {
					token := &Token{Algorithm: RS256, KeyID: fmt.Sprintf("stranger-%d-%d", worker, i), signature: []byte("x")}
					err := k.Verify(t.Context(), token, []string{RS256})
					if unavailable {
						wantUnavailable(t, token.KeyID, err)
					} else {
						wantReason(t, token.KeyID, err, ReasonUnknownKey)
					}
				}
			})
		}
		wg.Wait()
	}
	counts := func(what string, described, published int64) {
		t.Helper()
		if n, m := s.described.Load(), s.published.Load(); n != described || m != published {
			t.Errorf("%s: %d fetches of the metadata, %d of the keys; want %d, %d", what, n, m, described, published)
		}
	}
	flood(false)
	counts("at once", 1, 2)
	c.move(59 * time.Second)
	flood(false)
	counts("within the minute", 1, 2)
	c.move(time.Second)
	flood(false)
	counts("after it", 1, 3)
	set(&s.keys, status(500))
	c.move(time.Minute)
	flood(true)
	counts("where the keys fail", 1, 4)
	c.move(time.Minute)
	flood(true)
	counts("where they fail again", 2, 5)
	set(&s.metadata, status(500))
	c.move(time.Minute)
	flood(true)
	counts("where the metadata fails", 3, 5)
}

// Once there were keys nobody whose key is known waits for a fetch, whichever of
// the two hangs.
func TestDiscoveryNobodyWaits(t *testing.T) {
	for _, hangs := range []string{"metadata", "keys"} {
		s, c := newSite(t), newClock()
		k := fetched(t, newDiscovered(t, s.URL, c))
		hanging, release := make(chan struct{}), make(chan struct{})
		slow := func(answer string) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				close(hanging)
				<-release
				publish(answer)(w, r)
			}
		}
		if hangs == "metadata" {
			set(&s.metadata, slow(describe(s.URL, s.URL+"/keys")))
		} else {
			set(&s.keys, slow(jwks(0)))
		}
		c.move(25 * time.Hour)
		done := make(chan error)
		go func() { done <- k.Prefetch(t.Context()) }()
		<-hanging
		for range 100 {
			if err := verify(t, k, mint(0, "k0", "{}")); err != nil {
				t.Errorf("%s: %v", hangs, err)
			}
		}
		close(release)
		if err := <-done; err != nil {
			t.Errorf("%s: %v", hangs, err)
		}
	}
}

// A fakeSite is a site where time is not real.
type fakeSite struct {
	up, hang             atomic.Bool
	control              string
	described, published atomic.Int64
}

func (f *fakeSite) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, count := jwks(0), &f.published
	if r.URL.Path == discoveryPath {
		answer, count = describe(issuer, issuer+"/keys"), &f.described
	}
	count.Add(1)
	if f.hang.Load() {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	if !f.up.Load() {
		return nil, io.ErrUnexpectedEOF
	}
	w := httptest.NewRecorder()
	w.Header().Set("Cache-Control", f.control)
	_, _ = io.WriteString(w, answer)
	return w.Result(), nil
}

func TestDiscoveryDownAtStart(t *testing.T) {
	token := parsed(t, mint(0, "k0", "{}"))
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSite{control: "max-age=1"}
		k, err := NewKeySet(KeySetOptions{Issuer: issuer, Client: &http.Client{Transport: f}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); k.Run(ctx) }()
		for _, hang := range []bool{false, true} {
			f.hang.Store(hang)
			time.Sleep(time.Minute) // the bubble's time: nothing waits
			wantUnavailable(t, "while it is down", k.Verify(t.Context(), token, []string{RS256}))
			if k.Ready() || f.published.Load() != 0 || f.described.Load() > 700 {
				t.Errorf("%d and %d fetches", f.described.Load(), f.published.Load())
			}
		}
		// A fetch that hangs ends by itself; after one that fails the next is soon.
		f.hang.Store(false)
		time.Sleep(firstTimeout)
		f.up.Store(true)
		time.Sleep(time.Second)
		if err := k.Verify(t.Context(), token, []string{RS256}); err != nil || !k.Ready() {
			t.Errorf("a second after its return: %v", err)
		}
		// However short its max-age, an issuer is not asked all the time.
		before := f.published.Load()
		time.Sleep(time.Hour)
		if n := f.published.Load() - before; n < 11 || n > 13 {
			t.Errorf("%d fetches in an hour with a max-age of a second", n)
		}
		described := f.described.Load()
		time.Sleep(24 * time.Hour)
		if n := f.described.Load() - described; n != 1 {
			t.Errorf("%d fetches of the metadata in a day", n)
		}
		cancel()
		<-ended
	})
}

func TestDiscoveryHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSite{}
		f.hang.Store(true)
		k, err := NewKeySet(KeySetOptions{Issuer: issuer, Client: &http.Client{Transport: f}})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		wantUnavailable(t, "prefetch", k.Prefetch(t.Context()))
		if took := time.Since(start); took != firstTimeout {
			t.Errorf("both fetches together took %s", took)
		}
	})
}

func TestNoKeyID(t *testing.T) {
	c := newClock()
	nameless := func(numbers ...int) string {
		text := jwks(numbers...)
		for _, n := range numbers {
			text = strings.Replace(text, fmt.Sprintf(`"kid":"k%d",`, n), "", 1)
		}
		return text
	}
	without := func(key int) string {
		return signer{RS256, testKeys()[key]}.with(`{"alg":"RS256"}`, "{}")
	}
	for name, test := range map[string]struct {
		option bool
		keys   string
		raw    string
		reason string
	}{
		"one key with an ID":              {true, jwks(0), without(0), ""},
		"one key without":                 {true, nameless(0), without(0), ""},
		"one key without, beside secrets": {true, strings.Replace(nameless(0), `[`, `[{"kty":"oct","kid":"x","k":"AAAA"},`, 1), without(0), ""},
		"one certificate":                 {true, certificateMap(t, 0), without(0), ""},
		"another key's":                   {true, jwks(0), without(1), ReasonSignature},
		"an empty kid":                    {true, jwks(0), signer{RS256, testKeys()[0]}.with(`{"alg":"RS256","kid":""}`, "{}"), ""},
		"two keys":                        {true, jwks(0, 1), without(0), ReasonKeyID},
		"two keys without IDs":            {true, nameless(0, 1), without(0), ReasonKeyID},
		"one with an ID and one without":  {true, strings.Replace(jwks(0, 1), `"kid":"k1",`, "", 1), without(0), ReasonKeyID},
		"that one's own":                  {true, strings.Replace(jwks(0, 1), `"kid":"k1",`, "", 1), without(1), ReasonKeyID},
		"two keys, and it is named":       {true, jwks(0, 1), mint(1, "k1", "{}"), ""},
		"a kid of a key without":          {true, nameless(0), mint(0, "k0", "{}"), ReasonUnknownKey},
		"the option is not set":           {false, jwks(0), without(0), ReasonKeyID},
		"not set, an empty kid":           {false, jwks(0), signer{RS256, testKeys()[0]}.with(`{"alg":"RS256","kid":""}`, "{}"), ReasonKeyID},
	} {
		s := newKeyServer(t, publish(test.keys))
		k, err := NewKeySet(KeySetOptions{URL: s.URL, AllowHTTP: true, Now: c.now, NoKeyID: test.option})
		if err != nil {
			t.Fatal(err)
		}
		switch err := verify(t, fetched(t, k), test.raw); {
		case test.reason != "":
			wantReason(t, name, err, test.reason)
		case err != nil:
			t.Errorf("%s: %v", name, err)
		}
	}
	// Without the option keys without an ID are none.
	k := newKeys(t, newKeyServer(t, publish(nameless(0))), c)
	wantUnavailable(t, "only keys without an ID", k.Prefetch(t.Context()))
	// A second key that appears takes the choice away, and with it the way in.
	s := newKeyServer(t, publish(jwks(0)))
	k, err := NewKeySet(KeySetOptions{URL: s.URL, AllowHTTP: true, Now: c.now, NoKeyID: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(t, fetched(t, k), without(0)); err != nil {
		t.Error(err)
	}
	s.now(publish(jwks(0, 1)))
	c.move(2 * time.Hour)
	wantReason(t, "two keys now", verify(t, fetched(t, k), without(0)), ReasonKeyID)
}
