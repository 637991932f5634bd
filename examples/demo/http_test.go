package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// An answer is an HTTP response, read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends a request with the token, if there is one, and a JSON body, if
// there is one.
func ask(t *testing.T, method, url, token, body string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return do(t, r)
}

func do(t *testing.T, r *http.Request) answer {
	t.Helper()
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, content}
}

// want fails unless the status is this one.
func (a answer) want(t *testing.T, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	return a
}

// problem fails unless the answer is a refusal of the gateway's own with this
// status and code (RFC 9457).
func (a answer) problem(t *testing.T, status int, code string) answer {
	t.Helper()
	a.want(t, status)
	var p struct {
		Status    int    `json:"status"`
		Code      string `json:"code"`
		RequestID string `json:"request_id"`
	}
	a.decode(t, &p)
	if p.Status != status || p.Code != code || p.RequestID == "" {
		t.Errorf("problem %s, want status %d, code %s and a request_id", a.body, status, code)
	}
	if got := a.header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("Content-Type %q of a problem", got)
	}
	if a.header.Get("X-Sidegate-Response") != "true" {
		t.Error("a refusal of the gateway's without X-Sidegate-Response: true")
	}
	return a
}

func (a answer) decode(t *testing.T, into any) {
	t.Helper()
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
}

// A ticket is the answer of presign_upload.
type ticket struct {
	Key       string            `json:"key"`
	PutURL    string            `json:"putUrl"`
	Session   string            `json:"session"`
	Method    string            `json:"method"`
	Headers   map[string]string `json:"headers"`
	ExpiresIn int               `json:"expiresSeconds"`
}

// presign asks the gateway for a URL to upload to.
func presign(t *testing.T, gatewayURL, token, body string) ticket {
	t.Helper()
	var answer ticket
	ask(t, http.MethodPost, gatewayURL+"/v1/uploads/presign", token, body).want(t, http.StatusOK).decode(t, &answer)
	return answer
}

// put uploads as the ticket says.
func (u ticket) put(t *testing.T, content []byte) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), u.Method, u.PutURL, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range u.Headers {
		r.Header.Set(name, value)
	}
	return do(t, r)
}

// confirm tells the gateway that the upload is done.
func confirm(t *testing.T, gatewayURL, token, session string) answer {
	t.Helper()
	return ask(t, http.MethodPost, gatewayURL+"/v1/uploads/"+session+"/confirm", token, "")
}

// eventually is the first answer of a listener that may not be there yet.
func eventually(t *testing.T, url, token string) answer {
	t.Helper()
	deadline := time.After(30 * time.Second)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		if response, err := http.DefaultClient.Do(r); err == nil {
			response.Body.Close()
			return do(t, r)
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("nobody listens at %s", url)
		}
	}
}
