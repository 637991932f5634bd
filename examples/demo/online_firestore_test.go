package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"cloud.google.com/go/firestore/apiv1/admin/adminpb"
	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"sidegate/storage/firestore/indextest"
)

// checkedDatabase has everything in one database.
const checkedDatabase = `version: sidegate-config/v1
name: online
policy: policy.yaml
identities:
  users: {firebase: {project: demo-sidegate}}
upstreams:
  app: {url: "${env:DEMO_APP_URL}"}
listen: {address: "${env:DEMO_ADDRESS}"}
admin: {address: "${env:DEMO_ADMIN_ADDRESS}"}
storage: {firestore: {project: demo-sidegate}}
audit: {firestore: {project: demo-sidegate}}
lookups: {firestore: {project: demo-sidegate}}
`

const checkedLookups = `version: sidegate-policy/v1
name: online
identities: [users]
lookups:
  member: {document: "memberships/${auth.uid}", fields: {orgs: list(string)}}
routes:
  - {id: me, path: /v1/me, methods: [GET], upstream: app, allow: [{id: user, who: [users], if: has(lookup.member)}]}
`

// A checklist is what check --online --json prints.
type checklist struct {
	OK     bool
	Checks []struct{ ID, Subject, Status, Text, Do string }
}

// checkFirestore runs check --online, and wants its lines about Firestore that
// are not ok to be these, as "status id", and no other line to fail.
func checkFirestore(t *testing.T, env, flags []string, want ...string) (said string) {
	t.Helper()
	dir := t.TempDir()
	writeDefault(t, dir, "sidegate.yaml", checkedDatabase)
	writeDefault(t, dir, "policy.yaml", checkedLookups)
	env = append([]string{"DEMO_APP_URL=" + lab.appURL, "DEMO_ADDRESS=" + unusedAddress(t), "DEMO_ADMIN_ADDRESS=" + unusedAddress(t), "NO_GCE_CHECK=true"}, env...)
	args := append([]string{"check", "--online", "--json", "--config", filepath.Join(dir, "sidegate.yaml"), "--insecure-keys", lab.keysURL}, flags...)
	code, out, errs := sidegate(t, env, args...)
	var list checklist
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v: status %d, %s%s", err, code, out, errs)
	}
	var got []string
	failed := false
	for _, c := range list.Checks {
		failed = failed || c.Status == "fail"
		switch ours := strings.HasPrefix(c.ID, "firestore."); {
		case ours && c.Status != "ok":
			got = append(got, c.Status+" "+c.ID)
			if c.Status != "skip" && c.Do == "" {
				t.Errorf("%s: nothing to do about %q", c.ID, c.Text)
			}
		case !ours && c.Status == "fail" && !slices.Contains(want, "fail "+c.ID):
			t.Errorf("%s: %s", c.ID, c.Text)
		}
	}
	want = slices.DeleteFunc(slices.Clone(want), func(s string) bool { return s == "fail credentials.google" })
	if !slices.Equal(got, want) || (code == 1) != failed || list.OK == failed {
		t.Errorf("status %d, ok %v; want %v\n%s%s", code, list.OK, want, out, errs)
	}
	if strings.Contains(out+errs, "Bearer") || strings.Contains(out+errs, "PRIVATE KEY") {
		t.Errorf("a credential is in\n%s%s", out, errs)
	}
	return out
}

// loadRules gives the emulator's project rules.
func loadRules(t *testing.T, host, rules string) {
	t.Helper()
	body, err := json.Marshal(map[string]any{"rules": map[string]any{"files": []any{map[string]any{"name": "firestore.rules", "content": rules}}}})
	if err != nil {
		t.Fatal(err)
	}
	ask(t, http.MethodPut, "http://"+host+"/emulator/v1/projects/"+project+":securityRules", "", string(body)).want(t, http.StatusOK)
}

func rulesOf(body string) string {
	return "rules_version = '2';\nservice cloud.firestore { match /databases/{d}/documents {\n" + body + "\n} }"
}

func readRules(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(lab.root, "configs", "firestore.rules"))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// nothingLeft wants no document of a check in the emulator.
func nothingLeft(t *testing.T, host string) {
	t.Helper()
	for _, collection := range []string{"auditLog", "auditCheckpoints", "uploadSessions", "uploadSessionsQuotas", "memberships", "sidegateCheck"} {
		if left := documents(t, host, collection); len(left) > 0 {
			t.Errorf("%s holds %v", collection, left)
		}
	}
}

// TestCheckOnlineEmulator: check --online works with the emulator, and names
// what is wrong with it.
func TestCheckOnlineEmulator(t *testing.T) {
	host := startFirestore(t)
	flags, env := emulated(host)
	skips := []string{"skip firestore.index", "skip firestore.ttl"}
	t.Run("no rules", func(t *testing.T) {
		checkFirestore(t, env, flags, append(skips, "skip firestore.rules")...)
	})
	t.Run("closed", func(t *testing.T) {
		loadRules(t, host, readRules(t))
		checkFirestore(t, env, flags, skips...)
	})
	t.Run("open", func(t *testing.T) {
		loadRules(t, host, rulesOf("match /{x=**} { allow read, write; }"))
		said := checkFirestore(t, env, flags, append(skips, slices.Repeat([]string{"fail firestore.rules"}, 5)...)...)
		for _, words := range []string{"create, delete, get, list, update documents of auditLog", "create, delete, update documents of memberships"} {
			if !strings.Contains(said, words) {
				t.Errorf("no %q in\n%s", words, said)
			}
		}
	})
	// Each of these alone is enough.
	for _, may := range []string{"get", "list", "create", "update", "delete"} {
		t.Run("only "+may, func(t *testing.T) {
			loadRules(t, host, rulesOf("match /uploadSessionsQuotas/{x} { allow "+may+": if true; }"))
			if said := checkFirestore(t, env, flags, append(skips, "fail firestore.rules")...); !strings.Contains(said, "anybody may "+may+" documents of uploadSessionsQuotas") {
				t.Error(said)
			}
		})
	}
	t.Run("a lookup's documents", func(t *testing.T) {
		loadRules(t, host, rulesOf("match /memberships/{x} { allow read: if true; }"))
		checkFirestore(t, env, flags, skips...)
		loadRules(t, host, rulesOf("match /memberships/{x} { allow create: if true; }"))
		checkFirestore(t, env, flags, append(skips, "fail firestore.rules")...)
	})
	nothingLeft(t, host)
	t.Run("away", func(t *testing.T) {
		flags, env := emulated(unusedAddress(t))
		checkFirestore(t, env, flags, "fail firestore.reach")
	})
	t.Run("hanging", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and never says a word
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		flags, env := emulated(l.Addr().String())
		checkFirestore(t, env, append(flags, "--timeout", "1s"), "fail firestore.reach")
	})
}

// A production stands in for firestore.googleapis.com, which no test can reach:
// behind a company's proxy and TLS it passes what it is asked on to the
// emulator, as an administrator's what comes with a token and as a client's what
// comes without. What the emulator has not, production's indexes and its
// administration, it adds, and it fails as told.
type production struct {
	outside
	host      string // the emulator's
	transport *http.Transport

	mu      sync.Mutex
	indexes *indextest.File
	said    func(method string) *status.Status // nil: it does not fail
	missing string                             // what a query without its index is told
	ttl     []string                           // collections that have a policy
	strange []string                           // calls that nobody should make
}

const missingIndex = "The query requires an index. You can create it here: https://console.firebase.google.com/v1/r/project/demo-sidegate/firestore/indexes?create_composite=Ck5wcm9qZWN0cy8"

func newProduction(t *testing.T, host string) *production {
	t.Helper()
	p := &production{}
	plain := &http.Protocols{}
	plain.SetUnencryptedHTTP2(true)
	p.host, p.transport = host, &http.Transport{Protocols: plain}
	t.Cleanup(p.transport.CloseIdleConnections)
	p.open(t, p, "firestore.googleapis.com", "oauth2.googleapis.com")
	p.mend(t)
	return p
}

// mend makes all well.
func (p *production) mend(t *testing.T) {
	t.Helper()
	file := readIndexFile(t, filepath.Join(lab.root, "configs", "firestore.indexes.json"))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.indexes, p.said, p.missing = file, func(string) *status.Status { return nil }, missingIndex
	p.ttl = nil
	for _, o := range file.FieldOverrides {
		if o.TTL {
			p.ttl = append(p.ttl, o.CollectionGroup)
		}
	}
}

// close keeps the proxy from this host:port, which only Firestore is asked at.
func (p *production) close(address string) {
	p.outside.mu.Lock()
	defer p.outside.mu.Unlock()
	p.closed = address
}

func (p *production) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token": "a-token", "token_type": "Bearer", "expires_in": 3600}`)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || len(body) < 5 {
		http.Error(w, "no call of gRPC", http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	signed, method := r.Header.Get("Authorization") != "", path.Base(r.URL.Path)
	if s := p.said(method); s != nil && signed {
		answerStatus(w, s)
		return
	}
	switch method {
	case "GetField":
		var q adminpb.GetFieldRequest
		name := unframe(&q, body, q.GetName)
		field := &adminpb.Field{Name: name}
		if parts := strings.Split(name, "/"); len(parts) == 8 && parts[7] == "expireAt" && slices.Contains(p.ttl, parts[5]) {
			field.TtlConfig = &adminpb.Field_TtlConfig{State: adminpb.Field_TtlConfig_ACTIVE}
		}
		answerMessage(w, field)
	case "GetDatabase":
		answerMessage(w, &adminpb.Database{LocationId: "eur3", Type: adminpb.Database_FIRESTORE_NATIVE})
	case "RunQuery":
		var q firestorepb.RunQueryRequest
		unframe(&q, body, q.GetParent)
		if p.indexes.Check(q.GetStructuredQuery()) != nil {
			answerStatus(w, status.New(codes.FailedPrecondition, p.missing))
			return
		}
		p.pass(w, r, body)
	case "BatchGetDocuments", "BatchWrite", "Commit", "GetDocument", "ListDocuments":
		p.pass(w, r, body)
	default:
		p.strange = append(p.strange, r.URL.Path)
		answerStatus(w, status.New(codes.Unimplemented, "nobody asks that"))
	}
}

// pass asks the emulator, and answers when it has all of the answer.
func (p *production) pass(w http.ResponseWriter, r *http.Request, body []byte) {
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://"+p.host+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		answerStatus(w, status.New(codes.Internal, err.Error()))
		return
	}
	out.Header = r.Header.Clone()
	if out.Header.Del("Authorization"); r.Header.Get("Authorization") != "" {
		out.Header.Set("Authorization", "Bearer owner")
	}
	resp, err := p.transport.RoundTrip(out)
	if err != nil {
		answerStatus(w, status.New(codes.Internal, err.Error()))
		return
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		answerStatus(w, status.New(codes.Internal, err.Error()))
		return
	}
	maps.Copy(w.Header(), resp.Header)
	for name := range resp.Trailer {
		w.Header().Add("Trailer", name)
	}
	w.Write(content)
	maps.Copy(w.Header(), resp.Trailer)
}

// unframe reads the one message of a gRPC request; what it gives is empty where
// it is none.
func unframe(m proto.Message, body []byte, name func() string) string {
	if proto.Unmarshal(body[5:], m) != nil {
		return ""
	}
	return name()
}

func answerMessage(w http.ResponseWriter, m proto.Message) {
	data, err := proto.Marshal(m)
	if err != nil {
		answerStatus(w, status.New(codes.Internal, err.Error()))
		return
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(data))), data...))
	w.Header().Set("Grpc-Status", "0")
}

func answerStatus(w http.ResponseWriter, s *status.Status) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Grpc-Status", fmt.Sprint(int(s.Code())))
	w.Header().Set("Grpc-Message", url.PathEscape(s.Message()))
	if details, err := proto.Marshal(s.Proto()); err == nil {
		w.Header().Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(details))
	}
}

// keyFile is a service account's.
func keyFile(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	content, err := json.Marshal(map[string]string{
		"type": "service_account", "project_id": project, "private_key_id": "k1",
		"private_key":  string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"client_email": "gateway@" + project + ".iam.gserviceaccount.com", "client_id": "1", "token_uri": "https://oauth2.googleapis.com/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// always fails every call of those methods, or every call.
func always(s *status.Status, methods ...string) func(string) *status.Status {
	return func(method string) *status.Status {
		if len(methods) == 0 || slices.Contains(methods, method) {
			return s
		}
		return nil
	}
}

// TestCheckOnlineFirestore breaks one thing of a database in production at a
// time: check --online names that one, and nothing else.
func TestCheckOnlineFirestore(t *testing.T) {
	host := startFirestore(t)
	loadRules(t, host, readRules(t))
	p := newProduction(t, host)
	env := append(p.env(true), "GOOGLE_APPLICATION_CREDENTIALS="+keyFile(t))
	disabled, err := status.New(codes.PermissionDenied, "Cloud Firestore API has not been used in project 1 before or it is disabled.").
		WithDetails(&errdetails.ErrorInfo{Reason: "SERVICE_DISABLED", Domain: "googleapis.com"})
	if err != nil {
		t.Fatal(err)
	}
	denied := status.New(codes.PermissionDenied, "Missing or insufficient permissions.")
	for name, c := range map[string]struct {
		breaks func()
		want   []string
		says   string
	}{
		"nothing":  {breaks: func() {}, says: "eur3"},
		"denied":   {func() { p.said = always(denied) }, []string{"fail firestore.reach"}, "roles/datastore.user"},
		"disabled": {func() { p.said = always(disabled) }, []string{"fail firestore.reach"}, "gcloud services enable firestore.googleapis.com"},
		"no database": {func() {
			p.said = always(status.New(codes.NotFound, "The database (default) does not exist for project demo-sidegate Please visit https://console.cloud.google.com/datastore/setup?project=demo-sidegate"))
		}, []string{"fail firestore.reach"}, "has no database (default)"},
		"Datastore mode": {func() {
			p.said = always(status.New(codes.FailedPrecondition, "The Cloud Firestore API is not available for Firestore in Datastore Mode database projects/demo-sidegate/databases/(default)."))
		}, []string{"fail firestore.reach"}, "Datastore mode"},
		"unavailable": {func() { p.said = always(status.New(codes.Unavailable, "The service is currently unavailable.")) }, []string{"fail firestore.reach"}, "UNAVAILABLE"},
		"no way out":  {func() { p.close("firestore.googleapis.com:443") }, []string{"fail firestore.reach"}, "HTTPS_PROXY"},
		"read only":   {func() { p.said = always(denied, "BatchWrite", "Commit") }, []string{"fail firestore.write", "fail firestore.write"}, "roles/datastore.user"},
		"not deleted": {func() {
			n := 0
			p.said = func(method string) *status.Status {
				if method != "Commit" {
					return nil
				}
				if n++; n%2 == 0 { // the first one changes the document
					return denied
				}
				return nil
			}
		}, []string{"warn firestore.delete", "warn firestore.delete"}, "uploadSessions/sidegate-check-"},
		"no index": {func() { p.indexes.Indexes = slices.Delete(p.indexes.Indexes, 1, 2) }, []string{"fail firestore.index"},
			"https://console.firebase.google.com/v1/r/project/demo-sidegate/firestore/indexes?create_composite=Ck5wcm9qZWN0cy8"},
		"no indexes": {func() { p.indexes.Indexes = nil }, slices.Repeat([]string{"fail firestore.index"}, 8), "uploads that are due"},
		"an index of a field": {func() {
			for i, o := range p.indexes.FieldOverrides {
				if o.FieldPath == "record" {
					p.indexes.FieldOverrides[i].Indexes = nil
				}
			}
		}, []string{"fail firestore.index"}, "events of a request"},
		"an index is being built": {func() {
			p.indexes.Indexes = p.indexes.Indexes[1:]
			p.missing = "The query requires an index. That index is currently building and cannot be used yet. See its status here: https://console.firebase.google.com/v1/r/project/demo-sidegate/firestore/indexes"
		}, []string{"fail firestore.index"}, "still being built"},
		"a link elsewhere": {func() {
			p.indexes.Indexes = p.indexes.Indexes[1:]
			p.missing = "The query requires an index. You can create it here: https://evil.example/x"
		}, []string{"fail firestore.index"}, "firestore.indexes.json"},
		"no TTL":          {func() { p.ttl = p.ttl[1:] }, []string{"warn firestore.ttl"}, "--collection-group=auditLog --enable-ttl"},
		"TTL not allowed": {func() { p.said = always(denied, "GetField") }, []string{"warn firestore.ttl"}, "datastore.indexes.get"},
		"no metadata":     {func() { p.said = always(denied, "GetDatabase") }, []string{"skip firestore.database"}, "getMetadata"},
		"rules are open":  {func() {}, slices.Repeat([]string{"fail firestore.rules"}, 5), "anybody may create, delete, get, list, update documents of auditLog"},
	} {
		t.Run(name, func(t *testing.T) {
			p.mend(t)
			p.close("")
			if name == "rules are open" {
				loadRules(t, host, rulesOf("match /{x=**} { allow read, write; }"))
				defer func() { loadRules(t, host, readRules(t)) }()
			}
			c.breaks() // nobody asks meanwhile
			said := checkFirestore(t, env, nil, c.want...)
			if !strings.Contains(said, c.says) || strings.Contains(said, "evil.example") {
				t.Errorf("no %q in\n%s", c.says, said)
			}
			if name == "not deleted" {
				p.mend(t)
				for _, d := range slices.Concat(documents(t, host, "auditLog"), documents(t, host, "uploadSessions")) {
					ask(t, http.MethodDelete, "http://"+host+"/v1/"+d.Name, "owner", "").want(t, http.StatusOK)
				}
			}
			nothingLeft(t, host)
		})
	}
	t.Run("no credentials", func(t *testing.T) {
		p.mend(t)
		said := checkFirestore(t, p.env(true), nil, "skip firestore.reach", "fail credentials.google")
		if !strings.Contains(said, "see credentials.google") {
			t.Error(said)
		}
	})
	if len(p.strange) > 0 {
		t.Errorf("Firestore was asked %v", p.strange)
	}
}
