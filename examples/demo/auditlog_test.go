package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
)

// A sharedLog is an audit log in Firestore: a collection of one test's own, in
// the emulator that the tests share.
type sharedLog struct {
	host       string // of the emulator
	collection string
}

var sharedLogs atomic.Int64

func newSharedLog(t *testing.T) sharedLog {
	t.Helper()
	return sharedLog{sharedFirestore(t), fmt.Sprintf("auditLog%d", sharedLogs.Add(1))}
}

// config is the section of sidegate.yaml, with the lowest level of survival.
func (l sharedLog) config(survive string) string {
	return fmt.Sprintf("audit: {survive: %s, firestore: {project: %s, collection: %s}}\n", survive, project, l.collection)
}

// emulated are the flags and variables with which a gateway, or a command that
// reads the log, uses the emulator there.
func emulated(host string) (flags, env []string) {
	return []string{"--insecure-emulator"}, []string{"FIRESTORE_EMULATOR_HOST=" + host, "GOOGLE_CLOUD_PROJECT=" + project}
}

// lines are the events as they are stored, in no order.
func (l sharedLog) lines(t *testing.T) []string {
	t.Helper()
	return lines(t, documents(t, l.host, l.collection))
}

func (l sharedLog) events(t *testing.T) []event {
	t.Helper()
	all := l.lines(t)
	events := make([]event, len(all))
	for i, line := range all {
		if err := json.Unmarshal([]byte(line), &events[i]); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
	}
	return events
}

// audit runs a command of `sidegate audit` on it.
func (l sharedLog) audit(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	flags, env := emulated(l.host)
	args = append(append([]string{"audit"}, args...), "--firestore", "--collection", l.collection)
	return sidegate(t, env, append(args, flags...)...)
}

// verify holds it against `audit verify`, and gives what that printed.
func (l sharedLog) verify(t *testing.T) string {
	t.Helper()
	status, stdout, stderr := l.audit(t, "verify")
	if status != 0 || strings.Contains(stdout, "missing") || !strings.Contains(stdout, "intact") {
		t.Errorf("audit verify --firestore: status %d\n%s%s", status, stdout, stderr)
	}
	return stdout
}

// same fails unless it holds the lines of these folders, each once and byte for
// byte, and no other.
func (l sharedLog) same(t *testing.T, dirs ...string) {
	t.Helper()
	shipped := l.lines(t)
	var written []string
	for _, dir := range dirs {
		written = append(written, strings.Split(strings.TrimSuffix(ledgerText(t, dir), "\n"), "\n")...)
	}
	slices.Sort(shipped)
	slices.Sort(written)
	if !slices.Equal(shipped, written) {
		t.Errorf("Firestore holds %d events, the ledger %d, or others", len(shipped), len(written))
	}
}
