package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// sessionsSection keeps upload sessions in a collection of one test's own.
func sessionsSection(collection string) string {
	return fmt.Sprintf("storage: {firestore: {project: %s, collection: %s}}\n", project, collection)
}

// A storedSession is what Firestore holds of an upload.
type storedSession struct {
	Fields struct {
		Status  struct{ StringValue string }
		Changes struct{ IntegerValue string }
	}
}

// readSession reads one past all gateways.
func readSession(t *testing.T, host, collection, id string) (status, changes string) {
	t.Helper()
	var s storedSession
	address := "http://" + host + "/v1/projects/" + project + "/databases/(default)/documents/" + collection + "/" + url.PathEscape(id)
	if err := json.Unmarshal(ask(t, http.MethodGet, address, "owner", "").want(t, http.StatusOK).body, &s); err != nil {
		t.Fatal(err)
	}
	return s.Fields.Status.StringValue, s.Fields.Changes.IntegerValue
}

// TestTwoGatewaysOneFirestore: whatever two gateways are asked at once, one of
// them does it, and both say the same.
func TestTwoGatewaysOneFirestore(t *testing.T) {
	host, collection := sharedFirestore(t), "sessions"+rand.Text()
	s := setup{config: demoFile(t, "sidegate.yaml") + sessionsSection(collection), policy: presignPolicy}
	s.flags, s.env = emulated(host)
	alice, bob := token(t, "alice"), token(t, "bob")
	both := []presigner{{startGateway(t, s).url, alice}, {startGateway(t, s).url, alice}}
	five := []byte("five!")

	t.Run("presign with one key", func(t *testing.T) {
		key := rand.Text()
		answers := together(both, func(p presigner, _ int) answer { return p.idempotent(t, key, "/v1/uploads/presign", askFive) })
		for _, a := range answers {
			if a.want(t, http.StatusOK); !sameAnswer(a.body, answers[0].body) {
				t.Errorf("%s\nand %s", a.body, answers[0].body)
			}
		}
	})
	t.Run("confirm", func(t *testing.T) {
		s := both[0].ask(t, http.MethodPost, "/v1/uploads/presign", askFive)
		s.ship(five).send(t).want(t, http.StatusOK)
		answers := together(both, func(p presigner, _ int) answer { return p.confirm(t, s.Session) })
		allSame(t, answers)
		if status, changes := readSession(t, host, collection, s.Session); status != "ready" || changes != "1" {
			t.Errorf("stored as %s after %s changes, want one", status, changes)
		}
	})
	t.Run("begin with one key, and complete", func(t *testing.T) {
		key := rand.Text()
		answers := together(both, func(p presigner, _ int) answer { return p.idempotent(t, key, "/v1/multipart", askFive) })
		allSame(t, answers)
		var begun signed
		answers[0].decode(t, &begun)
		if open := openUploads(t, begun.Key); len(open) != 1 {
			t.Errorf("%d multipart uploads are open, want one", len(open))
		}
		list := sent(t, both[1].parts(t, begun.Session, 5), five)
		// While one completes it, others cannot tell.
		allSame(t, together(both, func(p presigner, _ int) answer {
			return persist(func() answer { return p.complete(t, begun.Session, list) })
		}))
		if status, reason := both[0].state(t, begun.Session); status != "ready" {
			t.Errorf("stored as %s (%s)", status, reason)
		}
	})
	t.Run("complete or abort", func(t *testing.T) {
		for range 5 {
			begun := both[0].begin(t, 5)
			list := sent(t, both[0].parts(t, begun.Session, 5), five)
			answers := together(both, func(p presigner, n int) answer {
				if n%4 < 2 {
					return p.complete(t, begun.Session, list)
				}
				return ask(t, http.MethodDelete, p.url+"/v1/multipart/"+begun.Session, p.token, "")
			})
			status, reason := both[0].state(t, begun.Session)
			there, open := holds(t, begun.Key), openUploads(t, begun.Key)
			// uploading: whoever is left was told to come again; failed: one who
			// completed saw what one who aborted had done
			if there != (status == "ready") && status != "uploading" || len(open) != 0 {
				t.Errorf("the session is %s (%s), the object is there: %t, open: %v", status, reason, there, open)
			}
			for n, a := range answers {
				done := a.status == http.StatusOK || a.status == http.StatusNoContent
				if should := status == map[bool]string{true: "ready", false: "aborted"}[n%4 < 2]; done != should && a.status != http.StatusServiceUnavailable {
					t.Errorf("the session is %s, and answer %d is %d %s", status, n, a.status, a.body)
				}
			}
		}
	})
	t.Run("quota", func(t *testing.T) {
		hers := []presigner{{both[0].url, bob}, {both[1].url, bob}}
		granted := 0
		for _, a := range together(hers, func(p presigner, _ int) answer {
			return ask(t, http.MethodPost, p.url+"/v1/uploads/counted", p.token, askFive)
		}) {
			switch a.status {
			case http.StatusOK:
				granted++
			case http.StatusServiceUnavailable: // too many at one account
			default:
				a.problem(t, http.StatusTooManyRequests, "quota")
			}
		}
		for granted < 3 { // those who were told to come again
			ask(t, http.MethodPost, both[0].url+"/v1/uploads/counted", bob, askFive).want(t, http.StatusOK)
			granted++
		}
		ask(t, http.MethodPost, both[1].url+"/v1/uploads/counted", bob, askFive).problem(t, http.StatusTooManyRequests, "quota")
		if granted != 3 {
			t.Errorf("%d uploads were granted, want 3", granted)
		}
	})
}

// together asks the gateways by turns, all at once.
func together(gateways []presigner, do func(p presigner, n int) answer) []answer {
	answers := make([]answer, 16)
	var all sync.WaitGroup
	for n := range answers {
		all.Go(func() { answers[n] = do(gateways[n%len(gateways)], n) })
	}
	all.Wait()
	return answers
}

// persist asks again for as long as the answer is that it cannot be told now.
func persist(asks func() answer) answer {
	for deadline := time.Now().Add(30 * time.Second); ; {
		if a := asks(); a.status != http.StatusServiceUnavailable || time.Now().After(deadline) {
			return a
		}
	}
}

func allSame(t *testing.T, answers []answer) {
	t.Helper()
	for _, a := range answers {
		if a.want(t, http.StatusOK); !bytes.Equal(a.body, answers[0].body) {
			t.Errorf("%s\nand %s", a.body, answers[0].body)
		}
	}
}

// TestSessionsOutage cuts the gateway off from Firestore before and after an
// upload is signed, and while it answers. Nothing is signed then, nothing is
// taken back that was, and the same request has one result once Firestore is
// back, however often it was sent.
func TestSessionsOutage(t *testing.T) {
	host, collection := sharedFirestore(t), "sessions"+rand.Text()
	way := newLink(t, host)
	s := setup{
		dir: t.TempDir(), config: demoFile(t, "sidegate.yaml") + sessionsSection(collection),
		policy: strings.Replace(presignPolicy, "objects: 3", fmt.Sprint("objects: ", brokenLinks), 1),
	}
	s.flags, s.env = emulated(way.address)
	g := startGateway(t, s)
	alice := presigner{g.url, token(t, "alice")}
	f := faulty{t: t, presigner: alice}
	five, key := []byte("five!"), rand.Text()
	nothing := func(what string, a answer) {
		t.Helper()
		f.unavailable(what, a)
		if bytes.Contains(a.body, []byte("X-Amz")) || bytes.Contains(a.body, []byte("postUrl")) {
			t.Errorf("%s: signed without a session: %s", what, a.body)
		}
	}

	put := alice.ask(t, http.MethodPost, "/v1/uploads/presign", askFive)
	begun := alice.begin(t, 5)
	way.cut()
	// The store knows nothing of it, and takes what is signed already.
	put.ship(five).send(t).want(t, http.StatusOK)
	var all sync.WaitGroup // each waits a while for Firestore
	for _, path := range []string{"/v1/uploads/presign", "/v1/uploads/form", "/v1/uploads/counted", "/v1/multipart"} {
		all.Go(func() { nothing(path, alice.idempotent(t, "before"+key, path, askFive)) })
	}
	for path, method := range map[string]string{
		"/v1/multipart/" + begun.Session + "/parts": http.MethodGet,
		"/v1/multipart/" + begun.Session:            http.MethodDelete,
		"/v1/uploads/" + put.Session:                http.MethodGet,
		"/v1/uploads/" + put.Session + "/confirm":   http.MethodPost,
		"/v1/uploads": http.MethodGet,
	} {
		all.Go(func() { nothing(path, ask(t, method, g.url+path, alice.token, "")) })
	}
	all.Go(func() {
		nothing("sign parts", ask(t, http.MethodPost, g.url+"/v1/multipart/"+begun.Session+"/parts", alice.token, `{"parts": [{"partNumber": 1, "size": 5}]}`))
	})
	alice.ask(t, http.MethodGet, "/v1/files/users/alice/x/download", "") // which has no session
	all.Wait()
	way.mend(t)
	persist(func() answer { return ask(t, http.MethodGet, g.url+"/v1/uploads/"+put.Session, alice.token, "") })
	f.is(begun.Session, "uploading")
	alice.confirmed(t, put, five)
	alice.idempotent(t, "before"+key, "/v1/uploads/presign", askFive).want(t, http.StatusOK)

	// Stored, and its answer lost.
	stored := len(documents(t, host, collection))
	way.hold(answering)
	answered := make(chan answer, 1)
	go func() { answered <- alice.idempotent(t, "lost"+key, "/v1/uploads/presign", askFive) }()
	awaitDocuments(t, host, collection, stored+1)
	way.reset()
	way.release()
	if a := <-answered; a.status != http.StatusOK {
		f.unavailable("presign", a)
	}
	first := persist(func() answer { return alice.idempotent(t, "lost"+key, "/v1/uploads/presign", askFive) }).want(t, http.StatusOK)
	if again := alice.idempotent(t, "lost"+key, "/v1/uploads/presign", askFive); !sameAnswer(first.body, again.body) {
		t.Errorf("%s\nthen %s", first.body, again.body)
	}
	if n := len(documents(t, host, collection)); n != stored+1 {
		t.Errorf("%d sessions came of one request", n-stored)
	}
	testQuotaOnBrokenLink(t, alice, way)

	// The same at the end of an upload in parts.
	list := sent(t, alice.parts(t, begun.Session, 5), five)
	way.hold(answering)
	go func() { answered <- alice.complete(t, begun.Session, list) }()
	way.reset()
	way.release()
	<-answered
	persist(func() answer { return alice.complete(t, begun.Session, list) }).want(t, http.StatusOK)
	alice.confirmed(t, begun, five)
	g.kill()
	decisions, _ := onRecord(t, g.dir)
	for _, d := range documents(t, host, collection) {
		if record := d.Fields["record"].StringValue; record != "" && decisions[record].Object.Session != d.ID {
			t.Errorf("session %s says that it was issued by record %s: %+v", d.ID, record, decisions[record])
		}
	}
}

// testQuotaOnBrokenLink begins uploads over a link that breaks after so many
// pieces: before the session is stored, within its transaction, and after.
// Asked again it is counted once.
func testQuotaOnBrokenLink(t *testing.T, p presigner, way *link) {
	t.Helper()
	for n := range brokenLinks {
		key := fmt.Sprint(rand.Text(), n)
		way.resetAfter(n + 1)
		a := p.idempotent(t, key, "/v1/uploads/counted", askFive)
		way.resetAfter(0)
		if a.status != http.StatusOK {
			a.problem(t, http.StatusServiceUnavailable, "unavailable")
		}
		again := persist(func() answer { return p.idempotent(t, key, "/v1/uploads/counted", askFive) }).want(t, http.StatusOK)
		if a.status == http.StatusOK && !sameAnswer(a.body, again.body) {
			t.Errorf("%s\nthen %s", a.body, again.body)
		}
	}
	persist(func() answer { return p.idempotent(t, rand.Text(), "/v1/uploads/counted", askFive) }).problem(t, http.StatusTooManyRequests, "quota")
}

const brokenLinks = 8

// awaitDocuments waits until so many are stored.
func awaitDocuments(t *testing.T, host, collection string, want int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); len(documents(t, host, collection)) < want; {
		if time.Now().After(deadline) {
			t.Fatalf("there are never %d documents", want)
		}
	}
}
