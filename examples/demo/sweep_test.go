package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// A hook is an app that is told of uploads, and at first is out of order.
type hook struct {
	secret  []byte
	failing int // so many notices are answered 503
	notices chan notice
}

type notice struct {
	id      string
	refused bool
	Type    string
	Data    struct{ Session, UID, Key, Status, ETag string }
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	n := notice{id: r.Header.Get("Webhook-Id")}
	mac := hmac.New(sha256.New, h.secret)
	io.WriteString(mac, n.id+"."+r.Header.Get("Webhook-Timestamp")+"."+string(body))
	want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	if r.Header.Get("Webhook-Signature") != want || json.Unmarshal(body, &n) != nil {
		http.Error(w, "forged", http.StatusForbidden)
		return
	}
	if n.refused = h.failing > 0; n.refused {
		h.failing--
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	h.notices <- n
}

// TestWebhook: an upload that is confirmed is told to the app, again after it
// failed, with the same id, and by the next process where the first is killed.
// One that landed and was never confirmed is deleted as the policy says, and
// told to nobody.
func TestWebhook(t *testing.T) {
	h := &hook{secret: bytes.Repeat([]byte("k"), 32), failing: 1, notices: make(chan notice, 8)}
	app := httptest.NewServer(h)
	defer app.Close()
	policy := demoFile(t, "policy.yaml", "expires: {default: 15m, min: 1m, max: 15m}", "confirm_within: 1s\n      late: delete\n      expires: {default: 15m, min: 2s, max: 15m}")
	config := demoFile(t, "sidegate.yaml") + "webhook: {url: \"" + app.URL + "/hooks\", secret: \"${env:HOOK_SECRET}\"}\n"
	env := []string{"HOOK_SECRET=whsec_" + base64.StdEncoding.EncodeToString(h.secret)}
	g := startGateway(t, setup{config: config, policy: policy, env: env})
	alice := token(t, "alice")
	late := presign(t, g.url, alice, `{"contentType": "text/plain", "size": 5, "expiresSeconds": 2}`)
	late.put(t, []byte("late!")).want(t, http.StatusOK)
	session := func() ticket {
		u := presign(t, g.url, alice, `{"contentType": "text/plain", "size": 5}`)
		u.put(t, []byte("five!")).want(t, http.StatusOK)
		confirm(t, g.url, alice, u.Session).want(t, http.StatusOK)
		return u
	}
	u := session()
	first := h.next(t)
	if !first.refused || first.id != "msg_"+u.Session+"_ready" {
		t.Errorf("the first notice: %+v", first)
	}
	// Killed while the notice is still due.
	g.reaches(t, `sidegate_uploads_swept_total{what="notice_failed"}`, 1)
	g.kill()
	g = startGateway(t, setup{dir: g.dir, env: env})
	again := h.next(t)
	if again.refused || again.id != first.id || again.Type != "upload.ready" || again.Data.Session != u.Session || again.Data.UID != "alice" || again.Data.Key != u.Key {
		t.Errorf("the second notice: %+v", again)
	}
	other := session()
	if n := h.next(t); n.Data.Session != other.Session {
		t.Errorf("got %+v, want a notice of %s", n, other.Session)
	}
	g.reaches(t, `sidegate_uploads_swept_total{what="late_deleted"}`, 1)
	var got struct{ GetURL string }
	ask(t, http.MethodGet, g.url+"/v1/files/"+late.Key+"/download", alice, "").want(t, http.StatusOK).decode(t, &got)
	ask(t, http.MethodGet, got.GetURL, "", "").want(t, http.StatusNotFound)
	confirm(t, g.url, alice, late.Session).problem(t, http.StatusGone, "expired")
	deleted := 0
	for _, e := range readLedger(t, g.dir) {
		if e.System.Event == "upload_late_deleted" && e.Object.Key == late.Key && e.Object.Session == late.Session {
			deleted++
		}
	}
	if deleted != 1 {
		t.Errorf("the deletion is on record %d times", deleted)
	}
	if log := g.log.String(); strings.Contains(log, string(h.secret)) || strings.Contains(log, "/hooks") {
		t.Error("the log shows the webhook's secret or URL")
	}
}

func (h *hook) next(t *testing.T) notice {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	select {
	case n := <-h.notices:
		return n
	case <-ctx.Done():
		t.Fatal("nobody was told")
		return notice{}
	}
}
