package trial

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"sidegate/policy"
	"sidegate/storage/audit"
)

const replayPolicy = `version: sidegate-policy/v1
name: test
identities: [users]
claims: {roles: list(string), level: int, score: double, plan: string, orgs: map(string)}
lookups:
  share: {document: "shares/${params.id}", fields: {readers: list(string), until: timestamp, note: string, uses: int, rate: double}}
  key: {document: "keys/${sha256(params.id)}", fields: {open: bool}}
guards:
  - {id: closed, path: "/pair/{id...}", deny: {who: [users], if: "has(lookup.key) && !lookup.key.open"}}
routes:
  - {id: open, path: "/open/{rest...}", methods: [GET], upstream: app, allow: public}
  - {id: maybe, path: "/maybe", methods: [GET], upstream: app, allow: optional}
  - {id: admin, path: /admin, methods: [GET], upstream: app, allow: [{id: a, who: [users], roles: [admin]}]}
  - {id: level, path: /level, methods: [GET], upstream: app, allow: [{id: a, who: [users], if: auth.token.level > 3 && auth.token.score >= 0.5}]}
  - {id: mail, path: /mail, methods: [GET], upstream: app, allow: [{id: a, who: [users], verified_email: true, mfa: 10m, if: "auth.email.endsWith('@acme.dev')"}]}
  - {id: doc, path: "/doc/{id}", methods: [GET], upstream: app, allow: [{id: a, who: [users], uid: "${params.id}", if: DOC}]}
  - {id: pair, path: "/pair/{id}/x", methods: [GET], upstream: app, allow: [{id: a, who: [users], if: "!has(lookup.key) || lookup.key.open"}]}
  - {id: slow, path: "/slow", methods: [GET], upstream: app, allow: [{id: a, who: [users]}], limit: {rate: 1/d, burst: 1, per: uid}}
  - id: put
    path: /put
    methods: [POST]
    serve: presign_upload
    allow: [{id: a, who: [users]}]
    object: {key: "u/${auth.uid}/${uuid}", content_types: [image/png], max_bytes: 1KiB}
  - id: get
    path: "/get/{key...}"
    methods: [GET]
    serve: presign_download
    allow: [{id: a, who: [users], key_prefix: "u/${auth.uid}/"}]
    object: {key: "${params.key}", expires: {default: 5m, min: 1m, max: 15m}}
`

const docCondition = `'auth.uid in lookup.share.readers && lookup.share.until > request.time'`

func withDoc(condition string) string { return strings.Replace(replayPolicy, "DOC", condition, 1) }

var caller = netip.MustParseAddr("203.0.113.9")

var when = time.Date(2026, 3, 2, 10, 0, 0, 123456000, time.UTC)

func get(target string, id *policy.Identity) *Request {
	return &Request{Method: "GET", Target: target, Host: "gateway.test", IP: caller, Time: when, Identity: id}
}

func alice(claims map[string]any) *policy.Identity {
	return &policy.Identity{Name: "users", Namespace: "users", UID: "alice", AuthTime: when.Add(-time.Minute), Claims: policy.ClaimMap(claims)}
}

// documents answers by name; an error is that the document cannot be read.
type documents map[string]any

func (d documents) Lookup(_ *policy.Lookup, name string) (policy.Document, error) {
	switch v := d[name].(type) {
	case map[string]any:
		return policy.Document{Exists: true, Fields: v}, nil
	case error:
		return policy.Document{}, v
	}
	return policy.Document{}, nil
}

// A replayCase is one request, recorded under one policy and replayed by it and
// by another.
type replayCase struct {
	name    string
	request func() *Request
	policy  string            // recorded; empty: replayPolicy
	edits   []string          // pairs: what another policy has instead
	with    map[string]string // headers
	want    string            // of the other policy: same, limited, skipped, changed: AFTER, or undecidable: WHY
	itself  string            // of the same policy, where that is not same
}

func (c *replayCase) result(r *Replayed) string {
	switch {
	case r.Decisions != 1:
		return fmt.Sprintf("%d decisions", r.Decisions)
	case r.Same == 1:
		return "same"
	case r.Limited == 1:
		return "limited"
	case r.Undecidable == 1:
		return "undecidable: " + strings.Join(sortedKeys(r.Why), ", ")
	case r.Changed == 1:
		return "changed: " + r.Changes[0].After.String()
	case r.Skipped == 1:
		return "skipped: " + strings.Join(sortedKeys(r.Codes), ", ")
	}
	return "nothing"
}

func put(body string) func() *Request {
	return func() *Request {
		q := get("/put", alice(nil))
		q.Method, q.Body = "POST", []byte(body)
		return q
	}
}

func as(target string, claims map[string]any) func() *Request {
	return func() *Request { return get(target, alice(claims)) }
}

func reads(target, name string, doc any) func() *Request {
	return func() *Request {
		q := get(target, alice(nil))
		q.Lookups = documents{name: doc}
		return q
	}
}

func nobodyAt(target string) func() *Request { return func() *Request { return get(target, nil) } }

var replayCases = []replayCase{
	{name: "a claim that was read", request: as("/admin", map[string]any{"roles": []any{"admin", "x"}}), edits: []string{"roles: [admin]", "roles: [x]"}, want: "same"},
	{name: "a role that is no longer enough", request: as("/admin", map[string]any{"roles": []any{"admin"}}), edits: []string{"roles: [admin]", "roles: [x]"}, want: "changed: 403 no_entry (route admin)"},
	{name: "a claim that was absent", request: as("/admin", nil), edits: []string{"roles: [admin]", "claims: {plan: [pro]}"}, want: "undecidable: auth.token.plan is not on record"},
	{name: "a claim that nobody read, and that does not matter", request: as("/admin", nil), edits: []string{"roles: [admin]", "roles: [admin], claims: {plan: [pro]}"}, want: "same"},
	{name: "a claim that nobody read, and that matters", request: as("/admin", map[string]any{"roles": []any{"admin"}}), edits: []string{"roles: [admin]", "roles: [admin], claims: {plan: [pro]}"}, want: "undecidable: auth.token.plan is not on record"},
	{name: "has() of a claim that nobody read", request: as("/level", nil), edits: []string{"auth.token.level > 3", "has(auth.token.plan)"}, want: "undecidable: auth.token.plan is not on record"},
	{name: "numbers", request: as("/level", map[string]any{"level": json.Number("4"), "score": json.Number("0.50")}), edits: []string{"level > 3", "level > 4"}, want: "changed: 403 no_entry (route level)"},
	{name: "a number that is no whole one", request: as("/level", map[string]any{"level": json.Number("4.0"), "score": json.Number("1")}), edits: []string{"level > 3", "level > 4"}, want: "same"},
	{name: "a text instead of a number", request: as("/level", map[string]any{"level": "4", "score": true}), edits: []string{"level > 3", "level > 4"}, want: "same"},
	{name: "a claim that was cut", request: as("/level", map[string]any{"level": json.Number("4"), "score": json.Number(strings.Repeat("1", 70))}), edits: []string{"level > 3", "level > 4"},
		want: "undecidable: auth.token.level is not on record", itself: "undecidable: auth.token.level is not on record"},
	{name: "bytes that are no UTF-8", request: as("/admin", map[string]any{"roles": []any{"\xff", `\xff`, "admin"}}), edits: []string{"roles: [admin]", "roles: [\"\\\\xff\"]"}, want: "same"},
	{name: "e-mail and second factor", request: func() *Request {
		id := alice(nil)
		id.Email, id.EmailVerified, id.SecondFactor, id.AuthTime = "a@acme.dev", true, "phone", when.Add(-5*time.Minute)
		return get("/mail", id)
	}, edits: []string{"mfa: 10m", "mfa: 4m"}, want: "changed: 403 no_entry (route mail)"},
	{name: "nothing of an e-mail address is recorded where no policy reads it", request: as("/admin", map[string]any{"roles": []any{"admin"}}),
		policy: strings.NewReplacer("verified_email: true, mfa: 10m, if: \"auth.email.endsWith('@acme.dev')\"", "signed_in: 1h").Replace(withDoc("'true'")),
		edits:  []string{"roles: [admin]", "roles: [admin], verified_email: true"}, want: "undecidable: auth.email is not on record"},
	{name: "whoever called a public route", request: as("/open/x", nil), edits: []string{"methods: [GET], upstream: app, allow: public", "methods: [GET], upstream: app, allow: [{who: [users]}]"},
		want: "undecidable: who called a public route is not on record"},
	{name: "whoever called an optional route", request: as("/maybe", nil), edits: []string{"allow: optional", "allow: [{who: [users]}]"}, want: "same"},
	{name: "nobody on a route that needs somebody", request: nobodyAt("/admin"), edits: []string{"upstream: app, allow: [{id: a, who: [users], roles: [admin]}]", "upstream: app, allow: optional"}, want: "changed: allow (route admin)"},
	{name: "nobody stays nobody", request: nobodyAt("/admin"), edits: []string{"roles: [admin]", "roles: [x]"}, want: "same"},
	{name: "a path without a route, which is a public one now", request: nobodyAt("/shut/x"), edits: []string{`"/open/{rest...}"`, `"/{rest...}"`}, want: "changed: allow (route open)"},
	{name: "a path without a route, which needs somebody now", request: as("/shut/x", nil), edits: []string{"path: /admin,", `path: "/shut/{x}",`}, want: "changed: it depends on who calls, which is not on record (route admin)"},
	{name: "a route that is gone", request: as("/admin", map[string]any{"roles": []any{"admin"}}), edits: []string{"path: /admin,", "path: /adm,"}, want: "changed: 404 no_route"},
	{name: "an allowed read of a document", request: reads("/doc/alice", "shares/alice", map[string]any{"readers": []any{"alice"}, "until": when.Add(time.Microsecond)}),
		edits: []string{"> request.time", ">= request.time"}, want: "same"},
	{name: "a time to the microsecond", request: reads("/doc/alice", "shares/alice", map[string]any{"readers": []any{"alice"}, "until": when}),
		edits: []string{"> request.time", ">= request.time"}, want: "changed: allow by doc/a"},
	{name: "a document that does not exist", request: reads("/doc/alice", "shares/alice", nil), edits: []string{docCondition, "'!has(lookup.share)'"}, want: "changed: allow by doc/a"},
	{name: "a field that is absent", request: reads("/doc/alice", "shares/alice", map[string]any{"readers": []any{}, "until": when}), edits: []string{docCondition, "'!has(lookup.share.note)'"}, want: "changed: allow by doc/a"},
	{name: "a document that could not be read", request: reads("/doc/alice", "shares/alice", errors.New("away")), edits: []string{docCondition, "'has(lookup.share)'"}, want: "same"},
	{name: "a document that could not be read and is not needed", request: reads("/doc/alice", "shares/alice", errors.New("away")), edits: []string{docCondition, "'true'"}, want: "changed: allow by doc/a"},
	{name: "another document", request: reads("/doc/alice", "shares/alice", map[string]any{"readers": []any{}, "until": when}), edits: []string{`"shares/${params.id}"`, `"grants/${params.id}"`},
		want: "undecidable: a document of lookup share is not on record"},
	{name: "another document that does not matter", request: reads("/doc/bob", "shares/bob", map[string]any{"readers": []any{}, "until": when}), edits: []string{`"shares/${params.id}"`, `"grants/${params.id}"`}, want: "same"},
	{name: "a field that nobody asked for", request: reads("/doc/alice", "shares/alice", map[string]any{"readers": []any{"bob"}, "until": when}), edits: []string{"rate: double}", "rate: double, more: bool}", docCondition, "'lookup.share.more'"},
		want: "undecidable: a document of lookup share is not on record"},
	{name: "a timestamp where a text was declared", request: reads("/doc/alice", "shares/alice", map[string]any{"note": when}), policy: withDoc(`'lookup.share.note != "x"'`), edits: []string{`!= "x"`, `!= "y"`}, want: "same"},
	{name: "a timestamp that is declared as one now", request: reads("/doc/alice", "shares/alice", map[string]any{"note": when}), policy: withDoc(`'lookup.share.note != "x"'`),
		edits: []string{"note: string", "note: timestamp", `lookup.share.note != "x"`, "lookup.share.note <= request.time"}, want: "undecidable: a document of lookup share is not on record"},
	{name: "a double where an integer was declared", request: reads("/doc/alice", "shares/alice", map[string]any{"uses": 1.0, "rate": int64(1)}), policy: withDoc(`'lookup.share.uses == 1'`), edits: []string{"uses == 1", "rate == 1.0"}, want: "changed: allow by doc/a"},
	{name: "a value that no line can hold", request: reads("/doc/alice", "shares/alice", map[string]any{"note": []byte("x")}), policy: withDoc(`'lookup.share.note != "x"'`), edits: []string{`!= "x"`, `!= "y"`},
		want: "same"},
	{name: "two documents of one lookup", request: func() *Request {
		q := get("/pair/a/x", alice(nil))
		q.Lookups = documents{"keys/" + sha("a/x"): map[string]any{"open": true}, "keys/" + sha("a"): map[string]any{"open": false}}
		return q
	}, edits: []string{"!has(lookup.key) || lookup.key.open", "!lookup.key.open"}, want: "changed: allow by pair/a"},
	{name: "an upload", request: put(`{"contentType":"image/png","size":1024,"expiresSeconds":100}`), edits: []string{"1KiB", "1023B"}, want: "changed: 413 too_large by put/a"},
	{name: "an upload that is too large", request: put(`{"contentType":"image/png","size":1025}`), edits: []string{"1KiB", "1025B"}, want: "changed: allow by put/a"},
	{name: "an upload of a type that is not taken", request: put(`{"contentType":"text/plain","size":1}`), edits: []string{"[image/png]", "[image/png, text/plain]"}, want: "changed: allow by put/a"},
	{name: "an upload with a checksum", request: put(`{"contentType":"image/png","size":1,"checksumSha256":"LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564="}`), edits: []string{"1KiB", "1KiB, checksum: sha256"}, want: "same"},
	{name: "an upload without one", request: put(`{"contentType":"image/png","size":1}`), edits: []string{"1KiB", "1KiB, checksum: sha256"}, want: "changed: 422 invalid_field by put/a"},
	{name: "an expiry that is too long now", request: put(`{"contentType":"image/png","size":1,"expiresSeconds":600}`), edits: []string{"1KiB", "1KiB, expires: {max: 5m}"}, want: "undecidable: whether an expiry was asked for is not on record"},
	{name: "an upload that is refused", request: put(`{"contentType":"image/png","size":1}`), edits: []string{"allow: [{id: a, who: [users]}]\n    object: {key: \"u/", "allow: [{id: a, who: [users], signed_in: 1s}]\n    object: {key: \"u/"}, want: "changed: 403 no_entry (route put)"},
	{name: "a body that does not parse", request: put(`{`), edits: []string{"1KiB", "1B"}, want: "skipped: bad_request", itself: "skipped: bad_request"},
	{name: "what was forwarded and is an upload now", request: func() *Request {
		q := get("/put", alice(nil))
		q.Method, q.Body = "POST", []byte(`{"contentType":"image/png","size":1}`)
		return q
	}, policy: strings.Replace(withDoc(docCondition), "    serve: presign_upload\n    allow: [{id: a, who: [users]}]\n    object: {key: \"u/${auth.uid}/${uuid}\", content_types: [image/png], max_bytes: 1KiB}\n", "    upstream: app\n    allow: [{id: a, who: [users]}]\n", 1),
		edits: []string{"    upstream: app\n    allow: [{id: a, who: [users]}]\n", "    serve: presign_upload\n    allow: [{id: a, who: [users]}]\n    object: {key: \"u/${auth.uid}/${uuid}\"}\n"}, want: "undecidable: the body is not on record"},
	{name: "a download", request: as("/get/u/alice/%C3%BC%20x?expiresSeconds=600", nil), edits: []string{"max: 15m}", "max: 9m}"}, want: "undecidable: whether an expiry was asked for is not on record"},
	{name: "a download that asks for no expiry", request: as("/get/u/alice/x", nil), edits: []string{"default: 5m, min: 1m, max: 15m}", "default: 1m, min: 1m, max: 2m}"}, want: "same"},
	{name: "a key that cannot be made", request: as("/get/", nil), edits: []string{"key_prefix: \"u/", "key_prefix: \"v/"}, want: "same"},
	{name: "a token that is bad", request: nobodyAt("/admin"), with: map[string]string{"Authorization": "Bearer bad"}, edits: []string{"roles: [admin]", "roles: [x]"}, want: "skipped: invalid_token", itself: "skipped: invalid_token"},
	{name: "keys that are away", request: nobodyAt("/admin"), with: map[string]string{"Authorization": "Bearer away"}, edits: []string{"roles: [admin]", "roles: [x]"}, want: "skipped: unavailable", itself: "skipped: unavailable"},
	{name: "a target that is none", request: nobodyAt("/a//b"), edits: []string{"roles: [admin]", "roles: [x]"}, want: "skipped: bad_target", itself: "skipped: bad_target"},
}

func sha(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// TestReplayCases records one request under one policy and replays it by that
// policy, which has to say the same, and by another.
func TestReplayCases(t *testing.T) {
	for _, c := range replayCases {
		t.Run(c.name, func(t *testing.T) {
			text := c.policy
			if text == "" {
				text = withDoc(docCondition)
			}
			gw := newLogged(t, text)
			q := c.request()
			if c.with != nil {
				q.Header = http.Header{}
				for name, value := range c.with {
					q.Header.Set(name, value)
				}
			}
			if gw.serve(q) == "" {
				t.Fatal("no record")
			}
			dir := gw.closed()
			itself := c.itself
			if itself == "" {
				itself = "same"
			}
			if got := c.result(replayOf(t, dir, text, Replay{Examples: 1})); got != itself {
				t.Errorf("by the same policy: %s, want %s", got, itself)
			}
			other := text
			for i := 0; i < len(c.edits); i += 2 {
				other = changed(t, other, c.edits[i], c.edits[i+1])
			}
			if got := c.result(replayOf(t, dir, other, Replay{Examples: 1})); got != c.want {
				t.Errorf("by the other: %s, want %s", got, c.want)
			}
		})
	}
}

// TestReplayOfLimits: what was refused for its rate is counted apart, and
// nothing is refused for it in a replay.
func TestReplayOfLimits(t *testing.T) {
	text := withDoc(docCondition)
	gw := newLogged(t, text)
	for range 5 {
		gw.serve(get("/slow", alice(nil)))
	}
	r := replayOf(t, gw.closed(), text, Replay{})
	if r.Decisions != 5 || r.Same != 1 || r.Limited != 4 {
		t.Errorf("%+v", r)
	}
}

// TestReplayCounts holds the counts, the time that was asked for, and the
// examples of a larger log, whatever the number of workers.
func TestReplayCounts(t *testing.T) {
	text := withDoc(docCondition)
	gw := newLogged(t, text)
	const n = 3000
	for i := range n {
		claims := map[string]any{}
		if i%3 == 0 {
			claims["roles"] = []any{"admin"}
		}
		q := get("/admin", alice(claims))
		q.Time = when.Add(time.Duration(i) * time.Second)
		q.Identity.AuthTime = q.Time.Add(-time.Minute)
		gw.serve(q)
	}
	dir := gw.closed()
	other := changed(t, text, "roles: [admin]", "roles: [x]")
	var first *Replayed
	for _, workers := range []int{1, 2, 7} {
		told := 0
		r := replayOf(t, dir, other, Replay{Examples: 3, Workers: workers, Progress: func(lines int) { told = lines }})
		if r.Decisions != n || r.Changed != n/3 || r.Same != n-n/3 || len(r.Changes) != 1 || r.Changes[0].Count != n/3 || told == 0 {
			t.Fatalf("%d workers: %+v, told %d", workers, r, told)
		}
		if !r.First.Equal(when) || !r.Last.Equal(when.Add((n-1)*time.Second)) {
			t.Errorf("from %s to %s", r.First, r.Last)
		}
		for i, x := range r.Changes[0].Examples {
			if want := when.Add(time.Duration(3*i) * time.Second).Format(time.RFC3339); x.Time != want || x.Record == "" || x.As != "users:alice" || x.Target != "/admin" {
				t.Errorf("%d workers: example %d is %+v, want that of %s", workers, i, x, want)
			}
		}
		if first == nil {
			first = r
		} else if !reflect.DeepEqual(first.Changes[0].Before, r.Changes[0].Before) {
			t.Errorf("%+v, %+v", first.Changes[0], r.Changes[0])
		}
	}
	r := replayOf(t, dir, other, Replay{Since: when.Add(10 * time.Second), Until: when.Add(20 * time.Second)})
	if r.Decisions != 10 || !r.First.Equal(when.Add(10*time.Second)) || len(r.Changes) != 1 || len(r.Changes[0].Examples) != 0 {
		t.Errorf("%+v", r)
	}
}

// TestReplayOfStrangeEvents: a log can come from another version, or from
// nobody's hand.
func TestReplayOfStrangeEvents(t *testing.T) {
	w := &replayer{gate: gateOf(t, withDoc(docCondition)), changes: newChanges(1)}
	w.out.Why, w.out.Codes = map[string]int{}, map[string]int{}
	decision := func(code string) *audit.Decision { return &audit.Decision{Effect: "allow", Code: code} }
	request := &audit.Request{Method: "GET", Host: "gateway.test", Path: "/admin"}
	inputs := map[string]any{"claims": "x", "absent": map[string]any{}, "lookups": map[string]any{"share": []any{1, map[string]any{"document": 1}}, "key": true}, "email": 1}
	for i, e := range []*audit.Event{
		{Decision: decision("entry")},
		{Decision: decision("entry"), Request: &audit.Request{IP: "x"}},
		{Decision: decision("entry"), Request: request, Cut: []string{"identity.uid"}},
		{Decision: &audit.Decision{Effect: "allow", Code: "entry", Inputs: inputs}, Request: request, Identity: &audit.Identity{Name: "users", UID: "u"}},
		{Decision: &audit.Decision{Effect: "preflight"}, Request: request},
		{Decision: &audit.Decision{Effect: "allow", Code: "something new"}, Request: request},
		{Decision: &audit.Decision{}, Request: request},
	} {
		w.event(e, i)
	}
	if w.out.Undecidable != 4 || w.out.Skipped != 3 || w.out.Changed != 0 {
		t.Errorf("%+v", w.out)
	}
	for i := range 1000 {
		w.event(&audit.Event{Decision: decision(fmt.Sprint("code", i)), Request: request}, i)
	}
	if len(w.out.Codes) > maxReasons+1 {
		t.Errorf("%d codes are kept", len(w.out.Codes))
	}
}

// TestReplayDoesNotGuessWhoCalled: of a public route, and of what found none, it
// is not on record who called; where that matters nothing is decided.
func TestReplayDoesNotGuessWhoCalled(t *testing.T) {
	const head = "version: sidegate-policy/v1\nidentities: [users]\nclaims: {roles: list(string)}\n"
	guard := `guards: [{id: ban, deny: {who: [users], roles: [banned]}}]` + "\n"
	for name, c := range map[string]struct {
		policy, code, effect string
		want                 string // undecidable, changed or same
	}{
		"a guard refused nobody, now a list":    {"routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users]}]}]\n", "deny_true", "deny", "undecidable"},
		"public, now optional with a guard":     {guard + "routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: optional}]\n", "public", "allow", "undecidable"},
		"public, now optional without a guard":  {"routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: optional}]\n", "public", "allow", "same"},
		"no route, now optional with a guard":   {guard + "routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: optional}]\n", "no_route", "deny", "changed"},
		"nobody at a list, and still a list":    {"routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users]}]}]\n", "no_token", "deny", "same"},
		"public, now public with another guard": {guard + "routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: public}]\n", "public", "allow", "same"},
		"no route, now public":                  {"routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: public}]\n", "no_route", "deny", "changed"},
	} {
		p, err := policy.Load("policy.yaml", []byte(head+c.policy), nil)
		if err != nil {
			t.Fatal(err)
		}
		g, err := New(p, nil)
		if err != nil {
			t.Fatal(err)
		}
		status := map[string]int{"deny_true": 403, "no_route": 404, "no_token": 401}[c.code]
		e := &audit.Event{Type: audit.TypeDecision, Record: "r", Time: time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC),
			Request:  &audit.Request{Method: "GET", Host: "gateway.test", Path: "/r", IP: "192.0.2.1"},
			Decision: &audit.Decision{Effect: c.effect, Status: status, Code: c.code, Route: "r"},
		}
		w := replayer{gate: g}
		v := w.judge(e)
		got := "changed"
		switch {
		case v.why != "":
			got = "undecidable"
		case v.before.same(v.after):
			got = "same"
		}
		if got != c.want || (strings.HasPrefix(name, "no route, now optional") && v.after.Code != WhoCalls) {
			t.Errorf("%s: %s (%s), %+v -> %+v", name, got, v.why, v.before, v.after)
		}
	}
}

// TestReplayOfForwardAuth: what another proxy asked for is replayed like any
// other request, but for a route that only the gateway itself can serve.
func TestReplayOfForwardAuth(t *testing.T) {
	e := &audit.Event{Type: audit.TypeDecision, Request: &audit.Request{Method: "GET", Path: "/r", ForwardAuth: "nginx"},
		Decision: &audit.Decision{Effect: "deny", Status: 404, Code: policy.ReasonNoRoute}}
	if got := standingOf(e, nil); got != replayed {
		t.Errorf("no route: %v", got)
	}
	e.Decision.Route = "presign"
	if got := standingOf(e, nil); got != notPolicy {
		t.Errorf("a served route: %v", got)
	}
}
