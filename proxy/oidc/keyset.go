package oidc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sidegate/proxy"
)

const (
	// fetchTimeout bounds one fetch, whoever waits for it.
	fetchTimeout = 10 * time.Second
	// firstTimeout does so while there are no keys and every token gets 503: a
	// fetch that hangs must not keep the next one from succeeding.
	firstTimeout = 3 * time.Second
	// unknownKeyWait bounds how long a token with an unknown key waits for the
	// fetch that it caused or met.
	unknownKeyWait = 2 * time.Second
	// unknownKeyPause is how long tokens that name an unknown key cause no
	// further fetch: strangers choose kids, and must not choose our traffic.
	unknownKeyPause = time.Minute
	// While there are no keys the gateway answers 503, so it asks often
	// enough to be ready within a second of the issuer's return; with keys it
	// has time.
	minBackoff         = 100 * time.Millisecond
	maxBackoff         = time.Minute
	maxBackoffNoKeys   = time.Second
	maxBackoffDoubling = 16
)

// KeySetOptions are what a KeySet needs.
type KeySetOptions struct {
	// URL is where the issuer publishes its keys: a JWK set (RFC 7517,
	// section 5) or Google's map of key IDs to X.509 certificates. Only https,
	// but for AllowHTTP.
	URL string
	// Issuer, where URL is empty, is asked where its keys are (OpenID Connect
	// Discovery 1.0, section 4), and must say of itself that it is it.
	Issuer string
	// AllowHTTP permits plain http: whoever is on the path can then choose the
	// keys. For demos and tests.
	AllowHTTP bool
	// NoKeyID also takes tokens that name no key, as long as the issuer has
	// only one (OpenID Connect Core 1.0, section 10.1).
	NoKeyID bool
	// Folder, where it is set, keeps the last good keys over a restart: whoever
	// can write there chooses the keys. It must exist.
	Folder string
	// Client fetches; its redirect policy is replaced: redirects fail. The
	// default is one with the settings of http.DefaultTransport (HTTPS_PROXY,
	// SSL_CERT_FILE).
	Client *http.Client
	// Now is the clock; the default is time.Now.
	Now func() time.Time
}

// A KeySet is an issuer's published keys. Once it had keys it keeps the last
// good ones whatever happens to the issuer, and no token that a known key
// signed waits for a fetch. It is safe for concurrent use; Run keeps it fresh.
type KeySet struct {
	url       string // of the keys; of the issuer's metadata where discovery is set
	discovery *discovery
	noKeyID   bool
	folder    string
	allowHTTP bool
	client    *http.Client
	now       func() time.Time

	current atomic.Pointer[snapshot] // nil until the first good fetch

	keeping sync.Mutex // held while the folder is written
	keptAt  time.Time  // when what is in the folder was fetched

	mu       sync.Mutex // guards what follows; never held during a fetch
	flight   *flight    // the fetch under way, shared by all who wait
	asked    time.Time  // when an unknown key last caused a fetch
	failures int        // since the last good fetch
	failed   uint64     // in total
	last     error
	unkept   error // why the last good keys are not in the folder
}

// A snapshot is the answer of one good fetch. It is never changed.
type snapshot struct {
	keys    map[string][]publicKey
	fetched time.Time
	refresh time.Time // when to fetch again
	epoch   uint64    // grows when a key went away
	stored  bool      // an earlier process fetched it
}

type flight struct {
	done chan struct{}
	err  error         // set before done is closed
	kept chan struct{} // closed when the folder was written, or is not to be
}

// NewKeySet makes a KeySet without fetching anything: that is Prefetch's and
// Run's. Where Folder has keys of an earlier process it begins with those.
func NewKeySet(o KeySetOptions) (*KeySet, error) {
	k := &KeySet{noKeyID: o.NoKeyID, folder: o.Folder, allowHTTP: o.AllowHTTP, client: defaultClient(), now: time.Now}
	if o.URL == "" && o.Issuer != "" {
		if u, err := url.Parse(o.Issuer); err != nil || u.Host == "" || u.RawQuery != "" || u.ForceQuery || strings.Contains(o.Issuer, "#") {
			return nil, errors.New("the issuer must be an absolute URL without query and fragment")
		}
		k.discovery = &discovery{issuer: o.Issuer}
		o.URL = strings.TrimSuffix(o.Issuer, "/") + discoveryPath
	}
	u, err := k.checkURL(o.URL)
	if err != nil {
		return nil, err
	}
	k.url = u.String()
	if o.Client != nil {
		c := *o.Client
		k.client = &c
	}
	k.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if o.Now != nil {
		k.now = o.Now
	}
	if k.folder != "" {
		k.restore()
	}
	return k, nil
}

// checkURL refuses what keys are not to be fetched from.
func (k *KeySet) checkURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, errors.New("the keys' URL must be an absolute URL without user and password")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !k.allowHTTP) {
		return nil, fmt.Errorf("the keys' URL %s must be https", u.Redacted())
	}
	return u, nil
}

func defaultClient() *http.Client {
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		return &http.Client{Transport: t.Clone()}
	}
	return &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}}
}

// Verify checks a token's signature by the key it names. Its algorithm must be
// one of the allowed and one this package knows. The error is a
// *proxy.TokenError, or wraps proxy.ErrUnavailable where it cannot be told:
// there are no keys yet, or the key is unknown and the issuer does not answer.
func (k *KeySet) Verify(ctx context.Context, t *Token, allowed []string) error {
	alg, known := algorithms[t.Algorithm]
	switch {
	case !known || !slices.Contains(allowed, t.Algorithm):
		return Refuse(ReasonAlgorithm, "allowed: %v", allowed)
	case t.KeyID == "" && !k.noKeyID:
		return Refuse(ReasonKeyID, "the header has no kid")
	case len(t.signature) == 0:
		return Refuse(ReasonSignature, "it is empty")
	}
	keys, err := k.find(ctx, t.KeyID)
	if err != nil {
		return err
	}
	digest := t.digest[:]
	if !alg.sha256 || !t.summed {
		d := desks.Get().(*desk)
		defer desks.Put(d)
		d.text = append(d.text[:0], t.signed...)
		digest = alg.digest(d.text)
	}
	for _, key := range keys {
		if (key.alg == "" || key.alg == t.Algorithm) && alg.fits(key.key) && alg.verify(key.key, digest, t.signature) {
			return nil
		}
	}
	return Refuse(ReasonSignature, "by the key %q of %s", t.KeyID, k.url)
}

// find gives the keys of that ID, and fetches once where there is none.
//
// An unknown key is refused (401) where the issuer was heard: it does not have
// it, or did not within the last minute. Issuers publish a key well before
// they sign with it, so who comes with one unknown to an answer of a minute
// ago is a stranger rather than early. Where the last fetch failed the issuer
// may long have rotated: then it cannot be told (503).
func (k *KeySet) find(ctx context.Context, id string) ([]publicKey, error) {
	set := k.current.Load()
	if set == nil {
		return nil, k.unavailable(errors.New("no keys were fetched yet"))
	}
	if id == "" {
		return k.single(set)
	}
	if keys := set.keys[id]; keys != nil {
		return keys, nil
	}
	fetch, failing := k.fetchUnknown()
	if fetch != nil {
		patience := time.NewTimer(unknownKeyWait)
		defer patience.Stop()
		select {
		case <-fetch.done:
			failing = fetch.err != nil
		case <-patience.C:
			return nil, k.unavailable(errors.New("the token's key is unknown and the fetch takes long"))
		case <-ctx.Done():
			return nil, k.unavailable(context.Cause(ctx))
		}
	}
	if keys := k.current.Load().keys[id]; keys != nil {
		return keys, nil
	}
	if failing {
		return nil, k.unavailable(errors.New("the token's key is unknown and the last fetch failed"))
	}
	return nil, Refuse(ReasonUnknownKey, "%s has no key %q", k.url, id)
}

// single gives the only key, for a token that names none.
func (k *KeySet) single(set *snapshot) ([]publicKey, error) {
	if len(set.keys) == 1 {
		for _, keys := range set.keys {
			if len(keys) == 1 {
				return keys, nil
			}
		}
	}
	return nil, Refuse(ReasonKeyID, "the header has no kid, and %s has several keys", k.url)
}

func (k *KeySet) unavailable(err error) error {
	return fmt.Errorf("signing keys of %s: %w: %w", k.url, proxy.ErrUnavailable, err)
}

// fetchUnknown is the fetch under way, or a new one where a minute has passed,
// or nil; failing says whether the last one to end has failed.
func (k *KeySet) fetchUnknown() (f *flight, failing bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := k.now(); k.flight == nil && now.Sub(k.asked) >= unknownKeyPause {
		k.asked = now
		k.start()
	}
	return k.flight, k.failures > 0
}

// share is the fetch under way, or a new one.
func (k *KeySet) share() *flight {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.flight == nil {
		k.start()
	}
	return k.flight
}

// start starts a fetch on a context of its own: none of those who wait for it
// can end it for the others. k.mu is held.
func (k *KeySet) start() {
	f := &flight{done: make(chan struct{}), kept: make(chan struct{})}
	k.flight = f
	go func() {
		timeout := fetchTimeout
		if k.current.Load() == nil {
			timeout = firstTimeout
		}
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		set, body, err := k.fetch(ctx)
		k.land(f, set, err)
		if err == nil && k.folder != "" {
			k.keep(body, set.fetched)
		}
		close(f.kept)
	}()
}

func (k *KeySet) land(f *flight, set *snapshot, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.flight, k.last, f.err = nil, err, err
	if err != nil {
		k.failures++
		k.failed++
	} else {
		k.failures = 0
		if old := k.current.Load(); old != nil {
			set.epoch = old.epoch
			if !set.holds(old) {
				set.epoch++
			}
		}
		k.current.Store(set)
	}
	close(f.done)
}

// Prefetch fetches the keys unless there are fresh ones, and waits until ctx
// ends. The error wraps proxy.ErrUnavailable; Run goes on trying.
func (k *KeySet) Prefetch(ctx context.Context) error {
	if set := k.current.Load(); set != nil && k.now().Before(set.refresh) {
		return nil
	}
	f := k.share()
	select {
	case <-f.done:
	case <-ctx.Done():
		return k.unavailable(context.Cause(ctx))
	}
	if f.err != nil {
		return k.unavailable(f.err)
	}
	select { // so that Status says how it went
	case <-f.kept:
	case <-ctx.Done():
	}
	return nil
}

// source names whose keys these are: the issuer where it says where they are,
// else where they are.
func (k *KeySet) source() string {
	if k.discovery != nil {
		return k.discovery.issuer
	}
	return k.url
}

// Run keeps the keys fresh until ctx ends: it fetches before they expire, and
// after a failure again and again, ever more slowly.
func (k *KeySet) Run(ctx context.Context) {
	for {
		timer := time.NewTimer(k.pause())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		if k.fresh() {
			continue // a fetch of somebody else's has succeeded meanwhile
		}
		select {
		case <-k.share().done:
		case <-ctx.Done():
			return
		}
	}
}

func (k *KeySet) fresh() bool {
	set := k.current.Load()
	return set != nil && k.now().Before(set.refresh)
}

// pause is how long Run waits: until the keys are due, or after a failure a
// random part (full jitter) of a time that doubles.
func (k *KeySet) pause() time.Duration {
	k.mu.Lock()
	failures := k.failures
	k.mu.Unlock()
	set := k.current.Load()
	if k.fresh() {
		return set.refresh.Sub(k.now())
	}
	if failures == 0 {
		return 0
	}
	ceiling := min(maxBackoff, minBackoff<<min(failures, maxBackoffDoubling))
	if set == nil {
		ceiling = min(ceiling, maxBackoffNoKeys)
	}
	return minBackoff/2 + rand.N(ceiling-minBackoff/2)
}

// Ready reports whether there are keys, however old.
func (k *KeySet) Ready() bool { return k.current.Load() != nil }

// Epoch grows when a key that was there is gone: what it signed and was
// verified before must be verified anew.
func (k *KeySet) Epoch() uint64 {
	if set := k.current.Load(); set != nil {
		return set.epoch
	}
	return 0
}

// A Status is how a KeySet does, for metrics and readiness.
type Status struct {
	Source   string        // the issuer where its metadata say where they are, else their URL
	Keys     int           // 0: never had any
	Fetched  time.Time     // when the keys were fetched; zero: never
	Age      time.Duration // how long ago that is
	Refresh  time.Time     // when they are due to be fetched again
	Failures int           // failed fetches since the last good one
	Failed   uint64        // failed fetches in total
	Err      error         // why the last fetch failed; nil where it did not
	Stored   bool          // the keys are those that an earlier process fetched
	Unkept   error         // why the last good keys will not survive a restart, where they should
}

// Status tells how the key set does now.
func (k *KeySet) Status() Status {
	k.mu.Lock()
	s := Status{Source: k.source(), Failures: k.failures, Failed: k.failed, Err: k.last, Unkept: k.unkept}
	k.mu.Unlock()
	if set := k.current.Load(); set != nil {
		for _, keys := range set.keys {
			s.Keys += len(keys)
		}
		s.Stored = set.stored
		s.Fetched, s.Refresh, s.Age = set.fetched, set.refresh, k.now().Sub(set.fetched)
	}
	return s
}
