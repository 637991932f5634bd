package cmd

import (
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// mark is in all that the hostile callers send: no label may have it.
const mark = "zqxmark"

// hostileRequests are requests of each kind that a stranger can make up, with n
// in everything that is the stranger's to choose.
func hostileRequests(n int) []string {
	id := fmt.Sprintf("%s%d", mark, n)
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	claims := func(iss, aud string) string {
		return part(fmt.Sprintf(`{"iss":%q,"aud":%q,"sub":%q,"iat":1,"exp":9999999999,"auth_time":1}`, iss, aud, id))
	}
	header := part(fmt.Sprintf(`{"alg":"RS256","kid":%q,"typ":"JWT"}`, id))
	get := func(path string, more ...string) string {
		return "GET " + path + " HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n" + strings.Join(more, "") + "\r\n"
	}
	bearer := func(token string) string { return "Authorization: Bearer " + token + "\r\n" }
	return []string{
		get("/" + id),
		get("/app/" + id),
		get("/app/%2e%2e/" + id),
		get("/app/%00" + id),
		get("/open?" + id + "=" + id),
		get("/socket", "Upgrade: "+id+"\r\n"),
		"GET /open HTTP/1.1\r\nHost: " + id + ".test\r\nConnection: close\r\n\r\n",
		"GET /open HTTP/1.1\r\nHost: " + id + "@@\r\nConnection: close\r\n\r\n",
		"GET http://" + id + "/open HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
		strings.ToUpper(id) + " /open HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n",
		"CONNECT " + id + ":443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
		"OPTIONS /app/x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nOrigin: https://" + id + "\r\nAccess-Control-Request-Method: " + id + "\r\n\r\n",
		"POST /open HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nX-" + id + ": 1\r\n\r\n0\r\n\r\n",
		id + "\r\n\r\n",
		get("/app/x", bearer(id)),
		get("/app/x", bearer(header+"."+claims("https://"+id, id)+"."+part(id))),
		get("/app/x", bearer(header+"."+claims("https://securetoken.google.com/demo-x", "demo-x")+"."+part(id))),
		get("/app/x", bearer(header+"."+claims("https://securetoken.google.com/demo-x", id)+"."+part(id))),
		get("/app/x", "Authorization: "+id+" "+id+"\r\n", "Cookie: "+id+"="+id+"\r\n", "X-Firebase-AppCheck: "+id+"\r\n"),
		get("/open", "X-Forwarded-For: "+id+"\r\n", "X-Forwarded-Proto: "+id+"\r\n", "Traceparent: "+id+"\r\n", "User-Agent: "+id+"\r\n", "X-Sidegate-Uid: "+id+"\r\n"),
	}
}

// TestLabelsAreBounded: whatever strangers send, they add no series but those that
// a first stranger of each kind did, and nothing of theirs is a label.
func TestLabelsAreBounded(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "here") }))
	defer up.Close()
	g := startGateway(t, up.URL, newIssuer(t), "", "counted", "listen:header_timeout: 2s")
	send := func(n int) {
		for _, request := range hostileRequests(n) {
			conn, err := net.Dial("tcp", strings.TrimPrefix(g.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(conn, request); err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(conn) // to its end, when it is counted
			if err != nil || len(answer) == 0 {
				t.Fatalf("%q: %v, %q", request, err, answer)
			}
			conn.Close()
		}
	}
	send(0)
	if status, _ := g.get(t, "/open", ""); status != 200 {
		t.Fatal(status)
	}
	first := series(g.metrics(t))
	for n := range 40 {
		send(n + 1)
	}
	then := series(g.metrics(t))
	for _, s := range then {
		if !slices.Contains(first, s) {
			t.Errorf("strangers made a series: %s", s)
		}
		if strings.Contains(strings.ToLower(s), mark) {
			t.Errorf("a stranger's word is a label: %s", s)
		}
	}
	if n := len(then); n < 100 || n > 600 {
		t.Errorf("%d series", n)
	}
	for _, want := range []string{
		`sidegate_framing_refused_total{listener="public"} 82`,
		`sidegate_identifications_total{identity="users",outcome="invalid"} 41`,
		`sidegate_identifications_total{identity="",outcome="invalid"} 123`,
	} {
		if text := g.metrics(t); !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(s string) bool { return !strings.HasPrefix(s, want[:20]) }), "\n"))
		}
	}
}

// series are the names and labels of a scrape's samples.
func series(scrape string) (out []string) {
	for line := range strings.SplitSeq(scrape, "\n") {
		if i := strings.LastIndexByte(line, ' '); i > 0 && line[0] != '#' {
			out = append(out, line[:i])
		}
	}
	slices.Sort(out)
	return out
}
