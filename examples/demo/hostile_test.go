package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// hostileValues is what strangers send to whoever reads the log later.
var hostileValues = []string{
	"\x1b[2J\x1b]0;owned\x07",              // clears a terminal and renames it
	"\x9b31m\x90q\x9c",                     // the same controls as single bytes, which are no UTF-8
	"\u009b31m",                            // and as UTF-8
	"a\r\n" + `{"type":"decision"}` + "\n", // a line of its own
	`","seq":1,"prev":"","x":{"y":["`,      // out of its string
	`{"decision":{"effect":"allow"}}`,      //
	"\x00\x01\x7f",                         //
	"\xff\xfe\xc0\xaf\xed\xa0\x80",         // no UTF-8 at all
	`\x1b[2J \u001b \\x5c \`,               // what escaping looks like
	"\u202eevil\u2066\u200b\u2028\u2029",   // turns text round, hides and breaks it
	"%1b%0a%00",                            //
	strings.Repeat("é\x1b", 1000),          //
}

// A hostileEvent is a line of the audit log with what strangers choose.
type hostileEvent struct {
	Type    string
	Record  string
	Request struct {
		Path      string
		UserAgent string   `json:"user_agent"`
		QueryKeys []string `json:"query_keys"`
	}
	Identity struct{ UID string }
	Decision struct {
		Effect string
		Status int
	}
	Object struct {
		Key         string
		ContentType string `json:"content_type"`
	}
	Cut []string
}

// A hostileCall is a request with one hostile value, and what the log must hold
// of it, once unescaped.
type hostileCall struct {
	place, request string
	status         int // 0: any
	check          func(e hostileEvent) (got string, want []string)
}

// TestHostileValuesOnRecord sends what steers terminals, breaks lines or is no
// text in every place that is recorded. Each event is one line of JSON that
// gives the bytes back, here and in Firestore, and `audit tail` shows nothing
// that steers.
func TestHostileValuesOnRecord(t *testing.T) {
	log := newSharedLog(t)
	flags, env := emulated(log.host)
	g := startGateway(t, setup{
		flags: flags, env: env,
		config: demoFile(t, "sidegate.yaml") + log.config("crash"),
		policy: demoFile(t, "policy.yaml", "content_types: [image/jpeg, image/png, application/pdf, text/plain]", `content_types: ["*/*"]`),
	})
	calls := map[string]hostileCall{} // by record
	for _, value := range hostileValues {
		for _, c := range hostileCalls(t, value) {
			calls[c.send(t, g)] = c
		}
	}
	// A header as large as is taken, and one of a megabyte, of which there is no
	// record: nobody saw it.
	large := hostileCall{
		place: "large", request: "GET /v1/me HTTP/1.1\r\nHost: gateway.test\r\nUser-Agent: " + strings.Repeat("\xff", 31<<10) + "\r\n\r\n",
		status: http.StatusUnauthorized, check: func(e hostileEvent) (string, []string) {
			return e.Request.UserAgent, []string{strings.Repeat("\xff", 512)}
		},
	}
	calls[large.send(t, g)] = large
	tooLarge := hostileCall{
		place: "too large", request: "GET /v1/me HTTP/1.1\r\nHost: gateway.test\r\nUser-Agent: " + strings.Repeat("\xff", 1<<20) + "\r\n\r\n",
		status: http.StatusRequestHeaderFieldsTooLarge,
	}
	if record := tooLarge.send(t, g); record != "" {
		t.Errorf("a header that is too large has the record %s", record)
	}

	g.until(t, "sidegate_audit_waiting_bytes", 0)
	if status := g.stop(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	onRecord(t, g.dir)
	log.same(t, g.dir)
	log.verify(t)
	text := ledgerText(t, g.dir)
	recorded := map[string]hostileEvent{}
	for line := range strings.Lines(text) {
		wantHarmless(t, "the log", line)
		var e hostileEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if e.Type == "decision" {
			recorded[e.Record] = e
		}
	}
	accepted := map[string]int{}
	for record, c := range calls {
		e, there := recorded[record]
		if !there {
			t.Errorf("%s: no decision %q of %.200q", c.place, record, c.request)
			continue
		}
		if e.Decision.Effect == "allow" {
			accepted[c.place]++
		}
		got, want := c.check(e)
		got = unescapeBytes(got)
		found := false
		for _, w := range want {
			found = found || got == w
		}
		if !found {
			t.Errorf("%s: recorded %q, want %q", c.place, got, want)
		}
		delete(recorded, record)
	}
	for record, e := range recorded {
		t.Errorf("a record of what was never asked: %s %+v", record, e)
	}
	t.Logf("of %d hostile values were allowed: %v", len(hostileValues), accepted)
	for _, place := range []string{"path", "query name", "user agent", "uid", "content type", "key"} {
		if accepted[place] == 0 {
			t.Errorf("no %s was allowed: only refusals are tried", place)
		}
	}

	shownWhole := func(status int, shown, stderr string) {
		t.Helper()
		if n, want := strings.Count(shown, "\n"), strings.Count(text, "\n"); status != 0 || n != want {
			t.Errorf("audit tail: status %d, %d lines of %d events; %s", status, n, want, stderr)
		}
		for line := range strings.Lines(shown) {
			wantHarmless(t, "audit tail", line)
		}
	}
	shownWhole(sidegate(t, nil, "audit", "tail", "-n", "10000", "--dir", g.dir+"/data/audit"))
	shownWhole(log.audit(t, "tail", "-n", "10000"))
	for line := range strings.Lines(g.log.String()) {
		wantHarmless(t, "the gateway's own log", line)
	}
}

// hostileCalls puts the value wherever a request has room for it.
func hostileCalls(t *testing.T, value string) []hostileCall {
	t.Helper()
	alice := "\r\nAuthorization: Bearer " + token(t, "alice")
	encoded := percentEncoded(value)
	get := func(path, header string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: gateway.test" + header + "\r\n\r\n"
	}
	path := func(e hostileEvent) (string, []string) {
		// What was refused as ambiguous is recorded as it came.
		return e.Request.Path, cutBoth("/v1/users/alice/notes/"+value, "/v1/users/alice/notes/"+encoded)
	}
	calls := []hostileCall{
		{"path", get("/v1/users/alice/notes/"+encoded+"", alice), 0, path},
		{"query name", get("/v1/me?"+encoded+"=1", alice), 0, func(e hostileEvent) (string, []string) {
			want := []string{value, encoded}
			if len(value) > 64 {
				want = []string{""} // a name that long is none
			}
			return strings.Join(e.Request.QueryKeys, " "), want
		}},
		{"key", get("/v1/files/users/alice/"+encoded+"/download", alice), 0, func(e hostileEvent) (string, []string) {
			if e.Object.Key == "" {
				return "", []string{""}
			}
			return e.Object.Key, cutBoth("users/alice/" + value)
		}},
	}
	if inHeader(value) {
		calls = append(calls, hostileCall{"user agent", get("/v1/me", alice+"\r\nUser-Agent: "+value), http.StatusOK, func(e hostileEvent) (string, []string) {
			return e.Request.UserAgent, []string{strings.Trim(value, " \t"), cutRunes(value, 512)}
		}})
	}
	if utf8.ValidString(value) { // JSON holds nothing else
		body, err := json.Marshal(map[string]any{"contentType": "text/" + value, "size": 5})
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, hostileCall{"content type", "POST /v1/uploads/presign HTTP/1.1\r\nHost: gateway.test" + alice +
			"\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + string(body), 0,
			func(e hostileEvent) (string, []string) {
				return e.Object.ContentType, cutBoth("text/" + value)
			}})
		stranger, err := lab.issuer.token(user{UID: value, Email: "x@example.com"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		calls = append(calls, hostileCall{"uid", get("/v1/me", "\r\nAuthorization: Bearer "+stranger), 0, func(e hostileEvent) (string, []string) {
			if e.Decision.Status == http.StatusUnauthorized { // it was nobody
				return e.Identity.UID, []string{""}
			}
			return e.Identity.UID, []string{value}
		}})
	}
	return calls
}

// send sends the request over a connection of its own, and gives its record.
func (c hostileCall) send(t *testing.T, g *gateway) string {
	t.Helper()
	status, header, body := rawHTTP(t, strings.TrimPrefix(g.url, "http://"), c.request)
	if status == 0 || c.status != 0 && status != c.status {
		t.Errorf("%s: status %d, want %d: %.200q", c.place, status, c.status, c.request)
	}
	if id := header.Get("X-Request-Id"); id != "" {
		return id
	}
	var seen struct{ Headers map[string]string } // by the app
	json.Unmarshal([]byte(body), &seen)
	return seen.Headers["X-Request-Id"]
}

// wantHarmless fails where a line holds what steers a terminal, hides or turns
// text, or is no UTF-8.
func wantHarmless(t *testing.T, where, line string) {
	t.Helper()
	line = strings.TrimSuffix(line, "\n")
	bad := func(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) }
	if !utf8.ValidString(line) || strings.ContainsFunc(line, bad) {
		t.Errorf("%s holds what steers a terminal: %q", where, line)
	}
}

// inHeader says whether a header's value may hold it: net/http refuses
// controls, and nobody has such a request on record.
func inHeader(value string) bool {
	for _, c := range []byte(value) {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

func percentEncoded(value string) string {
	var b bytes.Buffer
	for _, c := range []byte(value) {
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// cutBoth are the values as the log keeps them: at most 4 KiB.
func cutBoth(values ...string) []string {
	for i, v := range values {
		values[i] = cutRunes(v, 4<<10)
	}
	return values
}

// cutRunes is as much of the value as fits, cut between characters.
func cutRunes(value string, most int) string {
	if len(value) <= most {
		return value
	}
	for most > 0 && !utf8.RuneStart(value[most]) {
		most--
	}
	return value[:most]
}

var escapedByte = regexp.MustCompile(`\\x[0-9a-f]{2}`)

// unescapeBytes is what docs/audit.md says of values: every \xHH is a byte.
func unescapeBytes(value string) string {
	return escapedByte.ReplaceAllStringFunc(value, func(s string) string {
		n, _ := strconv.ParseUint(s[2:], 16, 8)
		return string([]byte{byte(n)})
	})
}
