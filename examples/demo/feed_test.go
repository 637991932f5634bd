package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/protobuf/encoding/protojson"

	"sidegate/storage/firestore/indextest"
)

// A recorder stands between a service and Firestore's emulator, and keeps what
// the service asks.
type recorder struct {
	address string
	mu      sync.Mutex
	queries []*firestorepb.StructuredQuery
	stored  map[string]bool // collection.field
	bad     []string
}

func newRecorder(t *testing.T, emulator string) *recorder {
	t.Helper()
	r := &recorder{stored: map[string]bool{}}
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: emulator})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.note(q.URL.Path, body)
		q.Body = io.NopCloser(bytes.NewReader(body))
		to.ServeHTTP(w, q)
	}))
	t.Cleanup(s.Close)
	r.address = strings.TrimPrefix(s.URL, "http://")
	return r
}

// note reads a request as Firestore does: REST bodies are the JSON of the
// messages that gRPC has. A call that is not known here is noted as well, since
// it could be a query.
func (r *recorder) note(path string, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	switch _, method, _ := strings.Cut(path, ":"); method {
	case "runQuery":
		var m firestorepb.RunQueryRequest
		err = protojson.Unmarshal(body, &m)
		r.queries = append(r.queries, m.GetStructuredQuery())
	case "commit":
		var m firestorepb.CommitRequest
		err = protojson.Unmarshal(body, &m)
		for _, w := range m.Writes {
			collection := strings.Split(w.GetUpdate().GetName(), "/")[5] // projects/P/databases/D/documents/COLLECTION/ID
			for field := range w.GetUpdate().GetFields() {
				r.stored[collection+"."+field] = true
			}
			for _, transform := range w.UpdateTransforms {
				r.stored[collection+"."+transform.FieldPath] = true
			}
		}
	case "batchGet":
		err = protojson.Unmarshal(body, &firestorepb.BatchGetDocumentsRequest{})
	default:
		err = fmt.Errorf("an unknown call")
	}
	if err != nil {
		r.bad = append(r.bad, fmt.Sprintf("%s: %v: %s", path, err, body))
	}
}

// A feedPage is an answer of the example's feeds.
type feedPage struct {
	Items []struct {
		ID, CreatedAt, Text, Visibility, OrgID, AuthorID, PostID string
		Tags                                                     []string
		Read                                                     bool
	}
	Cursor string
}

// feeds asks the example's gateway.
type feeds struct{ url string }

func (f feeds) post(t *testing.T, uid, org, body string) string {
	t.Helper()
	var made struct{ ID, CreatedAt string }
	ask(t, http.MethodPost, f.url+"/v1/orgs/"+org+"/posts", token(t, uid), body).want(t, http.StatusCreated).decode(t, &made)
	if made.ID == "" || made.CreatedAt == "" {
		t.Fatalf("the post is %+v", made)
	}
	return made.ID
}

// all reads a feed to its end, two items a page, and gives their ids.
func (f feeds) all(t *testing.T, uid, path string) (ids []string) {
	t.Helper()
	cursor, last := "", ""
	for {
		var p feedPage
		ask(t, http.MethodGet, f.url+path+"?limit=2"+cursor, token(t, uid), "").want(t, http.StatusOK).decode(t, &p)
		if len(p.Items) > 2 || p.Cursor != "" && len(p.Items) < 2 {
			t.Fatalf("%s%s: a page of %d, and then %q", path, cursor, len(p.Items), p.Cursor)
		}
		for _, item := range p.Items {
			if ids = append(ids, item.ID); last != "" && item.CreatedAt > last {
				t.Errorf("%s: %s is behind %s", path, item.CreatedAt, last)
			}
			last = item.CreatedAt
		}
		if p.Cursor == "" {
			return ids
		}
		cursor = "&cursor=" + url.QueryEscape(p.Cursor)
	}
}

func (f feeds) want(t *testing.T, uid, path string, want ...string) {
	t.Helper()
	if got := f.all(t, uid, path); !slices.Equal(got, want) {
		t.Errorf("%s for %s has %v, want %v", path, uid, got, want)
	}
}

// TestFeeds runs the feeds of examples/fastapi-sidecar: its service and its
// gateway with Firestore's emulator, and the rules that the folder deploys.
func TestFeeds(t *testing.T) {
	folder := filepath.Join(lab.root, "examples", "fastapi-sidecar")
	host := startFirestore(t, "--rules="+filepath.Join(folder, "firestore.rules"))
	seen := newRecorder(t, host)
	app := startFastAPI(t, "FIRESTORE_EMULATOR_HOST="+seen.address)
	g := startGateway(t, sidecarSetup(t, host, app.url))
	f := feeds{g.url}
	member := func(uid string, orgs string) {
		t.Helper()
		ask(t, http.MethodPatch, "http://"+host+"/v1/projects/"+project+"/databases/(default)/documents/memberships/"+uid, "owner",
			`{"fields": {"orgs": {"arrayValue": {"values": [`+orgs+`]}}}}`).want(t, http.StatusOK)
	}
	member("alice", `{"stringValue": "acme"}`)
	member("bob", `{"stringValue": "zoo"}`)
	member("carol", `{"stringValue": "acme"}, {"stringValue": "zoo"}`)

	a1 := f.post(t, "alice", "acme", `{"text": "one"}`)
	a2 := f.post(t, "alice", "acme", `{"text": "two", "visibility": "public", "tags": ["swift", "ios"]}`)
	z1 := f.post(t, "bob", "zoo", `{"text": "three", "visibility": "public", "tags": ["swift"]}`)
	a3 := f.post(t, "carol", "acme", `{"text": "four", "mentions": ["alice"]}`)
	a4 := f.post(t, "carol", "acme", `{"text": "five", "mentions": ["alice", "carol"], "visibility": "public"}`)
	a5 := f.post(t, "alice", "acme", `{"text": "six, a private word"}`)

	f.want(t, "alice", "/v1/orgs/acme/posts", a5, a4, a3, a2, a1)
	f.want(t, "carol", "/v1/orgs/zoo/posts", z1)
	f.want(t, "alice", "/v1/users/alice/posts", a5, a2, a1)
	f.want(t, "bob", "/v1/posts", a4, z1, a2)
	f.want(t, "bob", "/v1/tags/swift/posts", z1, a2)
	f.want(t, "bob", "/v1/tags/ios/posts", a2)
	inbox := f.all(t, "alice", "/v1/users/alice/notifications")
	if len(inbox) != 2 {
		t.Fatalf("alice has the notifications %v", inbox)
	}
	f.want(t, "bob", "/v1/users/bob/notifications")

	t.Run("refused by the gateway", func(t *testing.T) {
		for _, path := range []string{"/v1/orgs/acme/posts", "/v1/users/alice/posts", "/v1/users/alice/notifications"} {
			ask(t, http.MethodGet, g.url+path, token(t, "bob"), "").problem(t, http.StatusForbidden, "not_allowed")
			ask(t, http.MethodGet, g.url+path, "", "").problem(t, http.StatusUnauthorized, "no_token")
		}
		ask(t, http.MethodPost, g.url+"/v1/orgs/acme/posts", token(t, "bob"), `{"text": "x"}`).problem(t, http.StatusForbidden, "not_allowed")
		ask(t, http.MethodGet, g.url+"/v1/users/alice/notifications", token(t, "carol"), "").problem(t, http.StatusForbidden, "not_allowed")
		ask(t, http.MethodPost, g.url+"/v1/users/alice/notifications/"+inbox[0]+"/read", token(t, "bob"), "").problem(t, http.StatusForbidden, "not_allowed")
	})
	t.Run("refused by the service", func(t *testing.T) {
		alice := token(t, "alice")
		for _, bad := range []string{
			`{"text": ""}`, `{"text": "` + strings.Repeat("x", 10_001) + `"}`, `{"text": "x", "visibility": "all"}`,
			`{"text": "x", "tags": ["swift"]}`, `{"text": "x", "visibility": "public", "tags": ["Not a tag"]}`,
			`{"text": "x", "visibility": "public", "tags": ["` + strings.Join(strings.Split("abcdefghijk", ""), `", "`) + `"]}`,
			`{"text": "x", "mentions": ["bob"]}`, `{"text": "x", "mentions": ["nobody"]}`, `{"text": "x", "mentions": ["a/b"]}`, `{"text": "x", "mentions": [".."]}`,
			`{"text": "\ud800"}`, `{"text": "x", "mentions": ["\udfff"]}`,
		} {
			ask(t, http.MethodPost, g.url+"/v1/orgs/acme/posts", alice, bad).want(t, http.StatusUnprocessableEntity)
		}
		for _, bad := range []string{"limit=0", "limit=101", "limit=x", "cursor=", "cursor=x", "cursor=2026-99-01T00:00:00Z_" + a1, "cursor=2026-01-01T00:00:00Z_..", "cursor=" + strings.Repeat("9", 2000)} {
			ask(t, http.MethodGet, g.url+"/v1/posts?"+bad, alice, "").want(t, http.StatusUnprocessableEntity)
		}
		ask(t, http.MethodGet, g.url+"/v1/tags/a%22b/posts", alice, "").want(t, http.StatusUnprocessableEntity)
		// Another's notification is as one that is not there, also by one's own path.
		bob := token(t, "bob")
		ask(t, http.MethodPost, g.url+"/v1/users/bob/notifications/"+inbox[0]+"/read", bob, "").want(t, http.StatusNotFound)
		ask(t, http.MethodPost, g.url+"/v1/users/bob/notifications/"+strings.Repeat("0", 32)+"/read", bob, "").want(t, http.StatusNotFound)
		f.want(t, "alice", "/v1/orgs/acme/posts", a5, a4, a3, a2, a1)
	})
	t.Run("read", func(t *testing.T) {
		ask(t, http.MethodPost, g.url+"/v1/users/alice/notifications/"+inbox[0]+"/read", token(t, "alice"), "").want(t, http.StatusNoContent)
		f.want(t, "alice", "/v1/users/alice/notifications", inbox[1])
		if n := len(f.all(t, "carol", "/v1/users/carol/notifications")); n != 1 {
			t.Errorf("carol has %d notifications", n)
		}
	})
	t.Run("who leaves", func(t *testing.T) {
		member("alice", `{"stringValue": "other"}`)
		ask(t, http.MethodGet, g.url+"/v1/orgs/acme/posts", token(t, "alice"), "").problem(t, http.StatusForbidden, "not_allowed")
	})
	t.Run("clients are kept out", func(t *testing.T) {
		for _, collection := range []string{"posts", "notifications", "memberships", "auditLog"} {
			address := "http://" + host + "/v1/projects/" + project + "/databases/(default)/documents/" + collection
			ask(t, http.MethodGet, address, "", "").want(t, http.StatusForbidden)
			ask(t, http.MethodPost, address, "", `{"fields": {}}`).want(t, http.StatusForbidden)
		}
	})
	if g.stop(t) != 0 {
		t.Error("the gateway did not stop cleanly")
	}
	feedQueriesOnRecord(t, g, app)
	feedIndexes(t, folder, seen)
}

// feedQueriesOnRecord: every call of Firestore is in the service's log, with the
// caller and the record that the gateway's audit log has for that caller; what
// documents hold is not.
func feedQueriesOnRecord(t *testing.T, g *gateway, app service) {
	t.Helper()
	callers := map[string]string{} // by record
	for _, line := range strings.Split(strings.TrimSpace(ledgerText(t, g.dir)), "\n") {
		var e struct {
			Type, Record string
			Identity     struct{ UID string }
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Type == "decision" {
			callers[e.Record] = e.Identity.UID
		}
	}
	asked := map[string]int{}
	for line := range strings.Lines(app.log.String()) {
		var q struct{ Message, Operation, Collection, UID, Record string }
		if json.Unmarshal([]byte(line), &q) != nil || q.Message == "" {
			continue // uvicorn's own
		}
		if q.Message != "firestore" || q.UID == "" || callers[q.Record] != q.UID {
			t.Errorf("the audit log has %q for %s", callers[q.Record], line)
		}
		asked[q.Operation+" "+q.Collection]++
	}
	for _, what := range []string{"runQuery posts", "runQuery notifications", "commit posts", "commit notifications", "batchGet memberships", "batchGet notifications"} {
		if asked[what] == 0 {
			t.Errorf("no %s is in the log: %v", what, asked)
		}
	}
	if strings.Contains(app.log.String(), "private word") {
		t.Error("a post is in the log")
	}
}

// feedIndexes holds what the service asked and stored against the index file
// that the folder deploys.
func feedIndexes(t *testing.T, folder string, seen *recorder) {
	t.Helper()
	file := readIndexFile(t, filepath.Join(folder, "firestore.indexes.json"))
	seen.mu.Lock()
	defer seen.mu.Unlock()
	for _, bad := range seen.bad {
		t.Error(bad)
	}
	collections := map[string]bool{}
	for _, q := range seen.queries {
		if err := file.Check(q); err != nil {
			t.Errorf("firestore.indexes.json: %v", err)
		}
		if n := q.GetLimit().GetValue(); n < 1 || n > 101 {
			t.Errorf("a query of %d documents: %v", n, q)
		}
		collections[q.From[0].CollectionId] = true
	}
	own, rest := &indextest.File{}, &indextest.File{}
	for _, x := range file.Indexes {
		if collections[x.CollectionGroup] {
			own.Indexes = append(own.Indexes, x)
		} else {
			rest.Indexes = append(rest.Indexes, x)
		}
	}
	for _, o := range file.FieldOverrides {
		if collections[o.CollectionGroup] {
			own.FieldOverrides = append(own.FieldOverrides, o)
			delete(seen.stored, o.CollectionGroup+"."+o.FieldPath)
		} else {
			rest.FieldOverrides = append(rest.FieldOverrides, o)
		}
	}
	if len(own.Indexes) != 5 {
		t.Errorf("the service has %d indexes", len(own.Indexes))
	}
	for _, what := range own.Unneeded(seen.queries) {
		t.Errorf("firestore.indexes.json: no query needs %s", what)
	}
	for field := range seen.stored {
		t.Errorf("%s is stored with indexes that no query needs: it has no override", field)
	}
	// Deploying deletes what the file does not have, so it has the gateway's, too.
	if gateways := readIndexFile(t, filepath.Join(lab.root, "configs", "firestore.indexes.json")); !reflect.DeepEqual(rest, gateways) {
		t.Errorf("beside the service's own the file has\n%v\nand configs/firestore.indexes.json\n%v", rest, gateways)
	}
}

func readIndexFile(t *testing.T, name string) *indextest.File {
	t.Helper()
	f, err := indextest.Read(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFirebaseTakesTheIndexFiles: the Firebase CLI, which deploys the files,
// finds nothing wrong in them.
func TestFirebaseTakesTheIndexFiles(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		needs(t, "Node.js, for the Firebase CLI,", "install Node.js 20 or later with npm")
	}
	tools := filepath.Join(installNode(t, "firebase-tools", firebaseTools), "node_modules", "firebase-tools")
	const script = `
const fs = require("fs"), path = require("path");
const {FirestoreApi} = require(path.join(process.argv[1], "lib/firestore/api"));
const {Config} = require(path.join(process.argv[1], "lib/config"));
const {getFirestoreConfig} = require(path.join(process.argv[1], "lib/firestore/fsConfig"));
const [folder, gateways] = process.argv.slice(2);
const config = Config.load({cwd: folder, configPath: path.join(folder, "firebase.json")});
const [{rules, indexes}] = getFirestoreConfig("demo-sidegate", {config});
if (!fs.existsSync(path.join(folder, rules))) throw new Error("no rules at " + rules);
for (const name of [path.join(folder, indexes), gateways]) {
  const spec = JSON.parse(fs.readFileSync(name, "utf8"));
  const api = new FirestoreApi();
  api.validateSpec(api.upgradeOldSpec(spec));
  console.log(spec.indexes.length, spec.fieldOverrides.length);
}`
	out, err := exec.CommandContext(t.Context(), node, "-e", script, tools, filepath.Join(lab.root, "examples", "fastapi-sidecar"),
		filepath.Join(lab.root, "configs", "firestore.indexes.json")).CombinedOutput()
	if err != nil || len(strings.Fields(string(out))) != 4 {
		t.Errorf("%v: %s", err, out)
	}
}
