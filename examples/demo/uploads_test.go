package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestStoreRefuses holds that the object store itself, not only the gateway,
// refuses whatever was not signed.
func TestStoreRefuses(t *testing.T) {
	g := startGateway(t, setup{policy: demoFile(t, "policy.yaml", "min: 1m", "min: 2s")})
	alice := token(t, "alice")
	content := []byte("five!")
	fresh := func(t *testing.T) ticket {
		u := presign(t, g.url, alice, `{"contentType": "text/plain", "size": 5}`)
		if u.Method != http.MethodPut || !strings.HasPrefix(u.Key, "users/alice/uploads/") {
			t.Fatalf("the answer is %+v", u)
		}
		return u
	}
	// nothing fails unless the store keeps nothing under the ticket's key.
	nothing := func(t *testing.T, u ticket) {
		t.Helper()
		confirm(t, g.url, alice, u.Session).problem(t, http.StatusConflict, "not_uploaded")
	}

	t.Run("another content type", func(t *testing.T) {
		u := fresh(t)
		u.Headers["Content-Type"] = "text/html"
		u.put(t, content).want(t, http.StatusForbidden)
		nothing(t, u)
	})
	t.Run("another length", func(t *testing.T) {
		u := fresh(t)
		u.put(t, []byte("six!!!")).want(t, http.StatusForbidden)
		u.put(t, []byte("four")).want(t, http.StatusForbidden)
		nothing(t, u)
	})
	t.Run("a tampered key", func(t *testing.T) {
		u := fresh(t)
		good := u.PutURL
		u.PutURL = strings.Replace(good, "users/alice/", "users/bob/", 1)
		if u.PutURL == good {
			t.Fatalf("no users/alice/ in %s", good)
		}
		u.put(t, content).want(t, http.StatusForbidden)
		u.PutURL = good
		nothing(t, u)
	})
	t.Run("without the header that forbids overwriting", func(t *testing.T) {
		u := fresh(t)
		if u.Headers["If-None-Match"] != "*" {
			t.Fatalf("headers %v, want If-None-Match: *", u.Headers)
		}
		delete(u.Headers, "If-None-Match")
		u.put(t, content).want(t, http.StatusForbidden)
		nothing(t, u)
	})
	t.Run("a longer expiry than signed", func(t *testing.T) {
		u := fresh(t)
		address, err := url.Parse(u.PutURL)
		if err != nil {
			t.Fatal(err)
		}
		query := address.Query()
		query.Set("X-Amz-Expires", "604800")
		address.RawQuery = query.Encode()
		u.PutURL = address.String()
		u.put(t, content).want(t, http.StatusForbidden)
		nothing(t, u)
	})
	t.Run("a second upload", func(t *testing.T) {
		u := fresh(t)
		u.put(t, content).want(t, http.StatusOK)
		u.put(t, []byte("other")).want(t, http.StatusPreconditionFailed)
		confirm(t, g.url, alice, u.Session).want(t, http.StatusOK)
	})
	t.Run("another checksum", func(t *testing.T) {
		sum := sha256.Sum256(content)
		body := fmt.Sprintf(`{"contentType": "text/plain", "size": 5, "checksumSha256": %q}`, base64.StdEncoding.EncodeToString(sum[:]))
		u := presign(t, g.url, alice, body)
		if a := u.put(t, []byte("evil!")); a.status == http.StatusOK {
			t.Errorf("the store took other bytes than those whose checksum was signed: %s", a.body)
		}
		nothing(t, u)
		u.put(t, content).want(t, http.StatusOK)
		confirm(t, g.url, alice, u.Session).want(t, http.StatusOK)
	})
	t.Run("an expired URL", func(t *testing.T) {
		u := presign(t, g.url, alice, `{"contentType": "text/plain", "size": 5, "expiresSeconds": 2}`)
		// The store's clock decides: whole seconds, so one more than signed.
		<-time.After(3500 * time.Millisecond)
		u.put(t, content).want(t, http.StatusForbidden)
		nothing(t, u)
	})
}

func TestUploadLifecycle(t *testing.T) {
	g := startGateway(t, setup{})
	uploadLifecycle(t, g.url)
}

// uploadLifecycle uploads, confirms and downloads through the gateway, and
// tries what must not work. It gives the session's id.
func uploadLifecycle(t *testing.T, gatewayURL string) string {
	t.Helper()
	alice, bob := token(t, "alice"), token(t, "bob")
	content := bytes.Repeat([]byte("sidegate "), 3000)
	u := presign(t, gatewayURL, alice, fmt.Sprintf(`{"contentType": "application/pdf", "fileExt": "pdf", "size": %d}`, len(content)))
	if !strings.HasSuffix(u.Key, ".pdf") {
		t.Errorf("key %q, want one that ends in .pdf", u.Key)
	}
	confirm(t, gatewayURL, alice, u.Session).problem(t, http.StatusConflict, "not_uploaded")
	u.put(t, content).want(t, http.StatusOK)
	confirm(t, gatewayURL, bob, u.Session).problem(t, http.StatusNotFound, "no_session")
	for range 2 { // it is idempotent
		var done struct {
			Key, Status, ContentType string
			Size                     int
		}
		confirm(t, gatewayURL, alice, u.Session).want(t, http.StatusOK).decode(t, &done)
		if done.Key != u.Key || done.Status != "ready" || done.Size != len(content) || done.ContentType != "application/pdf" {
			t.Errorf("confirmed as %+v", done)
		}
	}

	download := gatewayURL + "/v1/files/" + u.Key + "/download"
	ask(t, http.MethodGet, download, bob, "").problem(t, http.StatusForbidden, "not_allowed")
	ask(t, http.MethodGet, download, "", "").problem(t, http.StatusUnauthorized, "no_token")
	var got struct {
		GetURL         string
		ExpiresSeconds int
	}
	ask(t, http.MethodGet, download, alice, "").want(t, http.StatusOK).decode(t, &got)
	back := ask(t, http.MethodGet, got.GetURL, "", "").want(t, http.StatusOK)
	if !bytes.Equal(back.body, content) {
		t.Errorf("%d bytes came back, want the %d that were sent", len(back.body), len(content))
	}
	if disposition := back.header.Get("Content-Disposition"); !strings.HasPrefix(disposition, "attachment") {
		t.Errorf("Content-Disposition %q, want attachment", disposition)
	}
	redirect := ask(t, http.MethodGet, download+"?redirect=1", alice, "").want(t, http.StatusFound)
	if back := ask(t, http.MethodGet, redirect.header.Get("Location"), "", "").want(t, http.StatusOK); !bytes.Equal(back.body, content) {
		t.Error("the redirect leads to other bytes")
	}
	return u.Session
}
