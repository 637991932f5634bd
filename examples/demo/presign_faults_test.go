package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// storeFaults are the ways in which a store fails the gateway.
var storeFaults = map[string]fault{
	"403":  {status: http.StatusForbidden},
	"404":  {status: http.StatusNotFound}, // with an error that the gateway knows nothing of
	"500":  {status: http.StatusInternalServerError},
	"503":  {status: http.StatusServiceUnavailable},
	"down": {down: true},
	"lost": {lost: true},
}

// TestStoreFails has every call that the gateway makes to the store go wrong in
// every way: the caller is told 503 and nothing else, the session stays what it
// is, and the same request works once the store does.
func TestStoreFails(t *testing.T) {
	for name, f := range storeFaults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newStoreProxy(t)
			g := startGateway(t, setup{policy: presignPolicy}.behind(p))
			faulty{t, p, presigner{g.url, token(t, "alice")}, f}.all(rand.Text())
			g.kill()
			onRecord(t, g.dir)
			if log := g.log.String(); strings.Contains(log, "X-Amz-Signature") || strings.Contains(log, lab.store.secretKey) {
				t.Error("the log holds a signed URL, or a secret")
			}
		})
	}
}

type faulty struct {
	t     *testing.T
	store *storeProxy
	presigner
	fault fault
}

// during has the call go wrong for as long as f runs.
func (f faulty) during(op string, do func()) {
	f.t.Helper()
	reached := 0
	f.store.fails(func(c storeCall) fault {
		if c.op != op || c.signed {
			return fault{}
		}
		reached++
		return f.fault
	})
	do()
	f.store.fails(nil)
	if reached == 0 {
		f.t.Errorf("%s was not asked", op)
	}
}

// unavailable fails unless the answer is a 503 that says when to come again.
func (f faulty) unavailable(what string, a answer) {
	f.t.Helper()
	if a.status != http.StatusServiceUnavailable {
		f.t.Errorf("%s: %d %s", what, a.status, a.body)
		return
	}
	a.problem(f.t, http.StatusServiceUnavailable, "unavailable")
	if a.header.Get("Retry-After") == "" {
		f.t.Errorf("%s: 503 without Retry-After", what)
	}
}

func (f faulty) is(session, want string) {
	f.t.Helper()
	if status, reason := f.state(f.t, session); status != want {
		f.t.Errorf("session is %s (%s), want %s", status, reason, want)
	}
}

// all is everything that asks the store; the Idempotency-Key is one that no
// other gateway has seen, since they share the store.
func (f faulty) all(key string) {
	t := f.t
	five := []byte("five!")
	const ask5 = `{"contentType": "text/plain", "size": 5}`

	put := f.ask(t, http.MethodPost, "/v1/uploads/presign", ask5)
	put.ship(five).send(t).want(t, http.StatusOK)
	if f.fault.status != http.StatusNotFound { // to HEAD a 404 is a 404
		f.during("HeadObject", func() { f.unavailable("confirm", f.confirm(t, put.Session)) })
		f.is(put.Session, "issued")
	}
	f.confirmed(t, put, five)

	begun := f.begin(t, 5)
	list := sent(t, f.parts(t, begun.Session, 5), five)
	parts := "/v1/multipart/" + begun.Session + "/parts"
	f.during("ListParts", func() {
		f.unavailable("list parts", ask(t, http.MethodGet, f.url+parts, f.token, ""))
		f.unavailable("complete", f.complete(t, begun.Session, list))
	})
	f.is(begun.Session, "uploading")
	f.during("CompleteMultipartUpload", func() { f.unavailable("complete", f.complete(t, begun.Session, list)) })
	f.is(begun.Session, "uploading")
	if f.fault.status != http.StatusNotFound {
		f.during("HeadObject", func() { f.unavailable("look at what was completed", f.complete(t, begun.Session, list)) })
	}
	f.complete(t, begun.Session, list).want(t, http.StatusOK)
	f.confirmed(t, begun, five)

	var gone signed
	f.during("CreateMultipartUpload", func() { f.unavailable("begin", f.idempotent(t, key, "/v1/multipart", ask5)) })
	f.idempotent(t, key, "/v1/multipart", ask5).want(t, http.StatusOK).decode(t, &gone)
	f.is(gone.Session, "uploading")
	sent(t, f.parts(t, gone.Session, 5), five)
	abort := f.url + "/v1/multipart/" + gone.Session
	f.during("AbortMultipartUpload", func() { f.unavailable("abort", ask(t, http.MethodDelete, abort, f.token, "")) })
	ask(t, http.MethodDelete, abort, f.token, "").want(t, http.StatusNoContent)
	f.is(gone.Session, "aborted")
	for _, s := range []signed{begun, gone} {
		if open := openUploads(t, s.Key); len(open) != 0 {
			t.Errorf("%d multipart uploads of an ended session are left at the store", len(open))
		}
	}

	file := f.url + "/v1/files/" + put.Key
	f.during("DeleteObject", func() { f.unavailable("delete", ask(t, http.MethodDelete, file, f.token, "")) })
	ask(t, http.MethodDelete, file, f.token, "").want(t, http.StatusNoContent)
	if holds(t, put.Key) {
		t.Error("the object is still there")
	}
	f.during("ListObjects", func() { f.unavailable("list", ask(t, http.MethodGet, f.url+"/v1/files", f.token, "")) })
	ask(t, http.MethodGet, f.url+"/v1/files", f.token, "").want(t, http.StatusOK)

	// Signing asks the store nothing.
	f.store.fails(func(storeCall) fault { return fault{down: true} })
	f.ask(t, http.MethodPost, "/v1/uploads/presign", ask5)
	f.ask(t, http.MethodPost, "/v1/uploads/form", ask5)
	f.ask(t, http.MethodGet, "/v1/files/"+begun.Key+"/download", "")
}

// TestStoreSlow: who does not wait for a slow store leaves nothing half done,
// and a look at an object has an end.
func TestStoreSlow(t *testing.T) {
	p := newStoreProxy(t)
	g := startGateway(t, setup{policy: presignPolicy}.behind(p))
	alice := presigner{g.url, token(t, "alice")}
	f := faulty{t, p, alice, fault{held: true}}
	five := []byte("five!")
	put := alice.ask(t, http.MethodPost, "/v1/uploads/presign", `{"contentType": "text/plain", "size": 5}`)
	put.ship(five).send(t).want(t, http.StatusOK)
	begun := alice.begin(t, 5)
	list := sent(t, alice.parts(t, begun.Session, 5), five)
	gone := alice.begin(t, 5)

	f.impatient("HeadObject", http.MethodPost, "/v1/uploads/"+put.Session+"/confirm", "")
	f.is(put.Session, "issued")
	f.impatient("ListParts", http.MethodPost, "/v1/multipart/"+begun.Session+"/complete", list)
	f.impatient("CompleteMultipartUpload", http.MethodPost, "/v1/multipart/"+begun.Session+"/complete", list)
	f.is(begun.Session, "uploading")
	f.impatient("AbortMultipartUpload", http.MethodDelete, "/v1/multipart/"+gone.Session, "")
	f.impatient("ListObjects", http.MethodGet, "/v1/files", "")
	f.during("HeadObject", func() { f.unavailable("confirm", alice.confirm(t, put.Session)) })

	alice.confirmed(t, put, five)
	alice.complete(t, begun.Session, list).want(t, http.StatusOK)
	ask(t, http.MethodDelete, g.url+"/v1/multipart/"+gone.Session, alice.token, "").want(t, http.StatusNoContent)
	if open := append(openUploads(t, begun.Key), openUploads(t, gone.Key)...); len(open) != 0 {
		t.Errorf("%d multipart uploads are left at the store", len(open))
	}
}

// impatient leaves as soon as the store is asked.
func (f faulty) impatient(op, method, path, body string) {
	f.t.Helper()
	ctx, leave := context.WithCancel(f.t.Context())
	f.store.fails(func(c storeCall) fault {
		if c.op != op {
			return fault{}
		}
		leave()
		return f.fault
	})
	defer f.store.fails(nil)
	r, err := http.NewRequestWithContext(ctx, method, f.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		f.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+f.token)
	r.Header.Set("Content-Type", "application/json")
	if response, err := http.DefaultClient.Do(r); err == nil {
		response.Body.Close()
		f.t.Errorf("%s: answered %d though the store was held", op, response.StatusCode)
	}
	if ctx.Err() == nil {
		f.t.Errorf("%s was not asked", op)
	}
}

// TestKilledAtStore kills the gateway while the store is asked, before and after
// it has done what it was asked. After a restart the same request ends as if
// nothing had been, and nothing is left at the store.
func TestKilledAtStore(t *testing.T) {
	for _, op := range []string{"CreateMultipartUpload", "ListParts", "CompleteMultipartUpload", "HeadObject", "AbortMultipartUpload"} {
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, done: %t", op, done), func(t *testing.T) {
				t.Parallel()
				p := newStoreProxy(t)
				s := setup{policy: presignPolicy, dir: t.TempDir()}.behind(p)
				k := killable{t: t, key: rand.Text(), store: p, gateway: startGateway(t, s), token: token(t, "alice")}
				k.at(op, done)
				k.gateway = startGateway(t, s)
				k.after(op)
				k.gateway.kill()
				onRecord(t, s.dir)
			})
		}
	}
}

type killable struct {
	t       *testing.T
	store   *storeProxy
	gateway *gateway
	token   string
	key     string // the Idempotency-Key

	session signed
	list    string // what to complete with
}

const askFive = `{"contentType": "text/plain", "size": 5}`

func (k *killable) presigner() presigner { return presigner{k.gateway.url, k.token} }

// at brings an upload in parts to where the call is made, and kills the gateway
// there.
func (k *killable) at(op string, done bool) {
	k.t.Helper()
	p := k.presigner()
	begin := func() answer { return p.idempotent(k.t, k.key, "/v1/multipart", askFive) }
	if op != "CreateMultipartUpload" {
		begin().want(k.t, http.StatusOK).decode(k.t, &k.session)
		k.list = sent(k.t, p.parts(k.t, k.session.Session, 5), []byte("five!"))
	}
	k.store.fails(func(c storeCall) fault {
		if c.op != op || c.signed {
			return fault{}
		}
		if !done {
			k.gateway.kill()
			return fault{down: true}
		}
		return fault{lost: true, before: k.gateway.kill}
	})
	method, path, body := http.MethodPost, "/v1/multipart/"+k.session.Session+"/complete", k.list
	switch op {
	case "CreateMultipartUpload":
		path, body = "/v1/multipart", askFive
	case "AbortMultipartUpload":
		method, path, body = http.MethodDelete, "/v1/multipart/"+k.session.Session, ""
	}
	r, err := http.NewRequestWithContext(k.t.Context(), method, p.url+path, strings.NewReader(body))
	if err != nil {
		k.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+k.token)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", `"`+k.key+`"`)
	if response, err := http.DefaultClient.Do(r); err == nil {
		response.Body.Close()
		k.t.Fatalf("answered %d by a gateway that was killed", response.StatusCode)
	}
	select {
	case <-k.gateway.ended:
	case <-time.After(30 * time.Second):
		k.t.Fatalf("%s was not asked", op)
	}
	k.store.fails(nil)
}

// after does the same again.
func (k *killable) after(op string) {
	k.t.Helper()
	p := k.presigner()
	var again signed
	p.idempotent(k.t, k.key, "/v1/multipart", askFive).want(k.t, http.StatusOK).decode(k.t, &again)
	if k.session.Session != "" && (again.Session != k.session.Session || again.Key != k.session.Key) {
		k.t.Errorf("begun again: session %s, want %s", again.Session, k.session.Session)
	}
	want := "ready"
	switch op {
	default:
		p.complete(k.t, again.Session, k.list).want(k.t, http.StatusOK)
		p.confirmed(k.t, again, []byte("five!"))
	case "CreateMultipartUpload", "AbortMultipartUpload":
		want = "aborted" // with what nobody knew of
		ask(k.t, http.MethodDelete, p.url+"/v1/multipart/"+again.Session, k.token, "").want(k.t, http.StatusNoContent)
	}
	if status, reason := p.state(k.t, again.Session); status != want {
		k.t.Errorf("session is %s (%s), want %s", status, reason, want)
	}
	if open := openUploads(k.t, again.Key); len(open) != 0 {
		k.t.Errorf("%d multipart uploads of an ended session are left at the store", len(open))
	}
}
