package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sidegate/cmd"
)

// TestMain makes this program what the lab starts: the harness's own servers,
// and sidegate.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || strings.HasPrefix(os.Args[1], "-test.") {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if os.Args[1] == "upstream" || os.Args[1] == "bare" {
		if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(cmd.ExitStatus(cmd.Run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)))
}

// needs skips where a program is missing, which CI's machines have.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := find(name, name); err != nil {
			untested(t, err)
		}
	}
}

// untested skips, but where CI=true, since CI's machines have all that is needed.
func untested(t *testing.T, why error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skipf("SKIPPED, NOT TESTED: %v", why)
}

// openTestLab starts the rows with this program as sidegate.
func openTestLab(t *testing.T, chosen []row) *lab {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: Apache looks into the folder as another user.
	dir, err := os.MkdirTemp("", "peers-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := openLab(t.Context(), options{sidegate: self, dir: dir}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	if err := l.start(t.Context(), chosen); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestEveryRowAnswers starts each row's real proxies and asks them: start fails
// where an answer is not the row's, or a forged token passes.
func TestEveryRowAnswers(t *testing.T) {
	needs(t, "wrk")
	l := openTestLab(t, rows())
	for _, p := range l.running {
		if p.missing == nil {
			if p.idle <= 0 || p.started <= 0 {
				t.Errorf("%s: %d bytes of memory, started in %v", p.id, p.idle, p.started)
			}
			continue
		}
		if _, ours := p.peer.(sidegate); os.Getenv("CI") == "true" && !ours {
			t.Errorf("%s: %v", p.id, p.missing)
		} else {
			t.Logf("SKIPPED, NOT TESTED: %s: %v", p.id, p.missing)
		}
	}
}

// TestARun measures two rows for a moment, and writes what came out into a copy
// of the page. What the figures are does not matter here.
func TestARun(t *testing.T) {
	needs(t, "wrk")
	chosen, err := choose(rows(), "sidegate,sidegate-first,sidegate-denied")
	if err != nil {
		t.Fatal(err)
	}
	l := openTestLab(t, chosen)
	const rounds = 1
	if err := l.measure(t.Context(), rounds, shortest); err != nil {
		t.Fatal(err)
	}
	docs := copyOfPage(t)
	r := l.report(t.Context(), options{rounds: rounds, slice: shortest})
	if err := r.write(docs); err != nil {
		t.Fatal(err)
	}
	for _, x := range r.results {
		if x.cpu.low <= 0 || x.cpu.high < x.cpu.low || x.each <= 0 || x.p50 <= 0 || x.p99 < x.p50 || x.lone99 < x.lone50 || x.loaded <= 0 {
			t.Errorf("%s: %+v", x.id, x)
		}
	}
	if r.rsa.median <= 0 {
		t.Error("no signature was checked")
	}
	if got, want := firstCells(t, docs, "table"), titles(r); got != want {
		t.Errorf("the page has the rows\n%s\nand not\n%s", got, want)
	}
}

// TestFirstSeenIsHeld: tokens that come again while they are remembered are not
// told as tokens that were never seen.
func TestFirstSeenIsHeld(t *testing.T) {
	needs(t, "wrk")
	r := row{id: "bare", kind: reference, peer: bare{}, load: oneToken}
	known := row{id: "sidegate-first", kind: gateway, peer: sidegate{}, load: load{tokens: fresh, status: 200}}
	l := openTestLab(t, []row{r, known})
	err := l.measure(t.Context(), 1, shortest)
	if err == nil || !strings.Contains(err.Error(), "were known") {
		t.Errorf("tokens that were known passed as new: %v", err)
	}
}

// TestForgedTokensMustBeRefused: a proxy that lets everything pass does not
// become a row of those that verify.
func TestForgedTokensMustBeRefused(t *testing.T) {
	needs(t, "wrk")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLab(t.Context(), options{sidegate: self}, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	err = l.start(t.Context(), []row{{id: "open", kind: verifies, peer: bare{}, load: oneToken}})
	if err == nil || !strings.Contains(err.Error(), "another's signature") {
		t.Errorf("a bare proxy counts as one that verifies: %v", err)
	}
	if err := l.close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(l.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary folder is still there: %v", err)
	}
}

func TestBareForwards(t *testing.T) {
	app := httptest.NewServer(upstream())
	defer app.Close()
	target, err := url.Parse(app.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(bareProxy(target))
	defer proxy.Close()
	answer, err := http.Get(proxy.URL + measuredPath)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || len(body) != answerBytes || answer.StatusCode != 200 {
		t.Errorf("%d, %d bytes, %v", answer.StatusCode, len(body), err)
	}
}

// TestTokensAreOfTheSizeThatIsSaid: docs/performance.md says about 1,200 bytes.
func TestTokensAreOfTheSizeThatIsSaid(t *testing.T) {
	k, err := newIssuerKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range []tokenSet{one, reader, forged} {
		tokens, err := k.tokens(set)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(tokens[0]); n < 1100 || n > 1300 {
			t.Errorf("%s: a token of %d bytes", set, n)
		}
	}
}

func TestChoose(t *testing.T) {
	for only, want := range map[string]string{
		"sidegate":          "bare sidegate",
		"bare,sidegate":     "bare sidegate",
		"haproxy*,caddy":    "bare haproxy caddy haproxy-jwt haproxy-jwt-1000",
		"sidegate-nethttp*": "bare sidegate-nethttp sidegate-nethttp-1000",
	} {
		chosen, err := choose(rows(), only)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, r := range chosen {
			ids = append(ids, r.id)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%s: %s", only, got)
		}
	}
	for _, bad := range []string{"envoy", "[", "sidegate,"} {
		if _, err := choose(rows(), bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	other := withOther(rows()[:1], "x")
	if len(other) != 1 {
		t.Error("the bare ReverseProxy is no row of the other program's")
	}
}

// TestCommandLine: what cannot be meant is refused before anything is started.
func TestCommandLine(t *testing.T) {
	for _, args := range [][]string{{"--rounds", "0"}, {"--slice", "500ms"}, {"--slice", "0s"}, {"more"}, {"--only", "envoy"}, {"--docs", ".", "--only", "sidegate"}, {"--what"}} {
		if err := run(t.Context(), args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
	// Without a program these fail in any case: it must be for what is said of them.
	for flag, args := range map[string][]string{"leave --profile out": {"--docs", ".", "--profile", "x"}, "leave --against out": {"--against", "x", "--profile", "x"}} {
		err := run(t.Context(), append(args, "--sidegate", "/nothing"), io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%q: %v", args, err)
		}
	}
	var out strings.Builder
	if err := run(t.Context(), []string{"--list"}, &out, io.Discard); err != nil || strings.Count(out.String(), "\n") != len(rows()) {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// TestCPUOfProcesses: a process that works costs something, and one that has
// ended is an error and not nothing.
func TestCPUOfProcesses(t *testing.T) {
	self := []int{os.Getpid()}
	before, err := cpuOf(self)
	if err != nil {
		untested(t, err)
	}
	k, err := newIssuerKey()
	if err != nil {
		t.Fatal(err)
	}
	after, err := cpuOf(self)
	if err != nil || after <= before || k == nil {
		t.Errorf("%v before, %v after, %v", before, after, err)
	}
	short := exec.Command("true")
	if err := short.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := cpuOf([]int{short.Process.Pid}); err == nil {
		t.Error("a process that is gone costs nothing")
	}
}

// copyOfPage is a folder with docs/performance.md.
func copyOfPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(docsFolder, pageName))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, pageName), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}
