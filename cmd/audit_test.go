package cmd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sidegate/storage/audit"
)

var auditNoon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// auditFolder is a ledger of one request by a user with an ugly uid.
func auditFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	l, err := audit.Open(audit.Options{Dir: dir, Now: func() time.Time { return auditNoon }})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []*audit.Event{
		{Type: audit.TypeSystem, System: &audit.System{Event: "start", Detail: map[string]string{"version": "v1"}}},
		{
			Type: audit.TypeDecision, Record: "r1",
			Request:  &audit.Request{Method: "PUT", Path: "/v1/files/a\nb"},
			Identity: &audit.Identity{Name: "users", UID: "u1\x1b[2J\u202e"},
			Decision: &audit.Decision{Effect: "deny", Status: 403, Route: "files", Rule: "files/owner", Code: "no_entry"},
			Object:   &audit.Object{Bucket: "default", Key: "users/u2/cat.jpg", Size: -1},
		},
		{Type: audit.TypeOutcome, Record: "r1", Outcome: &audit.Outcome{Status: 403, BytesOut: 12, MS: 0.25}},
	} {
		if _, err := l.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func runAudit(ctx context.Context, args ...string) (stdout string, err error) {
	var out, errs bytes.Buffer
	c := newAuditCommand(newEnvironment(nil), &out, &errs)
	c.SilenceErrors, c.SilenceUsage = true, true
	c.SetArgs(args)
	err = c.ExecuteContext(ctx)
	return out.String(), err
}

func TestAuditTail(t *testing.T) {
	dir := auditFolder(t)
	got, err := runAudit(t.Context(), "tail", "--dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	const want = `2026-11-23T12:00:00.000Z system start version=v1
2026-11-23T12:00:00.000Z deny 403 PUT /v1/files/a\u000ab users:u1\u001b[2J\u202e files/owner no_entry default/users/u2/cat.jpg record=r1
2026-11-23T12:00:00.000Z outcome 403 in=0 out=12 ms=0.2 record=r1
`
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
	got, err = runAudit(t.Context(), "tail", "--dir", dir, "-n", "1", "--json")
	if err != nil || strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, `{"type":"outcome"`) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAuditTailFollowsUntilTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, err := runAudit(ctx, "tail", "-f", "--dir", auditFolder(t))
	if err != nil || strings.Count(got, "\n") != 3 {
		t.Errorf("%q, %v", got, err)
	}
}

func TestAuditVerify(t *testing.T) {
	dir := auditFolder(t)
	got, err := runAudit(t.Context(), "verify", "--dir", dir)
	if err != nil || !strings.Contains(got, "verified seq 1 ") || !strings.Contains(got, "removed after seq 3 would not show") {
		t.Errorf("%s%v", got, err)
	}
	name := filepath.Join(dir, "00000000000000000001.jsonl")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.Replace(data, []byte(`"effect":"deny"`), []byte(`"effect":"none"`), 1)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err = runAudit(t.Context(), "verify", "--dir", dir)
	if err == nil || ExitStatus(err) != exitFailed || !strings.Contains(err.Error(), "line 3, byte offset") ||
		!strings.Contains(got, "BROKEN: 00000000000000000001.jsonl: line 3") || strings.Contains(got, "intact") {
		t.Errorf("%s%v", got, err)
	}
}

func TestAuditErrors(t *testing.T) {
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"verify", "--dir", t.TempDir()}, exitFailed, "holds no audit log"},
		{[]string{"verify", "--dir", filepath.Join(t.TempDir(), "none")}, exitFailed, "no such file"},
		{[]string{"tail", "--dir", filepath.Join(t.TempDir(), "none")}, exitFailed, "no such file"},
		{[]string{"tail", "-n", "-1"}, exitUsage, "-n -1"},
		{[]string{"tail", "--firestore"}, exitUsage, "--project"},
	} {
		_, err := runAudit(t.Context(), c.args...)
		if err == nil || ExitStatus(err) != c.status || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v", c.args, err)
		}
	}
}

func TestTailOfSummaries(t *testing.T) {
	s := &audit.Summary{Repeated: 57, Source: audit.SourceIP, From: auditNoon, To: auditNoon, Routes: map[string]int{"b": 7, "a": 50}, Codes: map[string]int{"no_token": 57}}
	e := &audit.Event{Type: audit.TypeDecision, Time: auditNoon, Request: &audit.Request{IP: "2001:db8::/64"}, Decision: &audit.Decision{Effect: "deny"}, Summary: s}
	if got, want := describe(e), "2026-11-23T12:00:00.000Z deny x57 ip 2001:db8::/64 a=50 b=7 no_token=57"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	s.Source, e.Request, e.Identity = audit.SourceUID, nil, &audit.Identity{Namespace: "users", UID: "u1"}
	if got, want := describe(e), "2026-11-23T12:00:00.000Z deny x57 uid users:u1 a=50 b=7 no_token=57"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
