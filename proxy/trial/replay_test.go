package trial

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"sidegate/policy"
	"sidegate/proxy"
	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// A logged is a gateway whose every part is real but for what is behind it: it
// answers requests one after another, each at its own time, and keeps a ledger.
type logged struct {
	t       testing.TB
	dir     string
	ledger  *audit.Ledger
	uploads *upload.Uploads
	proxy   *proxy.Proxy
	now     *Request // the one that is answered
	mu      sync.Mutex
	last    string // its record; of a batch, one of them
}

func newLogged(t testing.TB, text string) *logged {
	t.Helper()
	l := &logged{t: t, dir: t.TempDir()}
	var err error
	if l.ledger, err = audit.Open(audit.Options{Dir: l.dir, Gateway: audit.Gateway{Name: "test"}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.ledger.Close(context.Background()) })
	g := gateOf(t, text)
	upstreams := map[string]proxy.Upstream{}
	for _, r := range g.Policy.Routes {
		if r.Upstream != "" {
			upstreams[r.Upstream] = proxy.Upstream{URL: &url.URL{Scheme: "http", Host: "app.invalid"}, KeepHost: true, Headers: proxy.NativeHeaders(), MaxBody: 1 << 20, Timeout: time.Minute, IdleTimeout: time.Minute, Transport: l}
		}
	}
	l.uploads = &upload.Uploads{Store: noStore{}, Buckets: map[string]upload.Bucket{}, Now: l.clock}
	l.proxy, err = proxy.New(proxy.Options{
		Name: "test", Policy: g.Policy, Authenticator: l, Recorder: l, Upstreams: upstreams, Documents: l,
		Uploads: l.uploads,
		Log:     zerolog.Nop(), Metrics: prometheus.NewRegistry(), Now: l.clock, IdleTimeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.proxy.FlushRefusals(t.Context(), true); err != nil { // else only some refusals have a record
		t.Fatal(err)
	}
	return l
}

func (l *logged) clock() time.Time { return l.now.Time }

func (l *logged) Authenticate(_ context.Context, token string) (*policy.Identity, error) {
	switch {
	case token == "bad":
		return nil, &proxy.TokenError{Reason: "the token is malformed"}
	case token == "away":
		return nil, errors.New("the keys are away")
	}
	return l.now.Identity, nil
}

func (l *logged) ReadDocument(_ context.Context, path string, fields []string) (policy.Document, error) {
	if l.now.Lookups == nil {
		return policy.Document{}, nil
	}
	return l.now.Lookups.Lookup(&policy.Lookup{Fields: fields}, path)
}

func (l *logged) Record(ctx context.Context, e *audit.Event, level audit.Survive) error {
	l.mu.Lock() // a batch's items are put on record at once
	l.last = e.Record
	l.mu.Unlock()
	ticket, err := l.ledger.Append(e)
	if err != nil {
		return err
	}
	return ticket.Wait(ctx, level)
}

func (l *logged) Note(e *audit.Event) error {
	_, err := l.ledger.Append(e)
	return err
}

func (l *logged) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// noStore keeps no sessions: what was allowed is on record by then.
type noStore struct{}

var errNoStore = errors.New("there is no store")

func (noStore) Create(context.Context, *upload.Session, *upload.Quota) error {
	return errNoStore
}
func (noStore) Get(context.Context, string) (*upload.Session, error) { return nil, errNoStore }
func (noStore) Transition(context.Context, upload.Status, *upload.Session) error {
	return errNoStore
}

// serve answers a request and gives its record; "" where it has none.
func (l *logged) serve(q *Request) string {
	l.now, l.last = q, ""
	l.proxy.ServeHTTP(httptest.NewRecorder(), q.http())
	return l.last
}

// closed ends the ledger, so that all of it can be read.
func (l *logged) closed() string {
	l.t.Helper()
	if err := l.ledger.Close(context.Background()); err != nil {
		l.t.Fatal(err)
	}
	return l.dir
}

func replayOf(t testing.TB, dir, text string, o Replay) *Replayed {
	t.Helper()
	r, err := o.Run(audit.Lines(dir), func() (*Gate, error) { return gateOf(t, text), nil })
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var limitOfRoute = regexp.MustCompile(`(?m),?\s+limit: \{[^}]*\}`)

// unlimited is the example without its limits, which are no matter of replays,
// and with documents that are read for each request.
func unlimited(t testing.TB) string {
	text := limitOfRoute.ReplaceAllString(changed(t, read(t, examplePolicy), "    cache: 30s\n", ""), "")
	if strings.Contains(text, "limit") {
		t.Fatal("limits are left")
	}
	return text
}

// TestReplayAgreesWithTheGate records what a real gateway decides of every
// request that probes the example, and holds a replay of the log by the same
// policy, and by each mutation of it, against what that policy's gate says of
// the requests themselves: a replay knows no more than the log, so it may leave
// open what depends on anything else, but it must not be wrong.
func TestReplayAgreesWithTheGate(t *testing.T) {
	text := unlimited(t)
	gw := newLogged(t, text)
	byRecord := map[string]*Request{}
	policies := []*policy.Policy{gateOf(t, text).Policy}
	for _, m := range mutations {
		if strings.Contains(text, m.old) {
			policies = append(policies, gateOf(t, strings.Replace(text, m.old, m.new, 1)).Policy)
		}
	}
	for p := range policy.Probes(policy.MaxProbes, policies...).All() {
		if p.EncodedSlash != 0 || p.WebSocket || p.Length != 0 {
			continue // no record says so, and docs say that
		}
		q := probeRequest(p)
		byRecord[gw.serve(q)] = q
	}
	var events []*audit.Event
	for l, err := range audit.Lines(gw.closed()) {
		if err != nil {
			t.Fatal(err)
		}
		if l.Type == audit.TypeDecision {
			e, err := l.Event()
			if err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
		}
	}
	if len(events) != len(byRecord) || len(events) < 500 {
		t.Fatalf("%d requests, %d decisions", len(byRecord), len(events))
	}
	// compare gives how many were same, changed and undecidable.
	compare := func(t *testing.T, text string) (same, changed, open int) {
		w := &replayer{gate: gateOf(t, text)}
		direct := gateOf(t, text)
		for _, e := range events {
			v := w.judge(e)
			switch {
			case v.standing != replayed:
				if !slices.Contains([]string{"invalid_field", "no_session"}, e.Decision.Code) {
					t.Errorf("skipped: %+v", e.Decision)
				}
				continue
			case v.why != "":
				open++
				continue
			}
			q := byRecord[e.Record]
			j := direct.Judge(q)
			want := decidedOf(&j)
			want.To = ""
			if want.Code == "invalid_field" && v.after.Allow && v.after.Rule == want.Rule {
				continue // what expiry was asked for is not on record, where the request was refused then
			}
			if v.after != want && v.after.Code != WhoCalls {
				t.Errorf("%s %s as %s: the replay says %s, the gate %s", q.Method, q.Target, who(q.Identity), v.after, want)
			}
			if v.before.same(v.after) {
				same++
			} else {
				changed++
			}
		}
		return same, changed, open
	}
	t.Run("the same policy", func(t *testing.T) {
		same, changed, open := compare(t, text)
		if changed != 0 || open != 0 || same < 500 {
			t.Errorf("same %d, changed %d, undecidable %d", same, changed, open)
		}
	})
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			if !strings.Contains(text, m.old) {
				t.Skip("of a limit")
			}
			same, changed, open := compare(t, strings.Replace(text, m.old, m.new, 1))
			if m.before != "" && changed+open == 0 && !slices.Contains([]string{"another key", "another upstream", "no encoded slash", "WebSocket", "a smaller body", "a longer expiry"}, m.name) {
				t.Errorf("same %d, changed %d, undecidable %d", same, changed, open)
			}
			t.Logf("same %d, changed %d, undecidable %d", same, changed, open)
		})
	}
}
