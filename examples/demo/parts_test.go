package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const partsRoute = `routes:
  - id: parts
    path: /v1/multipart/{op...}
    methods: [GET, POST, DELETE]
    serve: multipart
    allow: [{id: user, who: [users]}]
    object: {key: "users/${auth.uid}/uploads/${uuid}${ext}", content_types: [image/png], max_bytes: 25MiB, checksum: sha256}
`

// TestPartChecksums holds that of an upload in parts the store itself refuses what
// is not what was signed, from a client that follows only the answers.
func TestPartChecksums(t *testing.T) {
	g := startGateway(t, setup{policy: demoFile(t, "policy.yaml", "routes:\n", partsRoute)})
	alice := token(t, "alice")
	contents := [][]byte{bytes.Repeat([]byte("sidegate"), 5<<20/8), []byte("the end")}
	size := len(contents[0]) + len(contents[1])
	at := g.url + "/v1/multipart"
	ask(t, http.MethodPost, at, alice, fmt.Sprintf(`{"contentType": "image/png", "size": %d}`, size)).problem(t, http.StatusUnprocessableEntity, "invalid_field")
	var begun struct{ Session string }
	ask(t, http.MethodPost, at, alice, fmt.Sprintf(`{"contentType": "image/png", "size": %d, "partChecksums": "sha256"}`, size)).want(t, http.StatusOK).decode(t, &begun)
	at += "/" + begun.Session
	ask(t, http.MethodPost, at+"/parts", alice, `{"parts": [{"partNumber": 1, "size": 1}]}`).problem(t, http.StatusUnprocessableEntity, "invalid_field")

	var asked []string
	for i, content := range contents {
		sum := sha256.Sum256(content)
		asked = append(asked, fmt.Sprintf(`{"partNumber": %d, "size": %d, "checksumSha256": %q}`, i+1, len(content), base64.StdEncoding.EncodeToString(sum[:])))
	}
	var signed struct {
		Parts []struct {
			URL, Method string
			Headers     map[string]string
		}
	}
	ask(t, http.MethodPost, at+"/parts", alice, `{"parts": [`+strings.Join(asked, ", ")+`]}`).want(t, http.StatusOK).decode(t, &signed)
	// Completing what lacks a part would reject the upload, so that is not tried.
	for i, content := range contents {
		u := ticket{PutURL: signed.Parts[i].URL, Method: signed.Parts[i].Method, Headers: signed.Parts[i].Headers}
		u.refused(t, bytes.ToUpper(content))
		bare := u
		bare.Headers = nil
		bare.refused(t, content)
		var arrived struct{ Parts []struct{ PartNumber int } }
		if ask(t, http.MethodGet, at+"/parts", alice, "").want(t, http.StatusOK).decode(t, &arrived); len(arrived.Parts) != i {
			t.Errorf("arrived: %+v, want %d", arrived, i)
		}
		u.put(t, content).want(t, http.StatusOK)
	}
	var done struct {
		Status string
		Size   int
	}
	ask(t, http.MethodPost, at+"/complete", alice, "").want(t, http.StatusOK).decode(t, &done)
	if done.Status != "ready" || done.Size != size {
		t.Errorf("%+v", done)
	}
}

// refused sends what the store must refuse; it may do so, and break off, before
// it has read all.
func (u ticket) refused(t *testing.T, content []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), u.Method, u.PutURL, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range u.Headers {
		r.Header.Set(name, value)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return
	}
	defer a.Body.Close()
	if a.StatusCode/100 != 4 {
		t.Errorf("the store answered %d", a.StatusCode)
	}
}
