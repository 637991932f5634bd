package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/storage/upload"
)

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

var now = time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)

func ready() *upload.Session {
	return &upload.Session{
		ID: strings.Repeat("0a", 16), UID: "u1", Namespace: "users", Identity: "users", Key: "users/u1/é<.jpg", Bucket: "default",
		ContentType: "image/jpeg", Size: 5, Checksum: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", Status: upload.Ready, Record: "SECRET-record",
		CreatedAt: now.Add(-time.Minute), ExpiresAt: now, ConfirmBy: now, ReadyAt: now.Add(-time.Second), ETag: `"e"`, VersionID: "v",
		Route: "SECRET-route", Multipart: true, UploadID: "SECRET-upload", Quota: "SECRET-quota", QuotaWindow: now, Request: "SECRET-request", Attempts: 3,
	}
}

func endpoint(t *testing.T, url string) *Endpoint {
	t.Helper()
	e, err := New(Options{URL: url, Secret: secret, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.client.CloseIdleConnections)
	return e
}

// verify is what a receiver does, by the specification and not by this package:
// the key is base64 behind whsec_, the content is id, timestamp and body with
// stops between them, and one of the signatures must be it.
func verify(h http.Header, body []byte, whsec string) error {
	key, err := base64.StdEncoding.DecodeString(strings.Replace(whsec, "whsec_", "", 1))
	if err != nil {
		return err
	}
	id, at := h.Get("Webhook-Id"), h.Get("Webhook-Timestamp")
	if n, err := strconv.ParseInt(at, 10, 64); err != nil || time.Unix(n, 0).Sub(now).Abs() > 5*time.Minute {
		return fmt.Errorf("timestamp %q", at)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, at, body)
	for _, one := range strings.Split(h.Get("Webhook-Signature"), " ") {
		version, value, _ := strings.Cut(one, ",")
		got, err := base64.StdEncoding.DecodeString(value)
		if version == "v1" && err == nil && hmac.Equal(got, mac.Sum(nil)) {
			return nil
		}
	}
	return fmt.Errorf("no signature of %s fits", id)
}

func TestNotice(t *testing.T) {
	type got struct {
		*http.Request
		body []byte
	}
	var requests []got
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests = append(requests, got{r, body})
		w.WriteHeader(http.StatusNoContent)
	}))
	defer app.Close()
	e := endpoint(t, app.URL+"/hooks?a=b")
	rejected := ready()
	rejected.Status, rejected.ReadyAt, rejected.RejectedAt, rejected.Reason = upload.Rejected, time.Time{}, now.Add(-2*time.Second), "size: 5 stored, 4 signed"
	for _, s := range []*upload.Session{ready(), ready(), rejected} {
		if err := e.Notify(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	id := strings.Repeat("0a", 16)
	for i, want := range []struct{ id, body string }{
		{"msg_" + id + "_ready", `{"type":"upload.ready","timestamp":"2026-03-02T09:59:59Z","data":{"session":"` + id + `","uid":"u1","namespace":"users",` +
			`"key":"users/u1/é<.jpg","bucket":"default","contentType":"image/jpeg","size":5,"checksumSha256":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",` +
			`"etag":"\"e\"","versionId":"v","status":"ready","createdAt":"2026-03-02T09:59:00Z","readyAt":"2026-03-02T09:59:59Z"}}`},
		{id: "msg_" + id + "_ready"},
		{"msg_" + id + "_rejected", `{"type":"upload.rejected","timestamp":"2026-03-02T09:59:58Z","data":{"session":"` + id + `","uid":"u1","namespace":"users",` +
			`"key":"users/u1/é<.jpg","bucket":"default","contentType":"image/jpeg","size":5,"checksumSha256":"47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",` +
			`"etag":"\"e\"","versionId":"v","status":"rejected","reason":"size: 5 stored, 4 signed","createdAt":"2026-03-02T09:59:00Z"}}`},
	} {
		r := requests[i]
		var is, should any
		if err := json.Unmarshal(r.body, &is); err != nil {
			t.Fatal(err)
		}
		if want.body != "" {
			if err := json.Unmarshal([]byte(want.body), &should); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(is, should) {
				t.Errorf("%d: %s", i, r.body)
			}
		}
		if strings.Contains(string(r.body), "SECRET") {
			t.Errorf("internals are told: %s", r.body)
		}
		if err := verify(r.Header, r.body, secret); err != nil || r.Header.Get("Webhook-Id") != want.id {
			t.Errorf("%d: id %q, %v", i, r.Header.Get("Webhook-Id"), err)
		}
		if err := verify(r.Header, append(slices.Clone(r.body), ' '), secret); err == nil {
			t.Error("another body has the same signature")
		}
		if r.Method != "POST" || r.URL.String() != "/hooks?a=b" || r.Header.Get("Content-Type") != "application/json" || r.ContentLength != int64(len(r.body)) {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
	}
}

// The vector that the specification's own libraries hold themselves to.
func TestPublishedVector(t *testing.T) {
	keys, err := parseSecrets(secret)
	if err != nil {
		t.Fatal(err)
	}
	got := sign(keys, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestSecrets(t *testing.T) {
	b64 := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	plain := strings.Repeat("p", 24)
	for text, want := range map[string]int{
		secret:                              1,
		secret + "\n":                       1,
		plain:                               1,
		strings.Repeat("p", 64):             1,
		secret + " " + plain:                2,
		"whsec_" + b64(64):                  1,
		"whsec_" + b64(25):                  1,
		strings.Trim("whsec_"+b64(25), "="): 1,
		"":                                  0, " \n": 0,
		plain[1:]: 0, strings.Repeat("p", 65): 0,
		"whsec_" + b64(23): 0, "whsec_" + b64(65): 0, "whsec_": 0,
		"whsec_" + b64(25) + "=":                            0,
		"whsec_" + b64(24) + "====":                         0,
		"whsec_!" + b64(24)[1:]:                             0,
		"whsec_" + b64(24)[:31] + "_":                       0,
		"whsec_" + strings.TrimRight(b64(25), "=A") + "B==": 0, // two spellings of one key
		"whsk_" + b64(64):                                   0, "whpk_" + b64(32): 0,
		secret + " short":             0,
		strings.Repeat(secret+" ", 5): 0,
	} {
		keys, err := parseSecrets(text)
		if len(keys) != want && err == nil || (err == nil) != (want > 0) {
			t.Errorf("%q: %d keys, %v", text, len(keys), err)
		}
		for _, word := range strings.Fields(text) {
			if err != nil && len(word) > 6 && strings.Contains(err.Error(), word[6:]) {
				t.Errorf("the error shows the secret: %v", err)
			}
		}
	}
}

// What is taken as a secret signs, and has the length that is safe.
func FuzzSecrets(f *testing.F) {
	f.Add(secret + " " + strings.Repeat("x", 30))
	f.Add("whsec_====")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := parseSecrets(text)
		if err != nil {
			return
		}
		for _, k := range keys {
			if len(k) < minKey || len(k) > maxKey {
				t.Errorf("%q: a key of %d bytes", text, len(k))
			}
		}
		if n := strings.Count(sign(keys, "i", "1", nil), "v1,"); n != len(keys) || n != len(strings.Fields(text)) || n > maxKeys {
			t.Errorf("%q: %d signatures", text, n)
		}
	})
}

func TestSecretsAreReplacedWithoutABreak(t *testing.T) {
	other := "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat("n", 32)))
	var h http.Header
	var body []byte
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h = r.Header
		body, _ = io.ReadAll(r.Body)
	}))
	defer app.Close()
	e, err := New(Options{URL: app.URL, Secret: other + " " + secret, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Notify(t.Context(), ready()); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{secret, other} {
		if err := verify(h, body, s); err != nil {
			t.Error(err)
		}
	}
}

func TestURLs(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://acme.dev/hooks": true, "https://user:pass@acme.dev/hooks?q=1": true, "https://acme.dev": true, "HTTPS://acme.dev": true,
		"http://localhost:8080/x": true, "http://127.0.0.1/x": true, "http://127.9.9.9/x": true, "http://[::1]:80/": true, "http://[::ffff:127.0.0.1]/": true,
		"http://acme.dev/hooks": false, "http://localhost.acme.dev/": false, "http://10.0.0.1/": false, "http://0.0.0.0/": false, "http://[::]/": false,
		"": false, "acme.dev/hooks": false, "//acme.dev": false, "https:acme.dev": false, "https://": false, "https://:443/": false,
		"ftp://acme.dev": false, "https://acme.dev:65536/": false, "https://acme.dev:0/": false, "https://acme.dev:443/": true, "unix:///x": false, "https://acme.dev/#pass": false, "https://user:pass@acme.dev:port/": false, "https://pass\x7f@acme.dev/": false,
	} {
		_, err := New(Options{URL: url, Secret: secret})
		if (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
		if err != nil && (strings.Contains(err.Error(), "pass") || strings.Contains(err.Error(), "acme")) {
			t.Errorf("the error shows the URL: %v", err)
		}
	}
}

func TestAnswers(t *testing.T) {
	var status atomic.Int32
	var asked atomic.Int32
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Location", "/elsewhere?SECRET")
		w.WriteHeader(int(status.Load()))
		io.WriteString(w, strings.Repeat("SECRET", 10000))
	}))
	defer app.Close()
	e := endpoint(t, strings.Replace(app.URL, "://", "://user:SECRET@", 1)+"/?SECRET")
	for code, want := range map[int32]string{
		200: "", 201: "", 202: "", 299: "",
		300: "redirect", 301: "redirect", 302: "redirect", 307: "redirect", 308: "redirect", 304: "answered 304",
		400: "answered 400", 401: "answered 401", 404: "answered 404", 410: "answered 410", 429: "answered 429", 500: "answered 500", 503: "answered 503",
	} {
		status.Store(code)
		asked.Store(0)
		err := e.Notify(t.Context(), ready())
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET")) {
			t.Errorf("%d: %v", code, err)
		}
		if errors.Is(err, upload.ErrGone) != (code == 410) {
			t.Errorf("%d: gone: %v", code, err)
		}
		if asked.Load() != 1 {
			t.Errorf("%d: asked %d times", code, asked.Load())
		}
	}
}

// raw is an app that answers a request with these bytes, and hangs up.
func raw(t *testing.T, answer string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Read(make([]byte, 1<<16))
			io.WriteString(c, answer)
			c.Close()
		}
	}()
	return "http://user:SECRET@" + l.Addr().String() + "/?SECRET"
}

// Whatever comes or does not come, it is an error that shows neither the URL nor
// what was sent, and one that says to try again.
func TestNoAnswer(t *testing.T) {
	closed := raw(t, "")
	for what, url := range map[string]string{
		"hangs up":            closed,
		"no HTTP":             raw(t, "SECRET\x1b[2J\r\n\r\n"),
		"an endless header":   raw(t, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("SECRET", maxHeader)),
		"a header broken off": raw(t, "HTTP/1.1 200 OK\r\nX: SECRET"),
		"nobody listens":      "http://user:SECRET@127.0.0.1:1/?SECRET",
	} {
		err := endpoint(t, url).Notify(t.Context(), ready())
		if err == nil || strings.Contains(err.Error(), "SECRET") || strings.ContainsRune(err.Error(), 0x1b) || errors.Is(err, upload.ErrGone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The status is what counts, and it was there.
	if err := endpoint(t, raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nSECRET")).Notify(t.Context(), ready()); err != nil {
		t.Errorf("a body broken off: %v", err)
	}
}

func TestASilentApp(t *testing.T) {
	arrived, done := make(chan struct{}), make(chan struct{})
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-done
	}))
	defer app.Close()
	defer close(done)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	if err := endpoint(t, app.URL).Notify(ctx, ready()); !errors.Is(err, context.Canceled) {
		t.Errorf("the gateway stops: %v", err)
	}
	ended, cancel2 := context.WithDeadline(t.Context(), time.Unix(0, 0))
	defer cancel2()
	if err := endpoint(t, app.URL+"/?SECRET").Notify(ended, ready()); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("no time: %v", err)
	}
}

// Attack: somebody else's certificate.
func TestTLS(t *testing.T) {
	var got atomic.Int32
	app := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	app.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	app.EnableHTTP2 = true
	app.StartTLS()
	defer app.Close()
	err := endpoint(t, app.URL+"/?SECRET").Notify(t.Context(), ready())
	if err == nil || !strings.Contains(err.Error(), "certificate") || strings.Contains(err.Error(), "SECRET") || got.Load() != 0 {
		t.Errorf("an unknown authority: %v, %d requests", err, got.Load())
	}
	roots := x509.NewCertPool()
	roots.AddCert(app.Certificate())
	known, err := New(Options{URL: app.URL, Secret: secret, Now: time.Now, roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	if err := known.Notify(t.Context(), ready()); err != nil || got.Load() != 1 {
		t.Errorf("a known one: %v", err)
	}
	known.client.CloseIdleConnections()
	_, port, _ := net.SplitHostPort(app.Listener.Addr().String())
	other, err := New(Options{URL: "https://localhost:" + port, Secret: secret, Now: time.Now, roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Notify(t.Context(), ready()); err == nil || !strings.Contains(err.Error(), "another host") {
		t.Errorf("another host's: %v", err)
	}
}

func TestOnlyEndsAreTold(t *testing.T) {
	e := endpoint(t, "http://127.0.0.1:1")
	for _, status := range []upload.Status{"", upload.Issued, upload.Uploading, upload.Failed, upload.Aborted, upload.Expired} {
		s := ready()
		s.Status = status
		if err := e.Notify(t.Context(), s); err == nil || !strings.Contains(err.Error(), "told to nobody") {
			t.Errorf("%q: %v", status, err)
		}
	}
	// Attack: a stop in the id moves what is signed from the id into the timestamp.
	s := ready()
	s.ID = "a.1614265330"
	if err := e.Notify(t.Context(), s); err == nil || !strings.Contains(err.Error(), "cannot be told") {
		t.Errorf("%v", err)
	}
}
