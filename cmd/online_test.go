package cmd

import (
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestProbesThatBreak: a probe that panics, hangs, or is slow is its own failure;
// the others are told in their order.
func TestProbesThatBreak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		forever := make(chan struct{})
		probes := []probe{
			single("slow", "", func(ctx context.Context, b probe) check { <-ctx.Done(); return b.fails("do", "%v", ctx.Err()) }),
			single("panics", "", func(context.Context, probe) check { panic("a secret") }),
			single("hangs", "a", func(context.Context, probe) check { <-forever; return check{} }),
			single("good", "", func(_ context.Context, b probe) check { return b.pass("fine") }),
			single("hangs", "b", func(context.Context, probe) check { <-forever; return check{} }),
		}
		begin := time.Now()
		got := runProbes(t.Context(), probes, time.Second)
		if took := time.Since(begin); took != time.Second+cleanTime {
			t.Errorf("it took %s", took)
		}
		var names []string
		for _, c := range got {
			names = append(names, string(c.Status)+" "+c.name())
			if strings.Contains(c.Text+c.Do, "secret") {
				t.Errorf("%s says what the panic said", c.ID)
			}
		}
		want := []string{"fail slow", "fail panics", "fail hangs a", "ok good", "fail hangs b"}
		if !slices.Equal(names, want) {
			t.Errorf("%q, want %q", names, want)
		}
		close(forever)
	})
}

// TestChecklistStays: what others wrote neither steers the terminal nor makes
// lines of its own.
func TestChecklistStays(t *testing.T) {
	var out bytes.Buffer
	p := &program{env: newEnvironment(nil), stdout: &out}
	r := onlineResult{checkResult: checkResult{Policy: &policyResult{}}, Summary: map[status]int{statusFail: 1}, Checks: []check{
		{ID: "keys", Subject: "https://a\x1b[2J\nok    all", Status: statusFail, Text: "bad\nok    port", Do: "first\nsecond"},
	}}
	if err := r.printText(p); err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "\x1b") || strings.Contains(text, "\nok    ") || !strings.Contains(text, "0 ok, 0 warnings, 1 failed") {
		t.Errorf("%s", text)
	}
}

func TestSkewsOfClocks(t *testing.T) {
	for _, c := range []struct {
		ahead time.Duration
		want  status
		says  string
	}{
		{0, statusOK, ""}, {5 * time.Second, statusOK, ""}, {-5 * time.Second, statusOK, ""},
		{6 * time.Second, statusWarn, "6s behind"}, {-60 * time.Second, statusWarn, "1m0s ahead"},
		{61 * time.Second, statusFail, "behind"}, {-time.Hour, statusFail, "ahead"},
	} {
		got := checkSkew(probe{id: "clock"}, "another", c.ahead)
		if got.Status != c.want || !strings.Contains(got.Text, c.says) {
			t.Errorf("%s: %s %q", c.ahead, got.Status, got.Text)
		}
	}
}

// TestAdviceOfNetworks: errors of the network say what to do, and no URL.
func TestAdviceOfNetworks(t *testing.T) {
	for text, want := range map[string]string{
		"dial tcp: lookup nowhere.example on 10.0.0.1:53: no such host":                    "name resolution",
		"dial tcp 127.0.0.1:1: connect: connection refused":                                "server runs",
		"tls: failed to verify certificate: x509: certificate signed by unknown authority": "SSL_CERT_FILE",
		"proxyconnect tcp: dial tcp 10.0.0.1:3128: i/o timeout":                            "HTTPS_PROXY does not answer",
		"no answer in time": "firewall",
	} {
		if got := networkAdvice(errors.New(text), "SSL_CERT_FILE"); !strings.Contains(got, want) {
			t.Errorf("%q: %q", text, got)
		}
	}
	if got := networkAdvice(&net.DNSError{}, ""); !strings.Contains(got, "getent") {
		t.Error(got)
	}
}
