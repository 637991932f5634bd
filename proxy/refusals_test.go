package proxy

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sidegate/policy"
	"sidegate/storage/audit"
)

// A book is a Recorder in memory. It fails both ways: the event is in no log, or
// it may be.
type book struct {
	mu      sync.Mutex
	events  []*audit.Event
	lost    error // before the event is stored
	unsure  error // after
	room    int   // how many it takes all the same
	records int
}

func (b *book) Record(_ context.Context, e *audit.Event, _ audit.Survive) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records++
	if b.lost != nil && b.room <= 0 {
		return b.lost
	}
	b.room--
	b.events = append(b.events, copyOf(e))
	return b.unsure
}

func (b *book) Note(e *audit.Event) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, copyOf(e))
	return nil
}

func (b *book) fail(lost, unsure error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost, b.unsure = lost, unsure
}

// A reckoning is what a log says of refusals.
type reckoning struct {
	full, repeated, allowed, outcomes int
	summaries                         []*audit.Event
}

func (b *book) reckon(t testing.TB) (r reckoning) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		switch {
		case e.Summary != nil:
			if e.Type != audit.TypeDecision || e.Record != "" || e.Decision.Effect != "deny" || e.Summary.From.After(e.Summary.To) || e.Summary.From.IsZero() {
				t.Errorf("a summary is %+v with %+v", e, e.Summary)
			}
			for _, counts := range []map[string]int{e.Summary.Routes, e.Summary.Codes} {
				if n := total(counts); n != e.Summary.Repeated || len(counts) > maxTallies {
					t.Errorf("%v are %d, and %d were repeated", counts, n, e.Summary.Repeated)
				}
			}
			r.repeated += e.Summary.Repeated
			r.summaries = append(r.summaries, e)
		case e.Outcome != nil:
			r.outcomes++
		case e.Decision.Effect == "deny":
			r.full++
		default:
			r.allowed++
		}
	}
	// They come in no order.
	slices.SortStableFunc(r.summaries, func(x, y *audit.Event) int { return x.Summary.From.Compare(y.Summary.From) })
	return r
}

func total(counts map[string]int) (n int) {
	for _, one := range counts {
		n += one
	}
	return n
}

// A flooded gateway is asked within the process.
type flooded struct {
	*Proxy
	t    testing.TB
	book *book
	app  roundTripper
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func newFlooded(t testing.TB, change ...func(*Options)) *flooded {
	t.Helper()
	f := &flooded{t: t, book: &book{}}
	f.app = func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}
	o := Options{
		Name: "photos", Policy: loadPolicy(t, testPolicy), Authenticator: fakeTokens{}, Recorder: f.book,
		Upstreams: map[string]Upstream{"app": {
			URL: mustURL(t, "http://app.test"), Transport: f.app, Headers: NativeHeaders(), KeepHost: true,
			Timeout: time.Minute, IdleTimeout: time.Minute, MaxBody: 1 << 20,
		}},
		IdleTimeout: time.Minute, Log: zerolog.Nop(), Metrics: prometheus.NewRegistry(), Now: time.Now,
	}
	for _, c := range change {
		c(&o)
	}
	var err error
	if f.Proxy, err = New(o); err != nil {
		t.Fatal(err)
	}
	return f
}

// from sends a GET from an address.
func (f *flooded) from(address, target, token string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", target, nil)
	r.RequestURI, r.Host = target, "gateway.test"
	r.RemoteAddr = netip.AddrPortFrom(netip.MustParseAddr(address), 40000).String()
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	return w
}

func (f *flooded) refused(address, target, token string, headers ...string) {
	f.t.Helper()
	if w := f.from(address, target, token, headers...); w.Code < 400 || w.Header().Get("X-Request-Id") == "" {
		f.t.Fatalf("%s %s: %d %v", address, target, w.Code, w.Header())
	}
}

func (f *flooded) flush(last bool) {
	f.t.Helper()
	if err := f.FlushRefusals(context.Background(), last); err != nil {
		f.t.Fatal(err)
	}
}

// checkSizes holds the tables against their bounds.
func (f *flooded) checkSizes() {
	f.t.Helper()
	for _, t := range []*refusalTable{&f.refusals.strangers, &f.refusals.verified} {
		t.mu.Lock()
		if len(t.full) > refusalsPerGateway || len(t.counted.sources) > maxSummaries || len(t.counted.list) != len(t.counted.sources) {
			f.t.Errorf("the tables hold %d, %d and %d sources", len(t.full), len(t.counted.sources), len(t.counted.list))
		}
		for _, c := range append(slices.Clone(t.counted.list), &t.counted.rest) {
			if len(c.routes) > maxTallies || len(c.codes) > maxTallies {
				f.t.Errorf("a count holds %d routes and %d codes", len(c.routes), len(c.codes))
			}
		}
		t.mu.Unlock()
	}
}

// want holds a log against what was sent.
func (f *flooded) want(full, repeated, summaries int) reckoning {
	f.t.Helper()
	r := f.book.reckon(f.t)
	if r.full != full || r.repeated != repeated || len(r.summaries) != summaries {
		f.t.Errorf("%d in full and %d in %d summaries; want %d and %d in %d", r.full, r.repeated, len(r.summaries), full, repeated, summaries)
	}
	if r.outcomes != r.full+r.allowed {
		f.t.Errorf("%d outcomes of %d decisions", r.outcomes, r.full+r.allowed)
	}
	return r
}

// TestFloodFromManyNetworks: whoever has 10,000 networks gains no more lines than
// there are for all strangers, and no memory.
func TestFloodFromManyNetworks(t *testing.T) {
	f := newFlooded(t)
	for i := range 10_000 {
		f.refused(fmt.Sprintf("2001:db8:%x:%x::1", i>>8, i&255), "/private/a", "")
	}
	f.checkSizes()
	f.flush(false)
	r := f.want(refusalsPerGateway, 10_000-refusalsPerGateway, maxSummaries+1)
	first, rest := r.summaries[0], r.summaries[maxSummaries]
	if first.Summary.Source != audit.SourceIP || first.Request.IP != "2001:db8:2:58::/64" || first.Summary.Repeated != 1 || first.Identity != nil {
		t.Errorf("the first is %+v %+v", first.Request, first.Summary)
	}
	if s := rest.Summary; s.Source != audit.SourceRest || rest.Request != nil || s.Repeated != 10_000-refusalsPerGateway-maxSummaries ||
		s.Routes["private"] != s.Repeated || s.Codes["no_token"] != s.Repeated {
		t.Errorf("the rest is %+v", s)
	}
	if f.flush(false); len(f.book.reckon(t).summaries) != maxSummaries+1 {
		t.Error("what was told is told again")
	}
}

// TestFloodFromOneNetwork: the addresses of a /64 are one customer's.
func TestFloodFromOneNetwork(t *testing.T) {
	f := newFlooded(t)
	for i := range 5000 {
		f.refused(fmt.Sprintf("2001:db8:0:1::%x", i), []string{"/private/a", "/nowhere", "/public//a"}[i%3], "")
	}
	f.refused("198.51.100.7", "/private/a", "") // who has nothing to do with it is on record in full
	f.flush(false)
	r := f.want(refusalsPerSource+1, 5000-refusalsPerSource, 1)
	s := r.summaries[0]
	if s.Request.IP != "2001:db8:0:1::/64" || s.Summary.Routes["private"] == 0 || s.Summary.Routes[tallyNone] == 0 || s.Summary.Codes["bad_target"] == 0 {
		t.Errorf("%+v %+v", s.Request, s.Summary)
	}
}

// TestVerifiedCallerWithManyAddresses: a user is one source from anywhere.
func TestVerifiedCallerWithManyAddresses(t *testing.T) {
	f := newFlooded(t)
	for i := range 2000 {
		f.refused(fmt.Sprintf("198.51.%d.%d", i>>8, i&255), "/admin/a", "alice")
	}
	f.flush(false)
	s := f.want(refusalsPerSource, 2000-refusalsPerSource, 1).summaries[0]
	if s.Summary.Source != audit.SourceUID || s.Identity.Namespace != "users" || s.Identity.UID != "alice" || s.Request != nil || s.Summary.Codes["no_entry"] != s.Summary.Repeated {
		t.Errorf("%+v %+v", s.Identity, s.Summary)
	}
}

// TestFloodHidesNobodyWhoIsSignedIn: strangers use up their own full record only.
func TestFloodHidesNobodyWhoIsSignedIn(t *testing.T) {
	f := newFlooded(t)
	for i := range 3 * refusalsPerGateway {
		f.refused(fmt.Sprintf("198.51.%d.%d", i>>8, i&255), "/private/a", "")
	}
	for range refusalsPerSource {
		f.refused("198.51.0.1", "/own/bob", "alice")
	}
	f.want(refusalsPerGateway+refusalsPerSource, 0, 0)
}

// TestSpoofedForwardedForIsNoSource: only a trusted proxy says who is behind it.
func TestSpoofedForwardedForIsNoSource(t *testing.T) {
	f := newFlooded(t, func(o *Options) {
		o.Trusted = TrustedProxies{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	})
	for i := range 500 {
		f.refused("203.0.113.9", "/private/a", "", "X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i%250))
	}
	f.flush(false)
	if s := f.want(refusalsPerSource, 500-refusalsPerSource, 1).summaries[0]; s.Request.IP != "203.0.113.9" {
		t.Errorf("%+v", s.Request)
	}
	for i := range 500 { // and these are 250 callers
		f.refused("10.0.0.1", "/private/a", "", "X-Forwarded-For", fmt.Sprintf("198.51.100.%d", i%250))
	}
	f.want(refusalsPerSource+500, 500-refusalsPerSource, 1)
}

// TestAllowedIsNeverSummarised: the flood does not hide what came through.
func TestAllowedIsNeverSummarised(t *testing.T) {
	f := newFlooded(t)
	for range 500 {
		f.refused("203.0.113.9", "/admin/a", "alice")
		if w := f.from("203.0.113.9", "/private/a", "alice"); w.Code != 200 {
			t.Fatal(w.Code, w.Body)
		}
		f.refused("203.0.113.9", "/private/a", "")
	}
	f.flush(true)
	if r := f.want(2*refusalsPerSource, 2*(500-refusalsPerSource), 2); r.allowed != 500 {
		t.Errorf("%d of 500 allowed requests are on record", r.allowed)
	}
}

// TestRefusalsOfEachMinute: each has its full ones and its summary, and the
// counts are exact.
func TestRefusalsOfEachMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFlooded(t)
		sent := 0
		for minute := range 5 {
			for range 200 {
				f.refused("203.0.113.9", "/private/a", "")
				sent++
				time.Sleep(refusalWindow / 200)
			}
			f.flush(false)
			r := f.want((minute+1)*refusalsPerSource, sent-(minute+1)*refusalsPerSource, minute+1)
			s := r.summaries[minute].Summary
			if s.To.Sub(s.From) >= refusalWindow || time.Since(s.To) > refusalWindow {
				t.Errorf("from %v to %v", s.From, s.To)
			}
		}
		time.Sleep(refusalWindow)
		f.refused("203.0.113.9", "/private/a", "")
		f.flush(true)
		f.want(5*refusalsPerSource+1, sent-5*refusalsPerSource, 5)
	})
}

// TestRefusalsAreCountedExactly while everything happens at once.
func TestRefusalsAreCountedExactly(t *testing.T) {
	f := newFlooded(t)
	const callers, each = 16, 400
	done := make(chan struct{})
	var flushing, calling sync.WaitGroup
	flushing.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			f.book.fail(fmt.Errorf("%w: full", ErrNotRecorded), nil) // also for full ones, which are answered 503 then
			f.book.fail(nil, nil)
			_ = f.FlushRefusals(context.Background(), false)
		}
	})
	var answered [callers]int
	for c := range callers {
		calling.Go(func() {
			for i := range each {
				token, target := "", "/private/a"
				if i%2 == 0 {
					token, target = "alice", "/admin/a"
				}
				if f.from(fmt.Sprintf("198.51.100.%d", c/2), target, token).Code != http.StatusServiceUnavailable {
					answered[c]++
				}
			}
		})
	}
	calling.Wait()
	close(done)
	flushing.Wait()
	f.flush(true)
	sent := 0
	for _, n := range answered {
		sent += n
	}
	if r := f.book.reckon(t); r.full+r.repeated != sent || r.full == 0 || r.repeated == 0 {
		t.Errorf("%d refusals were answered: %d in full, %d in %d summaries", sent, r.full, r.repeated, len(r.summaries))
	}
}

// TestSummariesWaitForTheLog: what the log does not take is kept, within bounds;
// what it may have taken is not told twice.
func TestSummariesWaitForTheLog(t *testing.T) {
	f := newFlooded(t)
	flood := func(from, n int) {
		for i := range n {
			f.refused(fmt.Sprintf("2001:db8:%x:%x::1", (from+i)>>8, (from+i)&255), "/private/a", "")
		}
	}
	flood(0, refusalsPerGateway)
	for round := range 4 {
		flood(700*round, 700) // some of them again, some new
		f.book.fail(fmt.Errorf("%w: full", ErrNotRecorded), nil)
		f.book.records = 0
		err := f.FlushRefusals(context.Background(), false)
		if !errors.Is(err, ErrNotRecorded) || f.book.records != flushTogether {
			t.Fatalf("%v after %d tries", err, f.book.records)
		}
		f.checkSizes()
	}
	f.book.room = 100
	if err := f.FlushRefusals(context.Background(), false); err == nil || !strings.Contains(err.Error(), "refusals that were only counted are not on record") {
		t.Fatal(err)
	}
	if r := f.book.reckon(t); len(r.summaries) != 100 {
		t.Errorf("%d summaries of 100", len(r.summaries))
	}
	f.book.fail(nil, nil)
	f.flush(false)
	if r := f.book.reckon(t); r.repeated != 4*700 || len(r.summaries) != maxSummaries+1 {
		t.Errorf("%d of %d refusals in %d summaries", r.repeated, 4*700, len(r.summaries))
	}

	before := f.book.reckon(t).repeated
	for range 3 {
		f.refused("198.51.100.7", "/private/a", "")
	}
	f.book.fail(nil, context.DeadlineExceeded) // stored, and nobody said so
	if err := f.FlushRefusals(context.Background(), false); err == nil {
		t.Error("nobody is told")
	}
	f.book.fail(nil, nil)
	f.flush(false)
	if r := f.book.reckon(t); r.repeated != before+3 {
		t.Errorf("%d refusals are %d in the log", before+3, r.repeated)
	}
}

// TestRefusalsAfterTheLastFlush have nobody who would count them.
func TestRefusalsAfterTheLastFlush(t *testing.T) {
	f := newFlooded(t)
	for range 100 {
		f.refused("203.0.113.9", "/private/a", "")
	}
	f.flush(true)
	for range 100 {
		f.refused("203.0.113.9", "/private/a", "")
	}
	f.want(refusalsPerSource+100, 100-refusalsPerSource, 1)
}

// TestRefusedByAFailingLog: what the log does not take is answered 503, is on no
// record, and is counted nowhere.
func TestRefusedByAFailingLog(t *testing.T) {
	f := newFlooded(t)
	f.book.fail(fmt.Errorf("%w: full", ErrNotRecorded), nil)
	for range 10 {
		for _, token := range []string{"alice", ""} {
			if w := f.from("203.0.113.9", "/private/a", token); w.Code != 503 {
				t.Fatal(w.Code)
			}
		}
	}
	f.book.fail(nil, nil)
	f.flush(true)
	f.want(0, 0, 0)
}

// TestCountedRefusalIsTheSameAnswer, but for its id; and it waits for nothing.
func TestCountedRefusalIsTheSameAnswer(t *testing.T) {
	f := newFlooded(t, func(o *Options) { o.Survive = audit.Machine })
	plain := func(w *httptest.ResponseRecorder) (http.Header, map[string]any) {
		var body map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
			t.Fatal(err)
		}
		h := w.Header().Clone()
		if h.Get("X-Request-Id") != body["request_id"] || len(h.Get("X-Request-Id")) != 32 {
			t.Errorf("%v %v", h, body)
		}
		h.Del("X-Request-Id")
		delete(body, "request_id")
		return h, body
	}
	for _, target := range []string{"/private/a", "/nowhere", "/private//a"} {
		header, body := plain(f.from("203.0.113.9", target, ""))
		for range refusalsPerSource {
			f.from("203.0.113.9", target, "")
		}
		f.book.fail(errors.New("it hangs"), nil)
		w := f.from("203.0.113.9", target, "")
		f.book.fail(nil, nil)
		if h, b := plain(w); !maps.EqualFunc(h, header, slices.Equal[[]string]) || !maps.Equal(b, body) {
			t.Errorf("%s: %v %v; before %v %v", target, h, b, header, body)
		}
	}
}

// TestLateRefusalsAreCounted: those of routes with `audit: off`, and of what
// broke before there was a decision.
func TestLateRefusalsAreCounted(t *testing.T) {
	f := newFlooded(t, func(o *Options) {
		o.Policy = loadPolicy(t, strings.Replace(testPolicy, "max_body: 1KiB, allow: public", "max_body: 1KiB, allow: public, audit: off", 1))
		u := o.Upstreams["app"]
		u.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
			_, err := io.Copy(io.Discard, r.Body)
			return nil, err
		})
		o.Upstreams["app"] = u
	})
	for range 100 {
		r := httptest.NewRequest("POST", "/small", io.LimitReader(rand.Reader, 2<<10)) // of a length that is not told
		r.RemoteAddr = "203.0.113.9:40000"
		w := httptest.NewRecorder()
		if f.ServeHTTP(w, r); w.Code != http.StatusRequestEntityTooLarge {
			t.Fatal(w.Code, w.Body)
		}
		f.refused("203.0.113.10", "/private/a", "panic")
	}
	f.flush(true)
	r := f.want(2*refusalsPerSource, 2*(100-refusalsPerSource), 2)
	for i, want := range []struct{ route, code string }{{"small", codeTooLarge}, {"private", codeInternal}} {
		if s := r.summaries[i].Summary; s.Routes[want.route] != s.Repeated || s.Codes[want.code] != s.Repeated {
			t.Errorf("%+v", s)
		}
	}
}

// TestUnknownAddressIsOneSource: a proxy that asks and does not say for whom.
func TestUnknownAddressIsOneSource(t *testing.T) {
	f := newFlooded(t)
	h := f.ForwardAuth(DialectNginx)
	for range 100 {
		r := httptest.NewRequest("GET", "/", nil)
		r.Header.Set("X-Original-Method", "GET")
		r.Header.Set("X-Original-Uri", "/private/a")
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != 401 {
			t.Fatal(w.Code)
		}
	}
	f.flush(true)
	if s := f.want(refusalsPerSource, 100-refusalsPerSource, 1).summaries[0]; s.Request != nil || s.Summary.Source != audit.SourceIP {
		t.Errorf("%+v %+v", s.Request, s.Summary)
	}
}

// TestSummaryTellsFewRoutesApart: a policy may have thousands, and a stranger
// can ask for each.
func TestSummaryTellsFewRoutesApart(t *testing.T) {
	var routes strings.Builder
	for i := range 100 {
		fmt.Fprintf(&routes, "  - {id: r%d, path: /r%d, methods: [GET], upstream: app, allow: [{id: user, who: [users]}]}\n", i, i)
	}
	f := newFlooded(t, func(o *Options) { o.Policy = loadPolicy(t, testPolicy+routes.String()) })
	for i := range 1000 {
		f.refused("203.0.113.9", fmt.Sprintf("/r%d", i%100), "")
	}
	f.checkSizes()
	f.flush(true)
	if s := f.want(refusalsPerSource, 1000-refusalsPerSource, 1).summaries[0].Summary; len(s.Routes) != maxTallies || s.Routes[tallyOther] == 0 {
		t.Errorf("%v", s.Routes)
	}
}

// TestLongUIDsAreNotKept: who chooses what stands in a token does not choose how
// much is remembered of it.
func TestLongUIDsAreNotKept(t *testing.T) {
	long := strings.Repeat("u", 1<<20)
	f := newFlooded(t, func(o *Options) { o.Authenticator = someone{user(long)} })
	for range 100 {
		f.refused("203.0.113.9", "/admin/a", "x")
	}
	for by := range f.refusals.verified.full {
		if len(by.uid) != maxSourceUID {
			t.Errorf("%d bytes are kept", len(by.uid))
		}
	}
	f.flush(true)
	if s := f.want(refusalsPerSource, 100-refusalsPerSource, 1).summaries[0]; len(s.Identity.UID) != maxSourceUID {
		t.Errorf("%d bytes", len(s.Identity.UID))
	}
}

// FuzzRefusalTable: whatever comes in whatever order, nothing is lost and nothing
// grows. Each byte is a step: somebody is refused, time passes, counts are taken
// and kept or put back.
func FuzzRefusalTable(f *testing.F) {
	f.Add([]byte("aaaaaaaabbbbbcc\xf0aaaa\xfeaaabbbbb\xffaaaa"))
	f.Add([]byte{0, 1, 2, 3, 4, 5, 0xf0, 0, 0, 0, 0xfe, 1, 1, 1, 1, 0xfd, 2, 2, 2})
	f.Fuzz(func(t *testing.T, steps []byte) {
		var table refusalTable
		table.init(refusalRates{source: 3, gateway: 7})
		now := time.Unix(1_000_000, 0)
		sent, full, told, inWindow := 0, 0, 0, 0
		for _, s := range steps {
			switch {
			case s >= 0xfe:
				for _, c := range table.take(false) {
					told += c.n
				}
			case s == 0xfd:
				table.putBack(table.take(false))
			case s >= 0xf0:
				now = now.Add(time.Duration(s-0xef) * 10 * time.Second)
			default:
				began := table.began
				sent++
				if !table.count(refusalSource{uid: string(rune(s))}, fmt.Sprint("r", s), fmt.Sprint("c", s%5), now) {
					full++
					if table.began != began {
						inWindow = 0
					}
					if inWindow++; inWindow > 7 {
						t.Fatal("too many in full")
					}
				}
			}
			if len(table.full) > 7 || len(table.counted.list) > maxSummaries {
				t.Fatal("it grows")
			}
		}
		for _, c := range table.take(true) {
			told += c.n
			if total(c.routes.byName()) != c.n || total(c.codes.byName()) != c.n || c.from.After(c.to) {
				t.Fatalf("%+v", c)
			}
		}
		if full+told != sent {
			t.Fatalf("%d in full and %d told of %d", full, told, sent)
		}
	})
}

// BenchmarkRefusal is a whole request that is refused: on record in full (into a
// book that keeps nothing), and only counted.
func BenchmarkRefusal(b *testing.B) {
	for name, full := range map[string]bool{"full": true, "counted": false} {
		b.Run(name, func(b *testing.B) {
			f := newFlooded(b, func(o *Options) { o.Recorder = nowhere{} })
			f.flush(full)
			b.ReportAllocs()
			for b.Loop() {
				f.from("203.0.113.9", "/private/a", "")
			}
		})
	}
}

// BenchmarkCountRefusal is what is under the lock: of one source, and of sources
// that are all different, from all CPUs at once.
func BenchmarkCountRefusal(b *testing.B) {
	for name, sources := range map[string]int{"one": 1, "many": 1 << 16} {
		b.Run(name, func(b *testing.B) {
			var table refusalTable
			table.init(refusalRates{refusalsPerSource, refusalsPerGateway})
			all := make([]refusalSource, sources)
			for i := range all {
				a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), byte(i)})
				all[i].ip, _ = a.Prefix(64)
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					table.count(all[i%sources], "private", "no_token", time.Now())
				}
			})
		})
	}
}

// A stuckBook is a disk that hangs.
type stuckBook struct {
	*book
	begun chan struct{}
}

func (b stuckBook) Record(ctx context.Context, e *audit.Event, _ audit.Survive) error {
	if e.Summary == nil {
		return b.book.Record(ctx, e, audit.Crash)
	}
	close(b.begun)
	<-ctx.Done()
	return ctx.Err()
}

// TestLastFlushWaitsForNoOther: the flush of the minute waits for a disk that
// hangs; a stop that has no time left does not wait for it.
func TestLastFlushWaitsForNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := make(chan struct{})
		f := newFlooded(t, func(o *Options) { o.Recorder = stuckBook{o.Recorder.(*book), begun} })
		for range refusalsPerSource + 1 {
			f.from("192.0.2.1", "/private/a", "")
		}
		other := make(chan error)
		go func() { other <- f.FlushRefusals(context.Background(), false) }()
		<-begun
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		if err := f.FlushRefusals(ctx, true); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
		<-other
	})
}

// TestClockThatGoesBack: a clock that was wrong must not have refusals counted
// only, until the day comes that it said.
func TestClockThatGoesBack(t *testing.T) {
	var table refusalTable
	table.init(refusalRates{source: 2, gateway: 100})
	by := refusalSource{namespace: "users", uid: "u1"}
	now := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	counted := func(at time.Time) (n int) {
		for range 5 {
			if table.count(by, "app", "no_entry", at) {
				n++
			}
		}
		return n
	}
	for i, at := range []time.Time{now.Add(24 * time.Hour), now, now.Add(refusalWindow)} {
		if n := counted(at); n != 3 {
			t.Errorf("window %d: %d of 5 are counted", i, n)
		}
	}
	// Of two who look at the clock at once, the later may come first.
	if n := counted(now.Add(refusalWindow - time.Millisecond)); n != 5 {
		t.Errorf("a moment earlier: %d of 5 are counted", n)
	}
}

// TestRefusalSourcesAreTold: a uid means something only within its namespace.
func TestRefusalSourcesAreTold(t *testing.T) {
	of := func(namespace, uid string) refusalSource {
		x := exchange{identity: &policy.Identity{Namespace: namespace, UID: uid}}
		return x.refusalSource()
	}
	if of("users", "u1") == of("staff", "u1") || of("users", "u1") == of("users", "u2") {
		t.Error("two callers are one")
	}
	if n := len(of("users", strings.Repeat("u", 1<<20)).uid); n != maxSourceUID {
		t.Errorf("%d bytes are kept of a long uid", n)
	}
	e := (&refusalCount{by: of("staff", "u1"), n: 3}).event(time.Now())
	if e.Identity == nil || e.Identity.Namespace != "staff" || e.Identity.UID != "u1" || e.Request != nil {
		t.Errorf("%+v", e)
	}
}
