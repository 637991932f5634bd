package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sharedPolicy lets a user read what a document in Firestore shares with it.
const sharedPolicy = `version: sidegate-policy/v1
name: shared
identities: [users]
claims: {roles: list(string)}
lookups:
  share:
    document: shares/${sha256(params.key)}
    fields: {readers: list(string), until: timestamp}
  member: {document: "members/${auth.uid}", fields: {suspended: bool}, timeout: 2s}
guards:
  - {id: suspended, path: "/v1/users/{rest...}", deny: {who: [users], if: has(lookup.member) && lookup.member.suspended}}
  - {id: trial, mode: dry_run, since: 2026-02-20, deny: {who: [users], roles: [admin]}}
routes:
  - id: download
    path: /v1/files/{key...}/download
    methods: [GET]
    serve: presign_download
    encoded_slash: decode
    allow:
      - {id: own, who: [users], key_prefix: "users/${auth.uid}/"}
      - {id: shared, who: [users], if: auth.uid in lookup.share.readers && request.time < lookup.share.until}
    object: {key: "${params.key}"}
    limit: {rate: 100/s, per: uid}
  - id: notes
    path: /v1/users/{uid}/notes/{rest...}
    methods: [GET, PUT, DELETE]
    upstream: app
    allow: [{id: own, who: [users], uid: "${params.uid}"}]
    limit: {rate: 1/h, burst: 3, per: uid}
`

func sha256Hex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// putDocument writes a document into the emulator, by its REST API.
func putDocument(t *testing.T, host, name, fields string) {
	t.Helper()
	address := "http://" + host + "/v1/projects/" + project + "/databases/(default)/documents/" + name
	ask(t, http.MethodPatch, address, "owner", `{"fields": `+fields+`}`).want(t, http.StatusOK)
}

// TestLookups: what documents in Firestore say, at the time of each request;
// and that nobody gets in when they cannot be read.
func TestLookups(t *testing.T) {
	const key = "users/bob/shared.txt"
	host := startFirestore(t)
	shared := "shares/" + sha256Hex(key)
	emulator := []string{"FIRESTORE_EMULATOR_HOST=" + host, "GOOGLE_CLOUD_PROJECT=" + project}
	g := startGateway(t, setup{
		config: demoFile(t, "sidegate.yaml") + "lookups: {firestore: {project: demo-sidegate}}\naudit: {firestore: {project: demo-sidegate}}\n",
		policy: sharedPolicy,
		flags:  []string{"--insecure-emulator"},
		env:    emulator,
	})
	alice, bob := token(t, "alice"), token(t, "bob")
	download := g.url + "/v1/files/" + key + "/download"
	ask(t, http.MethodGet, download, bob, "").want(t, http.StatusOK)
	// The emulator's first answer can take longer than the lookup waits.
	deadline := time.Now().Add(time.Minute)
	for ask(t, http.MethodGet, download, alice, "").status == http.StatusServiceUnavailable && time.Now().Before(deadline) {
	}
	ask(t, http.MethodGet, download, alice, "").want(t, http.StatusForbidden) // there is no such document

	until := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(time.RFC3339) }
	document := func(reader, end string) string {
		return `{"readers": {"arrayValue": {"values": [{"stringValue": "` + reader + `"}]}}, "until": {"timestampValue": "` + end + `"}}`
	}
	putDocument(t, host, shared, document("alice", until(time.Hour)))
	ask(t, http.MethodGet, download, alice, "").want(t, http.StatusOK)
	putDocument(t, host, shared, document("alice", until(-time.Hour)))
	ask(t, http.MethodGet, download, alice, "").want(t, http.StatusForbidden)
	putDocument(t, host, shared, document("carol", until(time.Hour)))
	ask(t, http.MethodGet, download, alice, "").want(t, http.StatusForbidden)
	putDocument(t, host, shared, `{"readers": {"stringValue": "alice"}}`)
	ask(t, http.MethodGet, download, alice, "").want(t, http.StatusForbidden)

	notes := g.url + "/v1/users/alice/notes/a"
	ask(t, http.MethodPut, notes, alice, "x").want(t, http.StatusOK)
	putDocument(t, host, "members/alice", `{"suspended": {"booleanValue": true}}`)
	ask(t, http.MethodGet, notes, alice, "").want(t, http.StatusForbidden)
	putDocument(t, host, "members/alice", `{"suspended": {"booleanValue": false}}`)
	ask(t, http.MethodGet, notes, alice, "").want(t, http.StatusOK)
	ask(t, http.MethodGet, notes, alice, "").want(t, http.StatusOK)
	limited := ask(t, http.MethodGet, notes, alice, "").want(t, http.StatusTooManyRequests)
	if limited.header.Get("Retry-After") == "" {
		t.Error("429 without Retry-After")
	}
	checkLookupsOnRecord(t, g, key)
	replayLookups(t, g, emulator)
}

// checkLookupsOnRecord holds the audit log against what happened: the document
// that was read, and what the rule in dry_run says.
func checkLookupsOnRecord(t *testing.T, g *gateway, key string) {
	t.Helper()
	if status := g.stop(t); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
	shared := 0
	for line := range strings.Lines(ledgerText(t, g.dir)) {
		var e struct {
			Type     string
			Decision struct {
				Rule   string
				Shadow map[string]string
				Inputs struct {
					Lookups map[string]struct {
						Document string
						Fields   struct{ Readers any }
					}
				}
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if e.Type != "decision" || e.Decision.Rule != "download/shared" {
			continue
		}
		if look := e.Decision.Inputs.Lookups["share"]; look.Fields.Readers != nil && look.Document == "shares/"+sha256Hex(key) && e.Decision.Shadow["trial"] == "pass" {
			shared++
		}
	}
	if shared != 1 {
		t.Errorf("%d records hold the document by which they allow, want 1", shared)
	}
}

// replayLookups judges the log anew, from the ledger and from Firestore: by the
// policy that wrote it nothing is decided otherwise, by another just what it says
// otherwise.
func replayLookups(t *testing.T, g *gateway, emulator []string) {
	t.Helper()
	other := filepath.Join(g.dir, "other.yaml")
	if err := os.WriteFile(other, []byte(strings.Replace(sharedPolicy, "auth.uid in lookup.share.readers && ", "", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range [][]string{
		{"--audit", filepath.Join(g.dir, "data", "audit")},
		{"--firestore", "--insecure-emulator"},
	} {
		status, out, errs := sidegate(t, emulator, append([]string{"policy", "replay", filepath.Join(g.dir, "policy.yaml")}, from...)...)
		if status != 0 {
			t.Errorf("replay by the same policy, %s: status %d\n%s%s", from, status, out, errs)
		}
		status, out, errs = sidegate(t, emulator, append([]string{"policy", "replay", other}, from...)...)
		if status != 6 || !strings.Contains(out, "CHANGED 1 decision") || !strings.Contains(out, "allow by download/shared") {
			t.Errorf("replay by another policy, %s: status %d\n%s%s", from, status, out, errs)
		}
	}
}

// TestLookupsOutage: a Firestore that is away is a 503 where its word is needed
// and nowhere else; nobody gets in by it.
func TestLookupsOutage(t *testing.T) {
	g := startGateway(t, setup{
		config: demoFile(t, "sidegate.yaml") + "lookups: {firestore: {project: demo-sidegate}}\n",
		policy: sharedPolicy,
		flags:  []string{"--insecure-emulator"},
		env:    []string{"FIRESTORE_EMULATOR_HOST=" + unusedAddress(t), "GOOGLE_CLOUD_PROJECT=" + project},
	})
	alice := token(t, "alice")
	ask(t, http.MethodGet, g.url+"/v1/files/users/alice/a.txt/download", alice, "").want(t, http.StatusOK)
	away := ask(t, http.MethodGet, g.url+"/v1/files/users/bob/a.txt/download", alice, "").want(t, http.StatusServiceUnavailable)
	if away.header.Get("Retry-After") == "" || strings.Contains(string(away.body), "share") {
		t.Errorf("%v %s", away.header, away.body)
	}
	ask(t, http.MethodGet, g.url+"/v1/users/alice/notes/a", alice, "").want(t, http.StatusServiceUnavailable)
}
