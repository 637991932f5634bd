package cmd

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestForwardAuthListener: questions are answered there and nowhere else, are on
// record, and end with the gateway.
func TestForwardAuthListener(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the app was asked") }))
	defer up.Close()
	i := newIssuer(t)
	g := startGateway(t, up.URL, i, "forward_auth: {address: \"127.0.0.1:0\", dialect: nginx}\n")
	address := g.log.await(t, `"forward_auth":"([^"]+)"`)[1]
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	answers := bufio.NewReader(conn)
	ask := func(lines ...string) *http.Response {
		t.Helper()
		fmt.Fprintf(conn, "GET /ask HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 203.0.113.9\r\n%s\r\n\r\n", strings.Join(lines, "\r\n"))
		res, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, res.Body)
		return res
	}
	question := []string{"X-Original-Method: POST", "X-Original-URI: /app/a?b=c"}
	if res := ask(question...); res.StatusCode != 401 {
		t.Error(res.Status)
	}
	if res := ask(append(question, "Authorization: Bearer "+i.token(t, "alice"))...); res.StatusCode != 200 || res.Header.Get("X-Sidegate-Uid") != "alice" {
		t.Errorf("%+v", res)
	}
	if res := ask("X-Original-Method: GET"); res.StatusCode != 403 || res.Header.Get("X-Sidegate-Status") != "400" {
		t.Errorf("%+v", res)
	}
	twice, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer twice.Close()
	fmt.Fprintf(twice, "POST /ask HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	if all, _ := io.ReadAll(twice); !strings.HasPrefix(string(all), "HTTP/1.1 400 ") {
		t.Errorf("a question that ends in two ways: %q", all)
	}
	for path, want := range map[string]int{"/ask": 404, "/app/a": 401} { // the question's words mean nothing to the public listener
		req, err := http.NewRequest(http.MethodGet, g.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Original-Method", "GET")
		req.Header.Set("X-Original-URI", "/open")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	if _, err := answers.ReadByte(); err != io.EOF {
		t.Errorf("the connection outlived the gateway: %v", err)
	}
	if other, err := net.Dial("tcp", address); err == nil {
		other.Close()
		t.Error("the listener outlived the gateway")
	}
	asked := 0
	for _, e := range g.events(t) {
		if e.Request != nil && e.Request.ForwardAuth == "nginx" {
			asked++
		}
	}
	if asked != 3 {
		t.Errorf("%d questions are on record", asked)
	}
}
