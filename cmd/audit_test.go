package cmd

import (
	"bytes"
	"context"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
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
	if err != nil || !strings.Contains(got, "verified seq 1 ") || !strings.Contains(got, "removed after seq 3, or a chain computed anew, would not show") {
		t.Errorf("%s%v", got, err)
	}
	archive := t.TempDir()
	if _, err := runAudit(t.Context(), "export", "--dir", dir, "-o", filepath.Join(archive, "00000000000000000001.jsonl.gz")); err != nil {
		t.Fatal(err)
	}
	if of, err := runAudit(t.Context(), "verify", "--dir", archive); err != nil || of != got {
		t.Errorf("an export of everything: %s%v", of, err)
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
		{[]string{"verify", "--dir", filepath.Join(t.TempDir(), "none")}, exitFailed, "no such file or directory: give the folder that audit.dir"},
		{[]string{"tail", "--dir", filepath.Join(t.TempDir(), "none")}, exitFailed, "no such file or directory: give the folder that audit.dir"},
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
	if got, want := describe(e), "2026-11-23T12:00:00.000Z deny ×57 ip 2001:db8::/64 a=50 b=7 no_token=57"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	s.Source, e.Request, e.Identity = audit.SourceUID, nil, &audit.Identity{Namespace: "users", UID: "u1"}
	if got, want := describe(e), "2026-11-23T12:00:00.000Z deny ×57 uid users:u1 a=50 b=7 no_token=57"; got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// FuzzMoment: what is read is a time that was, as long as it is an age, and
// everything else is refused with the flag's name.
func FuzzMoment(f *testing.F) {
	for _, s := range []string{"", "7d", "90m", "1h30m", "-1h", "999999d", "1000000d", "2026-03-02T10:00:00+01:00", "2026-03-02", "now", "1e9h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := moment("--since", text, auditNoon)
		if err != nil {
			if !got.IsZero() || !strings.Contains(err.Error(), "--since") || strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("%q: %v, %v", text, got, err)
			}
			return
		}
		if written, err := time.Parse(time.RFC3339, text); err == nil {
			if !got.Equal(written) {
				t.Errorf("%q: %v", text, got)
			}
			return
		}
		if text == "" != got.IsZero() || got.After(auditNoon) {
			t.Errorf("%q: %v", text, got)
		}
	})
}

func TestNetwork(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32", "192.0.2.7/24": "192.0.2.0/24",
		"2001:db8::7": "2001:db8::7/128", "2001:db8::7/32": "2001:db8::/32", "fe80::1%eth0": "fe80::1/128",
		"::ffff:192.0.2.7/120": "192.0.2.0/24", "::ffff:0:0/95": "::fffe:0:0/95",
		"192.0.2.7/33": "", "x": "", "192.0.2.7:80": "",
	} {
		p, err := network(text)
		if (err == nil) != (want != "") || err == nil && p.String() != want {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
}

// TestNewestAreKept: whatever the order in which requests come.
func TestNewestAreKept(t *testing.T) {
	r := newest{n: 3}
	for i := range 100 {
		r.add(audit.Joined{Decision: audit.Line{Time: auditNoon.Add(time.Duration(i*37%100) * time.Second)}})
		if len(r.list) > 2*r.n+16 {
			t.Fatalf("%d are kept", len(r.list))
		}
	}
	r.trim()
	if !r.more || len(r.list) != 3 {
		t.Fatalf("%d, more %v", len(r.list), r.more)
	}
	for i, q := range r.list {
		if want := auditNoon.Add(time.Duration(99-i) * time.Second); !q.Decision.Time.Equal(want) {
			t.Errorf("%d: %v", i, q.Decision.Time)
		}
	}
}

// TestDescribedValueIsOneWord: who may choose a path, a uid or a key does not
// choose the words behind it; and what is shown finds it again.
func TestDescribedValueIsOneWord(t *testing.T) {
	const path = "/a users:alice files/owner entry record=r0"
	e := &audit.Event{Type: audit.TypeDecision, Record: "r1", Time: auditNoon, Request: &audit.Request{Method: "GET", Path: path},
		Identity: &audit.Identity{Name: "users", UID: "u 1"}, Decision: &audit.Decision{Effect: "deny", Status: 404, Code: "no_route"},
		Object: &audit.Object{Bucket: "default", Key: "my cat.jpg"}}
	got := describe(e)
	const want = `2026-11-23T12:00:00.000Z deny 404 GET /a\u0020users:alice\u0020files/owner\u0020entry\u0020record=r0 users:u\u00201 no_route default/my\u0020cat.jpg record=r1`
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if !slices.Contains(audit.Spellings(`u\u00201`), "u 1") {
		t.Error("what is shown is not what query takes")
	}
	e = &audit.Event{Type: audit.TypeSystem, Record: "r1", Time: auditNoon, System: &audit.System{Event: "repair", Detail: map[string]string{"problem": "a torn line"}}}
	if got := describe(e); !strings.Contains(got, "repair problem=a torn line") {
		t.Error(got)
	}
}

// TestTailFollowsACollection: after the last n there comes what is new, also
// what is shipped late, and nothing that was there before.
func TestTailFollowsACollection(t *testing.T) {
	now := time.Now()
	var stored []audit.Line // the oldest first
	store := func(seq uint64, ago time.Duration) {
		at := now.Add(-ago)
		i := slices.IndexFunc(stored, func(l audit.Line) bool { return l.Time.After(at) })
		if i < 0 {
			i = len(stored)
		}
		stored = slices.Insert(stored, i, audit.Line{Chain: "c", Seq: seq, Time: at})
	}
	for seq := range uint64(20) {
		store(seq+1, time.Duration(60-seq)*time.Second)
	}
	for _, n := range []int{0, 3} {
		var shown []uint64
		ctx, cancel := context.WithCancel(t.Context())
		tick := make(chan time.Time, 3)
		rounds := 0
		f := collectionTail{
			seen: map[lineKey]time.Time{}, broken: &broken{w: io.Discard},
			show: func(l *audit.Line) error { shown = append(shown, l.Seq); return nil },
			read: func(_ context.Context, n int, since time.Time) iter.Seq2[audit.Line, error] {
				return func(yield func(audit.Line, error) bool) {
					rounds++
					for _, l := range stored[max(0, len(stored)-n):] {
						if l.Time.After(since) && !yield(l, nil) {
							return
						}
					}
					switch rounds {
					case 2:
						store(21, 30*time.Second) // late
						tick <- now
					case 3:
						store(22, 0)
						tick <- now
					case 4:
						cancel()
					}
				}
			},
		}
		if err := f.follow(ctx, n, tick); err != nil {
			t.Fatal(err)
		}
		want := []uint64{18, 19, 20, 21, 22}[3-n:]
		if !slices.Equal(shown, want) {
			t.Errorf("-n %d -f shows %v, want %v", n, shown, want)
		}
		stored = slices.DeleteFunc(stored, func(l audit.Line) bool { return l.Seq > 20 })
	}
}
