package proxy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"sidegate/policy"
	"sidegate/storage/audit"
)

// The Big List of Naughty Strings, as npm's registry has it, and its sum there.
const (
	naughtyPackage = "blns@2.0.4"
	naughtySum     = "ZEZZD8DvGJhTw9oE3uLjyThFDMRQbcH011YySUK+kAcueHvaUDRfWKp7QJrQblat8WzcegWwVFuNd+XZ49LROQ=="
)

// naughty gets the strings by npm, from its cache or over the network.
func naughty(t *testing.T) []string {
	t.Helper()
	folder := t.TempDir()
	command := exec.Command("npm", "pack", naughtyPackage, "--silent", "--ignore-scripts", "--prefer-offline", "--pack-destination", folder)
	command.Dir = folder
	if out, err := command.CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Skipf("the strings are missing; npm gets them: %v\n%s", err, out)
	}
	files, _ := filepath.Glob(filepath.Join(folder, "*.tgz"))
	if len(files) != 1 {
		t.Fatal(files)
	}
	packed, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha512.Sum512(packed); base64.StdEncoding.EncodeToString(sum[:]) != naughtySum {
		t.Fatalf("%s is another", naughtyPackage)
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(unzipped); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if h.Name == "package/resources/blns.json" {
			var all []string
			if err := json.NewDecoder(r).Decode(&all); err != nil || len(all) < 485 {
				t.Fatal(len(all), err)
			}
			return all
		}
	}
}

// ours are kinds that JSON cannot hold or the list does not have.
var ours = []string{
	"\xff\xfe", "a\xffb", "\xed\xa0\x80", "\xc0\xae", `\xff`, `\x5c`, `\\xff`, "\\", `"}` + "\n" + `{"type":"decision"`, "\r\n", "a\nb", "\x00", "\x1b[2J\x1b]0;owned\x07", "\u2028\u2029", "\u202e\u2066", "\u009b31m", "\ufeff", "\U000e0041",
	"${jndi:ldap://x}", "%n%s%d", "{{7*7}}", "<script>", "a,b", "a b", "%00", "%2e%2e", "../", "é", "e\u0301", "İ", strings.Repeat("é", 255),
}

// hexTokens takes as token the uid, in hexadecimal digits.
type hexTokens struct{}

func (hexTokens) Authenticate(_ context.Context, token string) (*policy.Identity, error) {
	uid, err := hex.DecodeString(token)
	if err != nil || len(uid) == 0 {
		return nil, &TokenError{Reason: "the token is malformed"}
	}
	return user(string(uid), "writer"), nil
}

// TestNaughtyStrings: whatever stands in a path, a parameter, a User-Agent, a
// uid or a content type, each event and each line of the log is one line of
// JSON that steers no terminal, and the event gives the same bytes back.
func TestNaughtyStrings(t *testing.T) {
	_, _, uploads := withUploads()
	app := lenientApp(t)
	g := newGate(t, app, uploads, func(o *Options) { o.Authenticator = hexTokens{} })
	type expectation struct {
		what, value string
		got         func(e *audit.Event) string
	}
	expected := map[string]expectation{} // by the record
	requests := 0
	send := func(what, value string, raw string, got func(e *audit.Event) string) answer {
		a := g.raw(raw)
		if a.err != nil {
			t.Fatalf("%s %q: %v", what, value, a.err)
		}
		id := a.Header.Get("X-Request-Id")
		if id == "" {
			id = g.outcome().Record // an app's answer
		} else {
			g.outcome()
		}
		requests++
		expected[id] = expectation{what, value, got}
		return a
	}
	all := append(naughty(t), ours...)
	for _, s := range all {
		escaped := strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
		path := func(e *audit.Event) string { return e.Request.Path }
		want := "/public/" + s
		if _, err := canonicalise("GET", "/public/"+escaped, "gateway.test"); err != nil {
			want = "/public/" + escaped // what is refused is on record as it came
		}
		send("path", want, request("GET", "/public/"+escaped, ""), path)
		keys := func(e *audit.Event) string { return strings.Join(e.Request.QueryKeys, "\x00") }
		if want := s; len(s) <= 64 && s != "" {
			send("parameter", want, request("GET", "/public/a?"+escaped+"=secret", ""), keys)
		}
		if !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			want := strings.Trim(s, " \t")
			send("User-Agent", want[:min(len(want), 512)], request("GET", "/public/a", "", "User-Agent: "+s), func(e *audit.Event) string { return e.Request.UserAgent })
		}
		if s == "" {
			continue
		}
		uid := func(e *audit.Event) string { return e.Identity.UID }
		a := send("uid", s, request("GET", "/private/a", hex.EncodeToString([]byte(s))), uid)
		_, told, _ := strings.Cut(a.body, "x-sidegate-uid: ")
		told, _, _ = strings.Cut(told, "\n")
		if back, err := url.PathUnescape(told); a.StatusCode != 200 || err != nil || back != s {
			t.Errorf("uid %q: %d, the app is told %q", s, a.StatusCode, told)
		}
		body, _ := json.Marshal(map[string]any{"contentType": s, "size": 1})
		var read policy.UploadRequest
		readUploadRequest(body, &read)
		if utf8.ValidString(s) && read.ContentType != s {
			t.Errorf("content type %q is read as %q", s, read.ContentType)
		}
		a = send("content type", read.ContentType, request("POST", "/v1/uploads/presign", "616c696365", "Content-Type: application/json", fmt.Sprint("Content-Length: ", len(body)))+string(body),
			func(e *audit.Event) string {
				if e.Object == nil {
					return ""
				}
				return e.Object.ContentType
			})
		if a.StatusCode < 400 || !json.Valid([]byte(a.body)) {
			t.Errorf("content type %q: %d %s", s, a.StatusCode, a.body)
		}
	}
	if err := g.tape.ledger.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line, err := range audit.Lines(g.dir) {
		if err != nil {
			t.Fatal(err)
		}
		lines++
		checkLine(t, line.Raw)
		e, err := line.Event()
		if err != nil {
			t.Fatal(err)
		}
		if want, ok := expected[e.Record]; ok && e.Type == audit.TypeDecision {
			if got := want.got(e); got != want.value {
				t.Errorf("%s %q came back as %q", want.what, want.value, got)
			}
			delete(expected, e.Record)
		}
	}
	if lines != 2*requests || len(expected) != 0 {
		t.Errorf("%d events of %d requests, %d without a decision", lines, requests, len(expected))
	}
	logged := strings.Split(strings.TrimSuffix(g.log.String(), "\n"), "\n")
	for _, line := range logged {
		checkLine(t, []byte(line))
	}
	if len(logged) != requests {
		t.Errorf("%d lines of the log of %d requests", len(logged), requests)
	}
	t.Logf("%d strings in %d requests", len(all), requests)
}

// checkLine: one JSON object, and nothing in it that a terminal would obey or
// hide.
func checkLine(t *testing.T, line []byte) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(line))
	var v map[string]any
	if err := dec.Decode(&v); err != nil {
		t.Errorf("%q: %v", line, err)
	} else if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		t.Errorf("%q: more than an object", line)
	}
	if i := slices.IndexFunc([]rune(string(line)), func(r rune) bool {
		return r < ' ' || r >= 0x7f && r < 0xa0 || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
	}); i >= 0 {
		t.Errorf("%q: a character that steers a terminal, %d", line, i)
	}
}
