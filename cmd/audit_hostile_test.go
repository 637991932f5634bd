package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"sidegate/storage/audit"
)

// everywhere sets every string, every key and every part that v has, so that a
// field which is added later is held to the same.
func everywhere(v reflect.Value, s string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Interface:
		v.Set(reflect.ValueOf(s))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		everywhere(v.Elem(), s)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		everywhere(v.Index(0), s)
	case reflect.Map:
		key, x := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		everywhere(key, s)
		everywhere(x, s)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, x)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(auditNoon))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).Tag.Get("json") != "-" { // no line gives that back
				everywhere(v.Field(i), s)
			}
		}
	}
}

// TestTailSteersNoTerminal: whatever stands in whichever field of an event, tail
// shows one line of it that is text.
func TestTailSteersNoTerminal(t *testing.T) {
	for _, s := range []string{
		"\x1b[2J\x1b]0;title\x07", "\x9b31m", "\u009b31m", "a\r\nb\n", "\u202e\u2066", "\u2028\u2029\ufeff\u200b", "\x00\x7f\b", "\xff\xfe", "\U000e0001",
		"\x1b]8;;http://x\x1b\\x", `{"a":"\u001b"}`, strings.Repeat("\x1b[31m", 20_000),
	} {
		whole := new(audit.Event)
		everywhere(reflect.ValueOf(whole).Elem(), s)
		var parts []*audit.Event // tail shows one part where there are many
		for i := range reflect.TypeFor[audit.Event]().NumField() {
			if v := reflect.ValueOf(whole).Elem().Field(i); v.Kind() == reflect.Pointer {
				one := &audit.Event{Type: s, Record: s, Time: auditNoon}
				reflect.ValueOf(one).Elem().Field(i).Set(v)
				parts = append(parts, one)
			}
		}
		withoutSummary := *whole
		withoutSummary.Summary = nil
		dir := t.TempDir()
		l, err := audit.Open(audit.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		events := append(parts, whole, &withoutSummary)
		for _, e := range events {
			checkShown(t, s, describe(e))
			if _, err := l.Append(e); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		for _, flag := range []string{"--json=false", "--json"} {
			shown, err := runAudit(t.Context(), "tail", "--dir", dir, "-n", "100", flag)
			lines := strings.Split(strings.TrimSuffix(shown, "\n"), "\n")
			if err != nil || len(lines) != len(events) {
				t.Fatalf("%.20q: %d lines of %d events, %v", s, len(lines), len(events), err)
			}
			for _, line := range lines {
				checkShown(t, s, line)
			}
		}
	}
}

func checkShown(t *testing.T, s, line string) {
	t.Helper()
	for i, r := range line {
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) {
			t.Fatalf("%.20q: %q is shown, at byte %d of %.200q", s, r, i, line)
		}
	}
	if !utf8.ValidString(line) {
		t.Fatalf("%.20q: %.200q is no text", s, line)
	}
}

// TestTamperedLinesSteerNoTerminal: who can write the folder can put there what
// no ledger writes.
func TestTamperedLinesSteerNoTerminal(t *testing.T) {
	dir := auditFolder(t)
	name := filepath.Join(dir, "00000000000000000001.jsonl")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"\x1b[2J", "\u009b2J", "\x7f", "\xff", "\r"} {
		if err := os.WriteFile(name, bytes.Replace(data, []byte("users/u2"), []byte(s), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"tail"}, {"tail", "--json"}, {"query", "--json"}, {"query"}} {
			shown, err := runAudit(t.Context(), append(args, "--dir", dir)...)
			if strings.Contains(shown, s) {
				t.Errorf("%q shows %q: %q", args, s, shown)
			}
			if len(args) == 2 && err == nil {
				t.Errorf("%q does not say that %q is in the log", args, s)
			}
		}
	}
	stub := audit.Line{Stub: true, Chain: "c\x1b\"\x07", Seq: 7}
	var b bytes.Buffer
	if err := showLine(&b, &stub, true); err != nil || !json.Valid(b.Bytes()) {
		t.Errorf("a stub is %s, %v", b.Bytes(), err)
	}
}

// TestErrorsSteerNoTerminal: a folder that somebody else can write says what
// ends the command.
func TestErrorsSteerNoTerminal(t *testing.T) {
	dir := auditFolder(t)
	plan := `{"evidence": "damaged-\u001b[2J\u202e", "files": ["x"], "new_chain": "c"}`
	if err := os.WriteFile(filepath.Join(dir, "repair.json"), []byte(plan), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	err := Run(t.Context(), []string{"audit", "repair", "--dir", dir}, nil, &out, &errs)
	if err == nil || !strings.Contains(errs.String(), `damaged-\u001b[2J\u202e`) || strings.ContainsAny(errs.String(), "\x1b\u202e") {
		t.Errorf("%q, %v", errs.String(), err)
	}
	if got := steerless("a\tb\n\xffä\u2028\ufffd \x7f"); got != "a\tb\n"+`\xffä\u2028`+"\ufffd "+`\u007f` {
		t.Errorf("%q", got)
	}
}

// TestHugeHeadersAreOneLine: where headers may be as large as they can be, a
// value of a megabyte that JSON cannot hold as it is leaves one bounded line,
// which says what was cut.
func TestHugeHeadersAreOneLine(t *testing.T) {
	up := httptest.NewServer(http.NotFoundHandler())
	defer up.Close()
	g := startGateway(t, up.URL, newIssuer(t), "", "listen:max_header_bytes: 1MiB")
	huge := strings.Repeat("\xff\x80{\"a\":", 120_000)
	names := strings.Repeat("&"+strings.Repeat("n", 60)+"%1b=1", 100)
	conn, r := connect(t, g.url)
	fmt.Fprintf(conn, "GET /lost?%s HTTP/1.1\r\nHost: a\r\nUser-Agent: %s\r\nConnection: close\r\n\r\n", names, huge)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 404 {
		t.Fatal(res, err)
	}
	if err := g.stop(); err != nil {
		t.Fatal(err)
	}
	found := 0
	for l, err := range audit.Lines(filepath.Join(g.dir, "data", "audit")) {
		if err != nil || !json.Valid(l.Raw) || len(l.Raw) > 64<<10 {
			t.Fatalf("%d bytes, %v", len(l.Raw), err)
		}
		e, err := l.Event()
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != audit.TypeDecision || e.Request.Path != "/lost" {
			continue
		}
		found++
		if e.Request.UserAgent != huge[:len(e.Request.UserAgent)] || len(e.Request.UserAgent) < 500 || !slices.Contains(e.Cut, "request.user_agent") {
			t.Errorf("%d bytes, cut %q: %.80q", len(e.Request.UserAgent), e.Cut, e.Request.UserAgent)
		}
		if len(e.Request.QueryKeys) == 0 || len(e.Request.QueryKeys) > 32 {
			t.Errorf("%d names", len(e.Request.QueryKeys))
		}
	}
	if found != 1 {
		t.Errorf("%d decisions", found)
	}
}
