package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sidegate/policy"
	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// part is one of a batch's answer.
type part struct {
	Status                       int
	Code, Detail, Field          string
	RetryAfterSeconds            int64
	Key, PutURL, GetURL, Session string
	PostURL                      string
	ExpiresSeconds               int64
}

func (s *served) uploads(token, body string, lines ...string) []part {
	s.t.Helper()
	var out struct{ Uploads []part }
	s.ok(&out, "POST", "/v1/uploads/batch", token, body, lines...)
	return out.Uploads
}

func (s *served) downloads(token, body string) []part {
	s.t.Helper()
	var out struct{ Downloads []part }
	s.ok(&out, "POST", "/v1/downloads", token, body)
	return out.Downloads
}

// events are the decisions and outcomes of the last request and its items: its own
// first.
func (s *served) events() (own *audit.Event, items []*audit.Event) {
	s.t.Helper()
	s.tape.mu.Lock()
	defer s.tape.mu.Unlock()
	for _, e := range s.tape.decisions {
		if e.Request.Batch == "" {
			own = e
		}
	}
	for _, e := range s.tape.decisions {
		if e.Request.Batch == own.Record {
			items = append(items, e)
		}
	}
	return own, items
}

func batchOf(n int, item string) string {
	return `{"uploads": [` + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + `]}`
}

const onePNG = `{"contentType": "image/png", "size": 1}`

// countedClaims make a value for each who asks, as a token's do.
type countedClaims struct {
	policy.ClaimMap
	asked map[string]int
}

func (c *countedClaims) Claim(name string) (any, bool) {
	c.asked[name]++
	return c.ClaimMap.Claim(name)
}

// TestBatchMakesClaimsOnce: the records of a hundred items wait for each other. Each
// with a list of its own, a token of 16 KB cost 20 MB.
func TestBatchMakesClaimsOnce(t *testing.T) {
	claims := &countedClaims{policy.ClaimMap{"roles": []any{"writer"}}, map[string]int{}}
	id := user("carol")
	id.Claims = claims
	s := newServedBy(t, func(o *Options) { o.Authenticator = known{"carol": id.Keep()} })
	parts := s.uploads("carol", batchOf(100, `{"contentType": "image/png", "size": 3, "checksumSha256": "LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564="}`))
	_, items := s.events()
	if len(parts) != 100 || parts[99].Status != 200 || len(items) != 100 || len(items[99].Decision.Inputs) != 2 {
		t.Fatalf("%d parts, %d events", len(parts), len(items))
	}
	if claims.asked["roles"] > 2 {
		t.Errorf("asked for %v", claims.asked)
	}
}

// TestBatch: each item has its answer, its decision and its outcome, and is the
// only one that its own mistakes are told of.
func TestBatch(t *testing.T) {
	s := newServed(t)
	parts := s.uploads("alice", `{"uploads": [`+onePNG+`, {"contentType": "image/png", "size": 26214401}, {"contentType": "text/html", "size": 1}, {"contentType": "image/jpeg", "size": 2, "checksumSha256": "x"}, {"contentType": "image/jpeg", "size": 2, "expiresSeconds": 60}]}`)
	want := []part{{Status: 200}, {Status: 413, Code: codeTooLarge, Field: "size"}, {Status: 415, Code: codeUnsupportedType, Field: "contentType"}, {Status: 422, Code: codeInvalidField, Field: "checksumSha256"}, {Status: 200}}
	own, items := s.events()
	if len(parts) != len(want) || len(items) != len(want) || own.Object.Operation != opBatch || own.Decision.Effect != "allow" || own.Object.Key != "" {
		t.Fatalf("%+v, %d events, %+v", parts, len(items), own.Object)
	}
	if parts[4].ExpiresSeconds != 60 || !strings.HasSuffix(parts[4].Key, ".jpg") || parts[0].Key == parts[4].Key {
		t.Errorf("%+v", parts)
	}
	bySession := map[string]*audit.Event{}
	refused := map[string]int{}
	for _, e := range items {
		if e.Record == own.Record || e.Identity == nil || e.Decision.Route != "presign-uploads" {
			t.Errorf("%+v", e)
		}
		if e.Decision.Effect != "allow" {
			refused[e.Decision.Code]++
			continue
		}
		bySession[e.Object.Session] = e
	}
	for i, p := range parts {
		if p.Status != want[i].Status || p.Code != want[i].Code || p.Field != want[i].Field {
			t.Errorf("%d: %+v", i, p)
		}
		if p.Status != 200 {
			continue
		}
		session, e := s.store.session(p.Session), bySession[p.Session]
		if e == nil || e.Object.Operation != opPut || e.Object.Key != p.Key || session.Record != e.Record || session.Key != p.Key {
			t.Errorf("%d: %+v, %+v", i, session, e)
		}
	}
	if fmt.Sprint(refused) != "map[invalid_field:1 too_large:1 unsupported_type:1]" || len(s.store.sessions) != 2 {
		t.Errorf("%v, %d sessions", refused, len(s.store.sessions))
	}
	for record, events := range s.ledger() {
		if events[audit.TypeDecision] != 1 || events[audit.TypeOutcome] != 1 {
			t.Errorf("%s: %v", record, events)
		}
	}
}

func TestBatchOfDownloads(t *testing.T) {
	s := newServed(t)
	parts := s.downloads("alice", `{"downloads": [{"key": "users/alice/a.png"}, {"key": "users/bob/b.png"}, {"key": "users/alice/../bob/b.png"}, {"key": "users/alice/a.html", "expiresSeconds": 60}, {"key": "users/alice/x", "expiresSeconds": 59}]}`)
	if len(parts) != 5 || parts[0].Status != 200 || parts[1].Status != 403 || parts[2].Status != 403 || parts[3].Status != 200 || parts[4].Status != 422 {
		t.Fatalf("%+v", parts)
	}
	if parts[0].Key != "users/alice/a.png" || !strings.Contains(parts[3].GetURL, "response-content-type=application/octet-stream") || strings.Contains(parts[0].GetURL, "response-content-type") || s.bucket.signed != 2 {
		t.Errorf("%+v", parts)
	}
	_, items := s.events()
	keys := map[string]string{}
	for _, e := range items {
		keys[e.Object.Key] = e.Decision.Effect
		if e.Object.Operation != opGet {
			t.Errorf("%+v", e.Object)
		}
	}
	if keys["users/bob/b.png"] != "deny" || keys["users/alice/a.png"] != "allow" {
		t.Errorf("%v", keys)
	}
}

// TestBatchItemRidesOnAnothersPermission: it does not, in any order.
func TestBatchItemRidesOnAnothersPermission(t *testing.T) {
	s := newServed(t)
	for _, keys := range [][2]string{{"users/alice/a", "users/bob/b"}, {"users/bob/b", "users/alice/a"}} {
		parts := s.downloads("alice", fmt.Sprintf(`{"downloads": [{"key": %q}, {"key": %q}]}`, keys[0], keys[1]))
		for i, p := range parts {
			if want := strings.HasPrefix(keys[i], "users/alice/"); (p.Status == 200) != want || (p.GetURL != "") != want {
				t.Errorf("%v: %+v", keys, parts)
			}
		}
	}
	for _, u := range s.bucket.urls {
		if !strings.HasPrefix(u, "https://bucket.test/users/alice/") {
			t.Error(u)
		}
	}
	// Nothing of one item is left for the next.
	s2 := newServed(t, "allow: [{id: user, who: [users]}]\n    object:\n      key: users/${auth.uid}/uploads/${uuid}${ext}\n      content_types: [image/jpeg, image/png, application/pdf]\n      max_bytes: 25MiB\n    limit: {rate: 300/m",
		"allow: [{id: user, who: [users], if: \"object.content_type == 'image/png' && object.size < 10\"}]\n    object:\n      key: users/${auth.uid}/uploads/${uuid}${ext}\n      content_types: [image/jpeg, image/png, application/pdf]\n      max_bytes: 25MiB\n    limit: {rate: 300/m")
	parts := s2.uploads("alice", `{"uploads": [`+onePNG+`, {"contentType": "image/png"}, {"contentType": "image/jpeg", "size": 1}, `+onePNG+`]}`)
	if parts[0].Status != 200 || parts[1].Status != 403 || parts[2].Status != 403 || parts[3].Status != 200 {
		t.Errorf("%+v", parts)
	}
}

// TestBatchRefusedWhole: where nothing of it is allowed the answer is the refusal,
// and what was asked for is on record all the same.
func TestBatchRefusedWhole(t *testing.T) {
	s := newServed(t)
	s.refused(403, codeNotAllowed, "POST", "/v1/downloads", "bob", `{"downloads": [{"key": "users/alice/a"}, {"key": "users/alice/b"}]}`)
	own, items := s.events()
	if own.Decision.Effect != "deny" || len(items) != 2 || items[0].Decision.Effect != "deny" || !strings.HasPrefix(items[0].Object.Key, "users/alice/") {
		t.Errorf("%+v, %d items", own.Decision, len(items))
	}
	s.refused(401, codeNoToken, "POST", "/v1/downloads", "", `{"downloads": [{"key": "users/alice/a"}]}`)
	s.refused(401, codeInvalidToken, "POST", "/v1/uploads/batch", "x", batchOf(1, onePNG))
	s.refused(503, codeUnavailable, "POST", "/v1/uploads/batch", "away", batchOf(1, onePNG))
}

// TestBatchRequests: a batch that is not exactly one is refused whole.
func TestBatchRequests(t *testing.T) {
	s := newServed(t)
	for body, field := range map[string]string{
		`{}`:                              "uploads",
		`{"uploads": []}`:                 "uploads",
		`{"uploads": {}}`:                 "uploads",
		`{"uploads": "x"}`:                "uploads",
		batchOf(101, onePNG):              "uploads",
		`{"downloads": [` + onePNG + `]}`: "downloads",
		`{"uploads": [` + onePNG + `], "uid": "bob"}`: "uid",
		`{"uploads": [` + onePNG + `, {"key": "x"}]}`: "uploads[1].key",
		`{"uploads": [{"contentType": 1}]}`:           "uploads[0].contentType",
		strings.Repeat(`{"uploads": [`, 1000):         "uploads[0].uploads",
		`{"uploads": [{"size": 1.5}]}`:                "uploads[0].size",
	} {
		if a := s.refused(422, codeInvalidField, "POST", "/v1/uploads/batch", "alice", body); fieldOf(a) != field {
			t.Errorf("%.60s: %s", body, a.body)
		}
	}
	for _, body := range []string{``, `[`, `[]`, `{"uploads": [1]}`, `{"uploads": [[]]}`, `{"uploads": [` + onePNG + `]`, `{"uploads": [` + onePNG + `,]}`, `{"uploads": [` + onePNG + `], "uploads": []}`, `{"uploads": [{"size": 1, "size": 1}]}`, `{"uploads": [{"size": {"a": 1}}]}`} {
		s.refused(400, codeBadRequest, "POST", "/v1/uploads/batch", "alice", body)
	}
	s.refused(413, codeTooLarge, "POST", "/v1/uploads/batch", "alice", batchOf(1, onePNG)+strings.Repeat(" ", maxBatchRequest))
	for body, field := range map[string]string{`{"downloads": [{}]}`: "downloads[0].key", `{"downloads": [{"key": ""}]}`: "downloads[0].key", `{"downloads": [{"key": 1}]}`: "downloads[0].key", `{"downloads": [{"key": "users/alice/x", "bucket": "other"}]}`: "downloads[0].bucket"} {
		if a := s.refused(422, codeInvalidField, "POST", "/v1/downloads", "alice", body); fieldOf(a) != field {
			t.Errorf("%.60s: %s", body, a.body)
		}
	}
	if s.bucket.signed != 0 || len(s.store.sessions) != 0 {
		t.Errorf("%d signatures, %d sessions", s.bucket.signed, len(s.store.sessions))
	}
	_, items := s.events()
	if len(items) != 0 {
		t.Errorf("%d items are on record", len(items))
	}
}

// TestBatchBurnsItsLimits: a hundred at once are a hundred.
func TestBatchBurnsItsLimits(t *testing.T) {
	s := newServed(t, "limit: {rate: 300/m, burst: 100, per: uid}", "limit: [{rate: 5/m, burst: 5, per: uid}]")
	parts := s.uploads("alice", batchOf(8, onePNG))
	for i, p := range parts {
		if want := i < 5; (p.Status == 200) != want || !want && (p.Status != 429 || p.Code != codeRate || p.RetryAfterSeconds < 1) {
			t.Errorf("%d: %+v", i, p)
		}
	}
	s.bucket.set(func(b *fakeBucket) { b.signed = 0 })
	for _, p := range s.uploads("alice", batchOf(1, onePNG)) {
		if p.Status != 429 {
			t.Errorf("%+v", p)
		}
	}
	if p := s.uploads("root", batchOf(1, onePNG))[0]; p.Status != 200 {
		t.Errorf("another user: %+v", p)
	}

	s = newServed(t, "limit: {rate: 300/m, burst: 100, per: uid}", "limit: [{rate: 5/m, burst: 5, per: ip}]")
	got := 0
	for _, p := range s.uploads("alice", batchOf(8, onePNG)) {
		if p.Status == 200 {
			got++
		}
	}
	if got != 5 {
		t.Errorf("%d of 5 per ip", got)
	}
	s.refused(429, codeRate, "POST", "/v1/uploads/batch", "alice", batchOf(1, onePNG))
}

// TestBatchBurnsItsQuota: each is counted, whatever comes at once.
func TestBatchBurnsItsQuota(t *testing.T) {
	s := newServed(t, "quota: {objects: 1000, window: 24h}", "quota: {objects: 3, window: 24h}")
	got := 0
	for _, p := range s.uploads("alice", batchOf(20, onePNG)) {
		if p.Status == 200 {
			got++
		} else if p.Status != 429 || p.Code != codeQuota || p.RetryAfterSeconds < 1 {
			t.Errorf("%+v", p)
		}
	}
	if got != 3 || len(s.store.sessions) != 3 || s.bucket.signed != 3 {
		t.Errorf("%d allowed, %d sessions, %d signatures", got, len(s.store.sessions), s.bucket.signed)
	}
	if n := s.labelled("sidegate_limited_total", "quota", "presign-uploads"); n != 17 {
		t.Errorf("%v refusals are counted", n)
	}
}

// TestBatchNotOnRecord: nothing is signed where one of the decisions is on no
// record, and nothing is half done.
func TestBatchNotOnRecord(t *testing.T) {
	broken := newServed(t)
	broken.tape.set(func(r *tape) { r.panics = true })
	if a := broken.call("POST", "/v1/uploads/batch", "alice", batchOf(5, onePNG)); a.StatusCode != 500 || broken.bucket.signed != 0 || len(broken.store.sessions) != 0 {
		t.Errorf("a recorder that panics: %d %s", a.StatusCode, a.body)
	}
	s := newServed(t)
	for name, set := range map[string]func(*tape){
		"before": func(r *tape) { r.before = fmt.Errorf("%w: %w", ErrNotRecorded, errRecord) },
		"after":  func(r *tape) { r.before, r.after = nil, errRecord },
	} {
		s.tape.set(set)
		a := s.call("POST", "/v1/uploads/batch", "alice", batchOf(5, onePNG))
		if a.StatusCode != 503 {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
		}
		s.tape.set(func(r *tape) { r.before, r.after = nil, nil })
	}
	s.tape.set(func(r *tape) {
		r.only = func(e *audit.Event) error {
			if e.Request.Batch != "" && e.Object.Size == 7 {
				return fmt.Errorf("%w: full", ErrNotRecorded)
			}
			return nil
		}
	})
	s.refused(503, codeUnavailable, "POST", "/v1/uploads/batch", "alice", `{"uploads": [`+onePNG+`, {"contentType": "image/png", "size": 7}, `+onePNG+`]}`)
	if s.bucket.signed != 0 || len(s.store.sessions) != 0 {
		t.Errorf("%d signatures, %d sessions", s.bucket.signed, len(s.store.sessions))
	}
	for record, events := range s.ledger() {
		if events[audit.TypeDecision] == 0 {
			t.Errorf("%s: %v", record, events)
		}
	}
}

// TestBatchStoreFails: what fails of one item is told of that one.
func TestBatchStoreFails(t *testing.T) {
	s := newServed(t)
	s.store.before = errors.New("away")
	for _, p := range s.uploads("alice", batchOf(3, onePNG)) {
		if p.Status != 503 || p.Code != codeUnavailable || p.RetryAfterSeconds != retryAfter || p.PutURL != "" {
			t.Errorf("%+v", p)
		}
	}
	s.store.set(func(f *fakeStore) { f.before = nil })
	s.bucket.fail["sign_put"] = errors.New("no credentials: secret")
	for _, p := range s.uploads("alice", batchOf(3, onePNG)) {
		if p.Status != 503 || p.PutURL != "" || strings.Contains(p.Detail, "secret") {
			t.Errorf("%+v", p)
		}
	}
	if s.bucket.signed != 0 {
		t.Errorf("%d signatures", s.bucket.signed)
	}
	s.bucket.set(func(b *fakeBucket) { delete(b.fail, "sign_put"); b.panics = true })
	a := s.call("POST", "/v1/uploads/batch", "alice", batchOf(3, onePNG))
	if a.StatusCode != 500 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	own, items := s.events()
	statuses := map[string]int{}
	for range 100 {
		select {
		case e := <-s.tape.outcomes:
			statuses[e.Record] = e.Outcome.Status
			continue
		default:
		}
		break
	}
	for _, e := range append(items, own) {
		if statuses[e.Record] != 500 {
			t.Errorf("%s: %d", e.Record, statuses[e.Record])
		}
	}
}

// drain is the last outcome of each record.
func (g *gate) drain() map[string]*audit.Outcome {
	all := map[string]*audit.Outcome{}
	for {
		select {
		case e := <-g.tape.outcomes:
			all[e.Record] = e.Outcome
		default:
			return all
		}
	}
}

// TestBatchBreaksHalfway: where one item breaks nobody gets an answer, and what
// was signed for the others is on record as that.
func TestBatchBreaksHalfway(t *testing.T) {
	s := newServed(t)
	s.bucket.set(func(b *fakeBucket) { b.breaks = "image/jpeg" })
	a := s.call("POST", "/v1/uploads/batch", "alice", `{"uploads": [`+onePNG+`, {"contentType": "image/jpeg", "size": 1}, {"contentType": "image/png", "size": 99999999}]}`)
	if a.StatusCode != 500 {
		t.Fatalf("%d %s", a.StatusCode, a.body)
	}
	own, items := s.events()
	outcomes := s.drain()
	for _, e := range append(items, own) {
		if o := outcomes[e.Record]; o == nil || o.Status != 500 || o.Error != codeInternal {
			t.Errorf("%s: %+v", e.Object.ContentType, o)
		}
	}
}

// TestBatchReadsADocumentOnce: a hundred items, one look at each document, and one
// state of it for all.
func TestBatchReadsADocumentOnce(t *testing.T) {
	docs := &shelf{}
	p, err := policy.Load("policy.yaml", []byte(`version: sidegate-policy/v1
name: test
identities: [users]
lookups:
  member: {document: "members/${auth.uid}", fields: {active: bool}}
routes:
  - id: batch
    path: /v1/downloads
    methods: [POST]
    serve: presign_downloads
    allow: [{id: own, who: [users], key_prefix: "users/${auth.uid}/", if: "!has(lookup.member) || lookup.member.active"}]
    object: {key: "${request.key}"}
`), &policy.Environment{Identities: map[string]string{"users": "users"}, Buckets: map[string]policy.Bucket{"default": {}}, Lookups: true})
	if err != nil {
		t.Fatal(err)
	}
	_, _, uploads := withUploads()
	g := newGate(t, "http://127.0.0.1:1", uploads, func(o *Options) { o.Policy, o.Documents = p, docs })
	body := `{"downloads": [{"key": "users/alice/a"}, {"key": "users/alice/b"}, {"key": "users/alice/c"}]}`
	a := g.raw(request("POST", "/v1/downloads", "alice", fmt.Sprint("Content-Length: ", len(body))) + body)
	if n := docs.reads; a.StatusCode != 200 || n != 1 {
		t.Errorf("%d after %d reads: %s", a.StatusCode, n, a.body)
	}
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte(batchOf(2, onePNG)))
	f.Add([]byte(`{"uploads":[{"metadata":{"a":"b"}}]}`))
	f.Add([]byte(`{"uploads":[[[[[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		uploads, pr := readUploadRequests(body)
		if len(uploads) > maxBatch {
			t.Fatalf("%d items", len(uploads))
		}
		if pr != nil {
			if pr.status != http.StatusBadRequest && pr.status != http.StatusUnprocessableEntity {
				t.Fatalf("%+v", pr)
			}
			return
		}
		var loose struct{ Uploads []map[string]any }
		if err := json.Unmarshal(body, &loose); err != nil || len(loose.Uploads) != len(uploads) || len(uploads) == 0 {
			t.Fatalf("%q: %v, %d items", body, err, len(uploads))
		}
		for i, u := range uploads {
			if s, _ := loose.Uploads[i]["contentType"].(string); s != u.ContentType {
				t.Fatalf("%q: item %d is read as %q", body, i, u.ContentType)
			}
		}
	})
}

func FuzzDownloadWishes(f *testing.F) {
	f.Add([]byte(`{"downloads":[{"key":"a","expiresSeconds":60},{"key":"b"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		wishes, pr := readDownloadWishes(body)
		if pr != nil {
			return
		}
		var loose struct{ Downloads []map[string]any }
		if err := json.Unmarshal(body, &loose); err != nil || len(loose.Downloads) != len(wishes) || len(wishes) == 0 || len(wishes) > maxBatch {
			t.Fatalf("%q: %v, %d items", body, err, len(wishes))
		}
		for i, w := range wishes {
			if loose.Downloads[i]["key"] != w.key || w.key == "" {
				t.Fatalf("%q: item %d is read as %q", body, i, w.key)
			}
		}
	})
}

// FuzzParts: what is read of parts is what any reader of JSON reads.
func FuzzParts(f *testing.F) {
	f.Add([]byte(`{"parts":[{"partNumber":1,"size":3},{"partNumber":2}],"expiresSeconds":60}`))
	f.Add([]byte(`{"parts":[{"partNumber":1,"etag":"x"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var loose struct {
			Parts []struct {
				PartNumber int
				Size       *int64
				ETag       string
			}
		}
		err := json.Unmarshal(body, &loose)
		if parts, _, pr := readPartRequests(body); pr == nil {
			if err != nil || len(parts) != len(loose.Parts) || len(parts) == 0 || len(parts) > maxSignedParts {
				t.Fatalf("%q: %v, %d parts", body, err, len(parts))
			}
			seen := map[int]bool{}
			for i, p := range parts {
				if p.Number != loose.Parts[i].PartNumber || p.Number < 1 || p.Number > upload.MaxParts || seen[p.Number] || p.Size > upload.MaxPut {
					t.Fatalf("%q: %+v", body, p)
				}
				seen[p.Number] = true
			}
			if ranges := partRanges(parts); len(parts) != countRanges(t, ranges) {
				t.Fatalf("%v are %s", parts, ranges)
			}
		}
		if parts, pr := readPartList(body, "partNumber", "etag"); pr == nil && len(body) > 0 {
			if err != nil || len(parts) != len(loose.Parts) {
				t.Fatalf("%q: %v, %d parts", body, err, len(parts))
			}
			last := 0
			for _, p := range parts {
				if p.Number <= last || p.Number > upload.MaxParts || p.ETag == "" {
					t.Fatalf("%q: %+v", body, p)
				}
				last = p.Number
			}
		}
	})
}

func countRanges(t *testing.T, ranges string) (n int) {
	for r := range strings.SplitSeq(ranges, ",") {
		var from, to int
		if _, err := fmt.Sscanf(r, "%d-%d", &from, &to); err != nil {
			if _, err := fmt.Sscanf(r, "%d", &from); err != nil {
				t.Fatalf("%q: %v", ranges, err)
			}
			to = from
		}
		n += to - from + 1
	}
	return n
}

// TestIdempotencyKey: the same key and request give the same answer, and are one
// upload; each item of a batch has its own.
func TestIdempotencyKey(t *testing.T) {
	s := newServed(t, "limit: {rate: 30/m, burst: 10, per: uid}", "limit: {rate: 300/m, burst: 100, per: uid}")
	const path = "/v1/uploads/presign"
	first := s.ok(nil, "POST", path, "alice", onePNG, `Idempotency-Key: "k1"`)
	for _, line := range []string{`Idempotency-Key: "k1"`, `Idempotency-Key: k1`} {
		if again := s.ok(nil, "POST", path, "alice", onePNG, line); again.body != first.body {
			t.Errorf("%s: %s and %s", line, first.body, again.body)
		}
	}
	if len(s.store.sessions) != 1 || s.store.used[account(firstOf(s.store))] != [2]int64{1, 1} {
		t.Errorf("%d sessions, %v", len(s.store.sessions), s.store.used)
	}
	s.refused(422, codeIdempotencyKey, "POST", path, "alice", `{"contentType": "image/png", "size": 2}`, "Idempotency-Key: k1")
	// Another's key is another key, and so is that of another route.
	if a := s.ok(nil, "POST", path, "bob", onePNG, "Idempotency-Key: k1"); strings.Contains(a.body, "alice") {
		t.Errorf("%s", a.body)
	}
	s.ok(nil, "POST", "/v1/uploads/form", "alice", onePNG, "Idempotency-Key: k1")
	s.begin("alice")
	if n := len(s.store.sessions); n != 4 {
		t.Errorf("%d sessions", n)
	}
	a := s.uploads("alice", batchOf(3, onePNG), "Idempotency-Key: k1")
	b := s.uploads("alice", batchOf(3, onePNG), "Idempotency-Key: k1")
	for i := range a {
		if a[i] != b[i] || i > 0 && a[i].Session == a[i-1].Session {
			t.Errorf("%+v\n%+v", a[i], b[i])
		}
	}
	c := s.uploads("alice", `{"uploads": [`+onePNG+`, {"contentType": "image/jpeg", "size": 1}]}`, "Idempotency-Key: k1")
	if c[0] != a[0] || c[1].Status != 422 || c[1].Code != codeIdempotencyKey {
		t.Errorf("%+v", c)
	}
	var one, two struct{ Session, Key string }
	s.ok(&one, "POST", "/v1/multipart", "alice", onePNG, "Idempotency-Key: k1")
	s.ok(&two, "POST", "/v1/multipart", "alice", onePNG, "Idempotency-Key: k1")
	if one != two {
		t.Errorf("%+v %+v", one, two)
	}
	for _, line := range []string{"Idempotency-Key: ", `Idempotency-Key: ""`, `Idempotency-Key: "a`, `Idempotency-Key: a"`, `Idempotency-Key: "a"b`, `Idempotency-Key: a b`, `Idempotency-Key: a,b`, `Idempotency-Key: "a", "b"`, "Idempotency-Key: a\r\nIdempotency-Key: a", `Idempotency-Key: "\a"`, "Idempotency-Key: ü", "Idempotency-Key: " + strings.Repeat("k", 256)} {
		s.refused(400, codeBadRequest, "POST", path, "alice", onePNG, line)
	}
}

func firstOf(s *fakeStore) *upload.Session {
	for _, one := range s.sessions {
		return &one
	}
	return &upload.Session{}
}

func FuzzIdempotencyKey(f *testing.F) {
	for _, k := range []string{"k", `"k"`, `"a\"b\\c"`, `"`, "a,b", ""} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, line string) {
		key, pr := idempotencyKey(http.Header{"Idempotency-Key": {line}})
		if (pr == nil) != (key != "") {
			t.Fatalf("%q: %q, %v", line, key, pr)
		}
		if pr != nil {
			return
		}
		if len(key) > maxIdempotencyKey || !visibleASCII(key) {
			t.Fatalf("%q is read as %q", line, key)
		}
		// What is written as RFC 9651 has it is read as the same.
		quoted := `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(key) + `"`
		if again, pr := idempotencyKey(http.Header{"Idempotency-Key": {quoted}}); pr != nil || again != key {
			t.Fatalf("%q is read as %q, and %q as %q", line, key, quoted, again)
		}
	})
}
