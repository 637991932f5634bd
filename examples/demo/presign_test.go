package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPresignOperations does everything that the presign routes offer, by a
// client that knows nothing but what the gateway answers.
func TestPresignOperations(t *testing.T) {
	g := startGateway(t, setup{policy: presignPolicy})
	alice, bob := presigner{g.url, token(t, "alice")}, presigner{g.url, token(t, "bob")}
	five := []byte("five!")

	t.Run("PUT", func(t *testing.T) {
		s := alice.ask(t, http.MethodPost, "/v1/uploads/presign", `{"contentType": "text/plain", "size": 5, "checksumSha256": "`+sumOf(five)+`", "metadata": {"title": "Zoë's"}}`)
		s.ship(five).send(t).want(t, http.StatusOK)
		alice.confirmed(t, s, five)
		alice.downloads(t, s.Key, five)
	})
	t.Run("form", func(t *testing.T) {
		s := alice.ask(t, http.MethodPost, "/v1/uploads/form", `{"contentType": "text/plain", "size": 5}`)
		if s.Method != http.MethodPost || !strings.HasSuffix(s.PostURL, "/") {
			t.Errorf("the form goes by %s to %q, want POST to a URL that ends in a slash", s.Method, s.PostURL)
		}
		if a := s.ship(five).send(t); a.status/100 != 2 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		alice.confirmed(t, s, five)
		alice.downloads(t, s.Key, five)
	})
	t.Run("form without a size", func(t *testing.T) {
		s := alice.ask(t, http.MethodPost, "/v1/uploads/form", `{"contentType": "text/plain"}`)
		if a := s.ship(five).send(t); a.status/100 != 2 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		alice.confirmed(t, s, five)
	})
	t.Run("parts", func(t *testing.T) {
		content := bytes.Repeat([]byte("parts "), (6<<20)/6)
		s := alice.begin(t, len(content))
		parts := alice.parts(t, s.Session, 5<<20, len(content)-5<<20)
		list := sent(t, parts, content)
		var got struct {
			Parts []struct{ PartNumber, Size int }
		}
		ask(t, http.MethodGet, g.url+"/v1/multipart/"+s.Session+"/parts", alice.token, "").want(t, http.StatusOK).decode(t, &got)
		if len(got.Parts) != 2 || got.Parts[1].PartNumber != 2 || got.Parts[1].Size != len(content)-5<<20 {
			t.Errorf("listed parts: %+v", got.Parts)
		}
		// A part can be sent again, and the last one counts.
		parts[0].ship(content[:5<<20]).send(t).want(t, http.StatusOK)
		first := alice.complete(t, s.Session, list).want(t, http.StatusOK)
		if again := alice.complete(t, s.Session, list).want(t, http.StatusOK); !sameJSON(first.body, again.body) {
			t.Errorf("completed again: %s, first %s", again.body, first.body)
		}
		alice.confirmed(t, s, content)
		alice.downloads(t, s.Key, content)
	})
	t.Run("parts, all that arrived", func(t *testing.T) {
		s := alice.begin(t, 5)
		alice.parts(t, s.Session, 5)[0].ship(five).send(t).want(t, http.StatusOK)
		alice.complete(t, s.Session, "").want(t, http.StatusOK)
		alice.confirmed(t, s, five)
	})
	t.Run("abort", func(t *testing.T) {
		s := alice.begin(t, 5)
		part := alice.parts(t, s.Session, 5)[0]
		part.ship(five).send(t).want(t, http.StatusOK)
		for range 2 { // it is idempotent
			ask(t, http.MethodDelete, g.url+"/v1/multipart/"+s.Session, alice.token, "").want(t, http.StatusNoContent)
		}
		if status, _ := alice.state(t, s.Session); status != "aborted" {
			t.Errorf("state %s", status)
		}
		part.ship(five).send(t).want(t, http.StatusNotFound)
		alice.complete(t, s.Session, "").problem(t, http.StatusConflict, "state")
		if open := openUploads(t, s.Key); len(open) != 0 {
			t.Errorf("the store still has %v", open)
		}
	})
	t.Run("batch", func(t *testing.T) { testBatch(t, g, alice) })
	t.Run("own sessions", func(t *testing.T) { testOwnSessions(t, alice, bob) })
	t.Run("own objects", func(t *testing.T) { testOwnObjects(t, g) })
	t.Run("quota", func(t *testing.T) {
		for range 3 {
			bob.ask(t, http.MethodPost, "/v1/uploads/counted", `{"contentType": "text/plain", "size": 100}`)
		}
		a := ask(t, http.MethodPost, g.url+"/v1/uploads/counted", bob.token, `{"contentType": "text/plain", "size": 100}`).problem(t, http.StatusTooManyRequests, "quota")
		if a.header.Get("Retry-After") == "" {
			t.Error("429 without Retry-After")
		}
		ask(t, http.MethodPost, g.url+"/v1/uploads/counted", alice.token, `{"contentType": "text/plain", "size": 1000}`).want(t, http.StatusOK)
		ask(t, http.MethodPost, g.url+"/v1/uploads/counted", alice.token, `{"contentType": "text/plain", "size": 100}`).problem(t, http.StatusTooManyRequests, "quota")
	})
}

// confirmed fails unless the gateway finds the content, and says so twice.
func (p presigner) confirmed(t *testing.T, s signed, content []byte) {
	t.Helper()
	for range 2 {
		var done struct {
			Key, Status, ContentType string
			Size                     int
		}
		p.confirm(t, s.Session).want(t, http.StatusOK).decode(t, &done)
		if done.Key != s.Key || done.Status != "ready" || done.Size != len(content) || done.ContentType != "text/plain" {
			t.Errorf("confirmed as %+v", done)
		}
	}
}

// downloads reads the object back in every way.
func (p presigner) downloads(t *testing.T, key string, content []byte) {
	t.Helper()
	path := "/v1/files/" + key + "/download"
	s := p.ask(t, http.MethodGet, path, "")
	got := s.ship(nil).send(t).want(t, http.StatusOK)
	if !bytes.Equal(got.body, content) {
		t.Errorf("%d bytes came back, want %d", len(got.body), len(content))
	}
	if d := got.header.Get("Content-Disposition"); !strings.HasPrefix(d, "attachment") {
		t.Errorf("Content-Disposition %q, want attachment", d)
	}
	part := s.ship(nil)
	part.header.Set("Range", "bytes=1-3")
	if got := part.send(t).want(t, http.StatusPartialContent); !bytes.Equal(got.body, content[1:4]) {
		t.Errorf("the range is %q, want %q", got.body, content[1:4])
	}
	redirect := ask(t, http.MethodGet, p.url+path+"?redirect=1", p.token, "").want(t, http.StatusFound)
	if got := ask(t, http.MethodGet, redirect.header.Get("Location"), "", "").want(t, http.StatusOK); !bytes.Equal(got.body, content) {
		t.Error("the redirect leads to other bytes")
	}
	redirect = ask(t, http.MethodHead, p.url+path+"?redirect=1", p.token, "").want(t, http.StatusFound)
	head := ask(t, http.MethodHead, redirect.header.Get("Location"), "", "").want(t, http.StatusOK)
	if length := head.header.Get("Content-Length"); length != itoa(len(content)) {
		t.Errorf("HEAD says %s bytes, want %d", length, len(content))
	}
	ask(t, http.MethodGet, redirect.header.Get("Location"), "", "").want(t, http.StatusForbidden) // it is for HEAD
}

func testBatch(t *testing.T, g *gateway, alice presigner) {
	body := `{"uploads": [{"contentType": "text/plain", "size": 5}, {"contentType": "text/html", "size": 5}, {"contentType": "text/plain", "size": 5000}]}`
	var got struct{ Uploads, Downloads []signed }
	ask(t, http.MethodPost, g.url+"/v1/uploads/batch", alice.token, body).want(t, http.StatusOK).decode(t, &got)
	if n := len(got.Uploads); n != 3 {
		t.Fatalf("%d answers to 3 uploads", n)
	}
	if a := got.Uploads; a[0].Status != 200.0 || a[1].Status != 415.0 || a[1].Code != "unsupported_type" || a[2].Status != 413.0 {
		t.Errorf("the uploads' answers: %+v", got.Uploads)
	}
	one := got.Uploads[0]
	one.ship([]byte("five!")).send(t).want(t, http.StatusOK)
	alice.confirm(t, one.Session).want(t, http.StatusOK)

	body = fmt.Sprintf(`{"downloads": [{"key": %q}, {"key": "users/bob/x"}]}`, one.Key)
	ask(t, http.MethodPost, g.url+"/v1/downloads", alice.token, body).want(t, http.StatusOK).decode(t, &got)
	if a := got.Downloads; len(a) != 2 || a[0].Status != 200.0 || a[1].Status != 403.0 || a[1].GetURL != "" {
		t.Fatalf("the downloads' answers: %+v", a)
	}
	if back := got.Downloads[0].ship(nil).send(t).want(t, http.StatusOK); string(back.body) != "five!" {
		t.Errorf("came back: %q", back.body)
	}
	// 100 at once, each on record.
	many := `{"uploads": [` + strings.TrimSuffix(strings.Repeat(`{"contentType": "text/plain", "size": 1},`, 100), ",") + `]}`
	ask(t, http.MethodPost, g.url+"/v1/uploads/batch", alice.token, many).want(t, http.StatusOK).decode(t, &got)
	recorded := map[string]bool{}
	for _, e := range readLedger(t, g.dir) {
		if e.Type == "decision" && e.Decision.Effect == "allow" && e.Object.Operation == "put" {
			recorded[e.Object.Session] = true
		}
	}
	for _, u := range got.Uploads {
		if !recorded[u.Session] {
			t.Errorf("session %s is signed, and not on record", u.Session)
		}
	}
	if len(got.Uploads) != 100 {
		t.Errorf("%d answers to 100 uploads", len(got.Uploads))
	}
	over := strings.Replace(many, `{"contentType"`, `{"contentType": "text/plain", "size": 1},{"contentType"`, 1)
	ask(t, http.MethodPost, g.url+"/v1/uploads/batch", alice.token, over).problem(t, http.StatusUnprocessableEntity, "invalid_field")
}

// testOwnSessions pages through sessions, and holds that nobody sees another's.
func testOwnSessions(t *testing.T, alice, bob presigner) {
	var made []string
	for range 5 {
		made = append(made, bob.ask(t, http.MethodPost, "/v1/uploads/presign", `{"contentType": "text/plain", "size": 5}`).Session)
	}
	var listed []string
	for token := ""; ; {
		var page struct {
			Uploads       []struct{ Session, Status string }
			NextPageToken string
		}
		ask(t, http.MethodGet, bob.url+"/v1/uploads?pageSize=2&pageToken="+url.QueryEscape(token), bob.token, "").want(t, http.StatusOK).decode(t, &page)
		for _, u := range page.Uploads {
			listed = append(listed, u.Session)
		}
		if token = page.NextPageToken; token == "" {
			break
		}
		// A page's token is its user's own.
		stolen := ask(t, http.MethodGet, alice.url+"/v1/uploads?pageToken="+url.QueryEscape(token), alice.token, "")
		for _, session := range made {
			if bytes.Contains(stolen.body, []byte(session)) {
				t.Errorf("by bob's page token alice sees bob's session: %s", stolen.body)
			}
		}
	}
	slices.Sort(made)
	slices.Sort(listed)
	if !slices.Equal(made, listed) {
		t.Errorf("listed %v, want %v", listed, made)
	}
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		path := map[string]string{http.MethodGet: "", http.MethodPost: "/confirm"}[method]
		ask(t, method, alice.url+"/v1/uploads/"+made[0]+path, alice.token, "").problem(t, http.StatusNotFound, "no_session")
	}
	// Complete by a stranger, parts by a stranger, an abort by a stranger.
	s := bob.begin(t, 5)
	at := alice.url + "/v1/multipart/" + s.Session
	ask(t, http.MethodPost, at+"/parts", alice.token, `{"parts": [{"partNumber": 1}]}`).problem(t, http.StatusNotFound, "no_session")
	ask(t, http.MethodGet, at+"/parts", alice.token, "").problem(t, http.StatusNotFound, "no_session")
	ask(t, http.MethodPost, at+"/complete", alice.token, "").problem(t, http.StatusNotFound, "no_session")
	ask(t, http.MethodDelete, at, alice.token, "").problem(t, http.StatusNotFound, "no_session")
	if status, _ := bob.state(t, s.Session); status != "uploading" {
		t.Errorf("state %s", status)
	}
}

// testOwnObjects lists and deletes, with a user whose objects nobody else makes.
func testOwnObjects(t *testing.T, g *gateway) {
	carol := presigner{g.url, token(t, "carol")}
	var made []string
	for range 3 {
		s := carol.ask(t, http.MethodPost, "/v1/uploads/presign", `{"contentType": "text/plain", "size": 5}`)
		s.ship([]byte("five!")).send(t).want(t, http.StatusOK)
		made = append(made, s.Key)
	}
	type page struct {
		Objects       []struct{ Key string }
		NextPageToken string
	}
	list := func() (keys []string) {
		for token := ""; ; {
			var p page
			ask(t, http.MethodGet, g.url+"/v1/files?pageSize=2&prefix=users/carol/uploads/&pageToken="+url.QueryEscape(token), carol.token, "").want(t, http.StatusOK).decode(t, &p)
			for _, o := range p.Objects {
				keys = append(keys, o.Key)
			}
			if token = p.NextPageToken; token == "" {
				return keys
			}
		}
	}
	slices.Sort(made)
	if got := list(); !slices.Equal(got, made) {
		t.Errorf("listed %v, want %v", got, made)
	}
	for _, prefix := range []string{"users/", "users/caro", "users/bob/", "users/carol/../bob/", "/users/carol/"} {
		if a := ask(t, http.MethodGet, g.url+"/v1/files?prefix="+url.QueryEscape(prefix), carol.token, ""); a.status < 400 || a.status > 422 {
			t.Errorf("prefix %q: %d %s", prefix, a.status, a.body)
		}
	}
	ask(t, http.MethodDelete, g.url+"/v1/files/"+made[0], token(t, "bob"), "").problem(t, http.StatusForbidden, "not_allowed")
	for range 2 {
		ask(t, http.MethodDelete, g.url+"/v1/files/"+made[0], carol.token, "").want(t, http.StatusNoContent)
	}
	if got := list(); !slices.Equal(got, made[1:]) {
		t.Errorf("after a deletion: %v, want %v", got, made[1:])
	}
}

// A deviation changes a request to the store into one that was not signed.
type deviation struct {
	name   string
	change func(*shipment)
}

// deviations are those of every signed URL.
var deviations = []deviation{
	{"another key", func(x *shipment) { x.url = strings.Replace(x.url, "users/alice/", "users/bob/", 1) }},
	{"a key below", func(x *shipment) { x.url = strings.Replace(x.url, "?", "/x?", 1) }},
	{"a collapsed path", func(x *shipment) { x.url = strings.Replace(x.url, "users/alice/", "users/bob/../alice/", 1) }},
	{"another bucket", func(x *shipment) { x.url = strings.Replace(x.url, "/"+bucket+"/", "/other-bucket/", 1) }},
	{"a longer life", func(x *shipment) { x.setQuery("X-Amz-Expires", "604800") }},
	{"a later beginning", func(x *shipment) {
		x.setQuery("X-Amz-Date", time.Now().Add(time.Hour).UTC().Format("20060102T150405Z"))
	}},
	{"another signature", func(x *shipment) { x.setQuery("X-Amz-Signature", strings.Repeat("0", 64)) }},
	{"no signature", func(x *shipment) { x.setQuery("X-Amz-Signature", "") }},
	{"no query", func(x *shipment) { x.url, _, _ = strings.Cut(x.url, "?") }},
	{"a version", func(x *shipment) { x.url += "&versionId=null" }},
	{"the access control list", func(x *shipment) { x.url += "&acl" }},
	{"the tags", func(x *shipment) { x.url += "&tagging=" }},
	{"another type in the answer", func(x *shipment) { x.url += "&response-content-type=text%2Fhtml" }},
	{"a header that copies", func(x *shipment) { x.header.Set("X-Amz-Copy-Source", "/"+bucket+"/users/bob/secret") }},
	{"a header that opens it to all", func(x *shipment) { x.header.Set("X-Amz-Acl", "public-read") }},
	{"a header with metadata", func(x *shipment) { x.header.Set("X-Amz-Meta-Evil", "1") }},
	{"a header with tags", func(x *shipment) { x.header.Set("X-Amz-Tagging", "a=b") }},
	{"a header with a storage class", func(x *shipment) { x.header.Set("X-Amz-Storage-Class", "GLACIER") }},
	{"a header with a redirect", func(x *shipment) { x.header.Set("X-Amz-Website-Redirect-Location", "https://example.com/") }},
}

func anotherMethod(methods ...string) (all []deviation) {
	for _, m := range methods {
		all = append(all, deviation{m, func(x *shipment) { x.method = m }})
	}
	return all
}

// setQuery gives the URL's parameter another value; "": removes it.
func (x *shipment) setQuery(name, value string) {
	u, err := url.Parse(x.url)
	if err != nil {
		panic(err)
	}
	q := u.Query()
	q.Set(name, value)
	if value == "" {
		q.Del(name)
	}
	u.RawQuery = q.Encode()
	x.url = u.String()
}

// TestStoreRefusesDeviations holds that the store itself refuses whatever was
// not signed: of a PUT, a part, a form and a download.
func TestStoreRefusesDeviations(t *testing.T) {
	g := startGateway(t, setup{policy: presignPolicy})
	alice := presigner{g.url, token(t, "alice")}
	five := []byte("five!")
	ours := alice.ask(t, http.MethodPost, "/v1/uploads/presign", `{"contentType": "text/plain", "size": 5}`) // whose upload is never sent

	t.Run("PUT", func(t *testing.T) {
		s := alice.ask(t, http.MethodPost, "/v1/uploads/presign", `{"contentType": "text/plain", "size": 5, "checksumSha256": "`+sumOf(five)+`", "metadata": {"title": "one"}}`)
		refuses(t, s, five, slices.Concat(deviations, anotherMethod("GET", "HEAD", "POST", "DELETE"), content, []deviation{
			{"fewer signed headers", func(x *shipment) { x.setQuery("X-Amz-SignedHeaders", "host") }},
			{"another type", func(x *shipment) { x.header.Set("Content-Type", "text/html") }},
			{"no type", func(x *shipment) { x.header.Del("Content-Type") }},
			{"no condition", func(x *shipment) { x.header.Del("If-None-Match") }},
			{"another checksum", func(x *shipment) { x.body = []byte("evil!"); x.header.Set("X-Amz-Checksum-Sha256", sumOf(x.body)) }},
			{"no checksum", func(x *shipment) { x.body = []byte("evil!"); x.header.Del("X-Amz-Checksum-Sha256") }},
			{"other metadata", func(x *shipment) { x.header.Set("X-Amz-Meta-Title", "two") }},
			{"no metadata", func(x *shipment) { x.header.Del("X-Amz-Meta-Title") }},
			{"the URL of a part", func(x *shipment) { x.url += "&partNumber=1&uploadId=x" }},
			{"another's URL", func(x *shipment) { x.url = strings.Replace(x.url, s.Key, ours.Key, 1) }},
		}))
		if holds(t, s.Key) || holds(t, ours.Key) || holds(t, strings.Replace(s.Key, "alice", "bob", 1)) {
			t.Fatal("something landed")
		}
		alice.confirm(t, s.Session).problem(t, http.StatusConflict, "not_uploaded")
		s.ship(five).send(t).want(t, http.StatusOK)
		s.ship(five).send(t).want(t, http.StatusPreconditionFailed)
		alice.confirmed(t, s, five)
	})
	t.Run("part", func(t *testing.T) {
		s := alice.begin(t, 10)
		other := alice.begin(t, 10)
		otherID := openUploads(t, other.Key)[0]
		part := alice.parts(t, s.Session, 5)[0]
		refuses(t, part, five, slices.Concat(deviations, anotherMethod("GET", "HEAD", "POST", "DELETE"), content, []deviation{
			{"fewer signed headers", func(x *shipment) { x.setQuery("X-Amz-SignedHeaders", "host") }},
			{"another number", func(x *shipment) { x.setQuery("partNumber", "2") }},
			{"another upload", func(x *shipment) { x.setQuery("uploadId", otherID) }},
			{"no upload", func(x *shipment) { x.setQuery("uploadId", ""); x.setQuery("partNumber", "") }},
		}))
		var got struct{ Parts []any }
		for _, session := range []string{s.Session, other.Session} {
			ask(t, http.MethodGet, g.url+"/v1/multipart/"+session+"/parts", alice.token, "").want(t, http.StatusOK).decode(t, &got)
			if len(got.Parts) != 0 {
				t.Errorf("parts landed: %v", got.Parts)
			}
		}
		part.ship(five).send(t).want(t, http.StatusOK)
		// What landed is five bytes of ten.
		alice.complete(t, s.Session, "").problem(t, http.StatusUnprocessableEntity, "mismatch")
		if status, _ := alice.state(t, s.Session); status != "rejected" {
			t.Errorf("state %s", status)
		}
		if open := openUploads(t, s.Key); len(open) != 0 || holds(t, s.Key) {
			t.Errorf("something is left at the store: %v", open)
		}
	})
	t.Run("form", func(t *testing.T) { testFormDeviations(t, alice) })
	t.Run("download", func(t *testing.T) {
		s := alice.ask(t, http.MethodPost, "/v1/uploads/presign", `{"contentType": "text/plain", "size": 5}`)
		s.ship(five).send(t).want(t, http.StatusOK)
		d := alice.ask(t, http.MethodGet, "/v1/files/"+s.Key+"/download", "")
		refuses(t, d, nil, slices.Concat(deviations, anotherMethod("HEAD", "PUT", "POST", "DELETE"), []deviation{
			{"inline", func(x *shipment) { x.setQuery("response-content-disposition", "inline") }},
			{"no disposition", func(x *shipment) { x.setQuery("response-content-disposition", "") }},
		}))
		d.ship(nil).send(t).want(t, http.StatusOK)
	})
	t.Run("expired", func(t *testing.T) {
		var all []*shipment
		body := `{"contentType": "text/plain", "size": 5, "expiresSeconds": 2}`
		put := alice.ask(t, http.MethodPost, "/v1/uploads/presign", body)
		form := alice.ask(t, http.MethodPost, "/v1/uploads/form", body)
		all = append(all, put.ship(five), form.ship(five))
		begun := alice.begin(t, 5)
		var parts struct{ Parts []signed }
		ask(t, http.MethodPost, g.url+"/v1/multipart/"+begun.Session+"/parts", alice.token, `{"parts": [{"partNumber": 1, "size": 5}], "expiresSeconds": 2}`).
			want(t, http.StatusOK).decode(t, &parts)
		all = append(all, parts.Parts[0].ship(five))
		all = append(all, alice.ask(t, http.MethodGet, "/v1/files/"+put.Key+"/download?expiresSeconds=2", "").ship(nil))
		<-time.After(3500 * time.Millisecond) // the store's clock decides: whole seconds, so one more than signed
		for _, x := range all {
			if a := x.send(t); a.status != http.StatusForbidden && a.status != http.StatusBadRequest {
				t.Errorf("%s %.60s after its time: %d %s", x.method, x.url, a.status, a.body)
			}
		}
		if holds(t, put.Key) || holds(t, form.Key) {
			t.Error("something landed")
		}
	})
}

// content are deviations of what is sent.
var content = []deviation{
	{"longer", func(x *shipment) { x.body = append(slices.Clone(x.body), '!') }},
	{"shorter", func(x *shipment) { x.body = x.body[:len(x.body)-1] }},
	{"empty", func(x *shipment) { x.body = nil }},
}

// refuses fails where the store takes a request that deviates.
func refuses(t *testing.T, s signed, body []byte, all []deviation) {
	t.Helper()
	for _, d := range all {
		x := s.ship(slices.Clone(body))
		d.change(x)
		if a := x.send(t); a.status < 400 || a.status >= 500 {
			t.Errorf("%s: the store answers %d: %s", d.name, a.status, a.body)
		}
	}
}

func testFormDeviations(t *testing.T, alice presigner) {
	five := []byte("five!")
	s := alice.ask(t, http.MethodPost, "/v1/uploads/form", `{"contentType": "text/plain", "size": 5, "checksumSha256": "`+sumOf(five)+`"}`)
	all := slices.Concat(content, []deviation{
		{"another key", func(x *shipment) { x.field("key", strings.Replace(s.Key, "alice", "bob", 1)) }},
		{"a file's name in the key", func(x *shipment) { x.field("key", "users/alice/uploads/${filename}") }},
		{"another bucket", func(x *shipment) { x.url = strings.Replace(x.url, "/"+bucket+"/", "/other-bucket/", 1) }},
		{"other content", func(x *shipment) { x.body = []byte("evil!") }},
		{"other content and its checksum", func(x *shipment) { x.body = []byte("evil!"); x.field("x-amz-checksum-sha256", sumOf(x.body)) }},
		{"a redirect", func(x *shipment) { x.field("success_action_redirect", "https://example.com/") }},
		{"an access control list", func(x *shipment) { x.field("acl", "public-read") }},
		{"metadata", func(x *shipment) { x.field("x-amz-meta-evil", "1") }},
		{"tags", func(x *shipment) { x.field("tagging", "<Tagging/>") }},
		{"a storage class", func(x *shipment) { x.field("x-amz-storage-class", "GLACIER") }},
		{"a disposition", func(x *shipment) { x.field("Content-Disposition", "inline") }},
		{"a PUT", func(x *shipment) { x.method = http.MethodPut }},
	})
	for name := range s.Fields {
		all = append(all,
			deviation{"without " + name, func(x *shipment) { x.field(name, "") }},
			deviation{"another " + name, func(x *shipment) { x.field(name, s.Fields[name]+"x") }})
	}
	refuses(t, s, five, all)
	if holds(t, s.Key) || holds(t, strings.Replace(s.Key, "alice", "bob", 1)) {
		t.Fatal("something landed")
	}
	if a := s.ship(five).send(t); a.status/100 != 2 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	alice.confirmed(t, s, five)
	// Without a size the policy's max_bytes bounds the file.
	open := alice.ask(t, http.MethodPost, "/v1/uploads/form", `{"contentType": "text/plain"}`)
	refuses(t, open, bytes.Repeat([]byte{'x'}, 25<<20), []deviation{{"too large", func(x *shipment) { x.body = append(x.body, '!') }}})
}

// TestIdempotentRetries: the same request with the same key has the same answer,
// byte for byte; another request with it is refused; and one user's key is
// nothing to another.
func TestIdempotentRetries(t *testing.T) {
	g := startGateway(t, setup{policy: presignPolicy})
	alice, bob := presigner{g.url, token(t, "alice")}, presigner{g.url, token(t, "bob")}
	for _, c := range []struct{ path, body, other string }{
		{"/v1/uploads/presign", `{"contentType": "text/plain", "size": 5}`, `{"contentType": "text/plain", "size": 6}`},
		{"/v1/uploads/form", `{"contentType": "text/plain", "size": 5}`, `{"contentType": "image/png", "size": 5}`},
		{"/v1/uploads/counted", `{"contentType": "text/plain", "size": 5}`, `{"contentType": "text/plain", "size": 6}`},
		{"/v1/multipart", `{"contentType": "text/plain", "size": 5}`, `{"contentType": "text/plain", "size": 6}`},
	} {
		first := alice.idempotent(t, "retry", c.path, c.body).want(t, http.StatusOK)
		for range 5 { // more often than the quota counts
			again := alice.idempotent(t, "retry", c.path, c.body).want(t, http.StatusOK)
			if !sameAnswer(first.body, again.body) {
				t.Errorf("%s: first %s\nthen  %s", c.path, first.body, again.body)
			}
		}
		alice.idempotent(t, "retry", c.path, c.other).problem(t, http.StatusUnprocessableEntity, "idempotency_key")
		var mine, hers signed
		bob.idempotent(t, "retry", c.path, c.body).want(t, http.StatusOK).decode(t, &mine)
		first.decode(t, &hers)
		if mine.Session == hers.Session || mine.Key == hers.Key {
			t.Errorf("%s: bob got alice's session", c.path)
		}
		if c.path == "/v1/multipart" {
			if open := openUploads(t, hers.Key); len(open) != 1 {
				t.Errorf("the store has %d uploads of one session", len(open))
			}
		}
	}
	for _, key := range []string{"", `a" b`, strings.Repeat("x", 256), "ü"} {
		alice.idempotent(t, key, "/v1/uploads/presign", `{"contentType": "text/plain", "size": 5}`).problem(t, http.StatusBadRequest, "bad_request")
	}
}

// sameAnswer compares two answers but for expiresSeconds, which runs down.
func sameAnswer(a, b []byte) bool {
	var x, y map[string]any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	delete(x, "expiresSeconds")
	delete(y, "expiresSeconds")
	xs, _ := json.Marshal(x)
	ys, _ := json.Marshal(y)
	return bytes.Equal(xs, ys)
}
