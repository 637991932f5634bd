package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// firestoreSections keeps upload sessions and the audit log in Firestore, and
// makes every decision wait until it is there.
const firestoreSections = `
storage: {firestore: {project: demo-sidegate}}
audit: {survive: machine, firestore: {project: demo-sidegate}}
`

// TestFirestore is the upload's life with sessions and audit log in Firestore,
// and the credentials from AWS's default chain.
func TestFirestore(t *testing.T) {
	host := startFirestore(t)
	g := startGateway(t, setup{
		config: withoutCredentials(t) + firestoreSections,
		flags:  []string{"--insecure-emulator"},
		env:    []string{"FIRESTORE_EMULATOR_HOST=" + host, "GOOGLE_CLOUD_PROJECT=" + project},
	})
	session := uploadLifecycle(t, g.url)

	stored := documents(t, host, "uploadSessions")
	if len(stored) != 1 || stored[0].ID != session {
		t.Fatalf("%d sessions in Firestore: %v; want %s alone", len(stored), stored, session)
	}
	for field, want := range map[string]string{"uid": "alice", "status": "ready", "contentType": "application/pdf"} {
		if got := stored[0].Fields[field].StringValue; got != want {
			t.Errorf("the session's %s is %q, want %q", field, got, want)
		}
	}

	if status := g.stop(t); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
	// Outcomes are shipped, too, though nobody waits for them.
	shipped := lines(t, documents(t, host, "auditLog"))
	written := strings.Split(strings.TrimSpace(ledgerText(t, g.dir)), "\n")
	slices.Sort(shipped)
	slices.Sort(written)
	if decisions := only(shipped, `"type":"decision"`); !slices.Equal(decisions, only(written, `"type":"decision"`)) {
		t.Errorf("Firestore holds %d decisions, the ledger %d, or others", len(decisions), len(only(written, `"type":"decision"`)))
	}
	if len(slices.Compact(slices.Clone(shipped))) != len(shipped) {
		t.Error("Firestore holds an event twice")
	}
	for _, line := range shipped {
		if !slices.Contains(written, line) {
			t.Errorf("Firestore holds what the ledger does not: %s", line)
		}
	}
	sameAnswers(t, g.dir, host)
}

// TestFirestoreRestart kills a gateway that ships to Firestore and starts it
// again: nothing is missing there, and nothing is twice.
func TestFirestoreRestart(t *testing.T) {
	host := startFirestore(t)
	s := setup{
		dir:    t.TempDir(),
		config: demoFile(t, "sidegate.yaml") + "audit: {firestore: {project: demo-sidegate}}\n",
		flags:  []string{"--insecure-emulator"},
		env:    []string{"FIRESTORE_EMULATOR_HOST=" + host, "GOOGLE_CLOUD_PROJECT=" + project},
	}
	alice := token(t, "alice")
	for range 2 {
		g := startGateway(t, s)
		for range 50 {
			ask(t, http.MethodGet, g.url+"/v1/me", alice, "").want(t, http.StatusOK)
		}
		g.kill()
	}
	g := startGateway(t, s)
	if status := g.stop(t); status != 0 {
		t.Errorf("exit status %d after SIGTERM", status)
	}
	shipped := only(lines(t, documents(t, host, "auditLog")), `"type":"decision"`)
	written := only(strings.Split(ledgerText(t, s.dir), "\n"), `"type":"decision"`)
	if len(written) != 100 {
		t.Errorf("the ledger holds %d decisions, want 100", len(written))
	}
	slices.Sort(shipped)
	slices.Sort(written)
	if !slices.Equal(shipped, written) {
		t.Errorf("Firestore holds %d decisions, the ledger %d, or others", len(shipped), len(written))
	}
}

func only(all []string, part string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !strings.Contains(s, part) })
}

func ledgerText(t *testing.T, dir string) string {
	t.Helper()
	var text strings.Builder
	for _, file := range mustGlob(t, filepath.Join(dir, "data", "audit", "*.jsonl")) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(content)
	}
	return text.String()
}

// startFirestore runs Google's emulator from the Cloud SDK, emptied by nobody,
// for one test. Without --rules=FILE among the flags it keeps no client out.
func startFirestore(t *testing.T, flags ...string) string {
	t.Helper()
	c, address := firestoreCommand(t, flags...)
	startComponent(t, c, "http://"+address+"/")
	return address
}

// sharedFirestore is an emulator that runs until all tests have ended. Its
// first use starts it.
func sharedFirestore(t *testing.T) string {
	t.Helper()
	lab.firestore.Lock()
	defer lab.firestore.Unlock()
	if lab.firestore.address == "" {
		c, address := firestoreCommand(t)
		stop, err := launch(c, "http://"+address+"/")
		if err != nil {
			t.Fatal(err)
		}
		lab.firestore.address, lab.firestore.stop = address, stop
	}
	return lab.firestore.address
}

func firestoreCommand(t *testing.T, flags ...string) (c *exec.Cmd, address string) {
	t.Helper()
	jar := firestoreJar(t)
	address = unusedAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	_, websocketPort, err := net.SplitHostPort(unusedAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	// Not through gcloud, which would leave it running.
	return exec.Command("java", append([]string{"-Duser.language=en", "-cp", jar,
		"com.google.cloud.datastore.emulator.firestore.CloudFirestore",
		"--host=" + host, "--port=" + port, "--websocket_port=" + websocketPort}, flags...)...), address
}

func firestoreJar(t *testing.T) string {
	t.Helper()
	const how = "install Google's Cloud SDK with its component cloud-firestore-emulator, and a JRE"
	if _, err := exec.LookPath("java"); err != nil {
		needs(t, "java, for the Firestore emulator,", how)
	}
	gcloud, err := exec.LookPath("gcloud")
	if err != nil {
		needs(t, "the Cloud SDK's gcloud, for the Firestore emulator,", how)
	}
	if gcloud, err = filepath.EvalSymlinks(gcloud); err != nil {
		t.Fatal(err)
	}
	jar := filepath.Join(filepath.Dir(gcloud), "..", "platform", "cloud-firestore-emulator", "cloud-firestore-emulator.jar")
	if _, err := os.Stat(jar); err != nil {
		needs(t, "the Firestore emulator", how)
	}
	return jar
}

// startComponent runs the command until the test ends and returns when the URL
// answers, with what the command prints.
func startComponent(t *testing.T, c *exec.Cmd, url string) *output {
	t.Helper()
	stop, err := launch(c, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return c.Stdout.(*output)
}

// launch starts the command and returns when the URL answers. What it started
// is ended by stop.
func launch(c *exec.Cmd, url string) (stop func(), err error) {
	log := &output{}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Wait()
	}()
	stop = func() {
		c.Process.Signal(os.Interrupt)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			c.Process.Kill()
			<-ended
		}
	}
	for range 4 { // a cold machine takes its time
		if err = waitFor(context.Background(), url, ended); err == nil {
			return stop, nil
		}
		select {
		case <-ended:
			return nil, fmt.Errorf("it ended: %s", log)
		default:
		}
	}
	stop()
	return nil, fmt.Errorf("it does not answer: %w: %s", err, log)
}

// A document is one of Firestore's, by its REST API.
type document struct {
	ID     string
	Name   string
	Fields map[string]struct {
		StringValue string
		BytesValue  []byte
	}
}

// documents are all of the collection.
func documents(t *testing.T, host, collection string) []document {
	t.Helper()
	var all []document
	page := ""
	for {
		address := "http://" + host + "/v1/projects/" + project + "/databases/(default)/documents/" + collection +
			"?pageSize=300&pageToken=" + url.QueryEscape(page)
		var got struct {
			Documents     []document
			NextPageToken string
		}
		// "owner" is the emulator's word for past the rules.
		if err := json.Unmarshal(ask(t, http.MethodGet, address, "owner", "").want(t, http.StatusOK).body, &got); err != nil {
			t.Fatal(err)
		}
		for _, d := range got.Documents {
			d.ID = d.Name[strings.LastIndexByte(d.Name, '/')+1:]
			all = append(all, d)
		}
		if page = got.NextPageToken; page == "" {
			return all
		}
	}
}

// lines are the audit events of the documents, byte for byte.
func lines(t *testing.T, all []document) []string {
	t.Helper()
	var found []string
	for _, d := range all {
		f := d.Fields["line"]
		line := f.StringValue + string(f.BytesValue)
		if line == "" && strings.Contains(d.ID, "-") {
			t.Fatalf("document %s has no line", d.ID)
		}
		if line != "" {
			found = append(found, strings.TrimSuffix(line, "\n"))
		}
	}
	return found
}
