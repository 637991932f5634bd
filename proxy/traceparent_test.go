package proxy

import (
	"math/big"
	"regexp"
	"strings"
	"testing"
)

// traceparent is W3C Trace Context, sections 3.2.1 and 3.2.2, of version 00; that
// ids of zeros alone are invalid is said in words there.
var traceparent = regexp.MustCompile(`\A00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\z`)

// FuzzTraceparent: what is taken over for a trace is what the grammar says.
func FuzzTraceparent(f *testing.F) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if !validTraceparent(good) {
		f.Fatal("the specification's own example")
	}
	f.Add(good)
	for i := range good { // each place, with what is next to the letters that may stand there
		for _, c := range "/:`gAF-0\x00\n\xff" {
			f.Add(good[:i] + string(c) + good[i+1:])
		}
	}
	for _, s := range []string{"", "00", good[:54], good + "-", good + "0", good + "-00", good + "\n", " " + good, "01" + good[2:], "ff" + good[2:], strings.ToUpper(good)} {
		f.Add(s)
	}
	f.Add("00-" + strings.Repeat("0", 32) + "-b7ad6b7169203331-01")
	f.Add("00-0af7651916cd43dd8448eb211c80319c-" + strings.Repeat("0", 16) + "-01")
	f.Fuzz(func(t *testing.T, s string) {
		m := traceparent.FindStringSubmatch(s)
		want := m != nil && strings.Trim(m[1], "0") != "" && strings.Trim(m[2], "0") != ""
		if got := validTraceparent(s); got != want {
			t.Errorf("%q is valid: %t, want %t", s, got, want)
		}
	})
}

// cloudTrace is what Google's documentation says of X-Cloud-Trace-Context; that
// the options may be missing is what its services do.
var cloudTrace = regexp.MustCompile(`\A([0-9a-fA-F]{32})/([0-9]+)(?:;(?:o=([01]))?)?\z`)

// FuzzCloudTrace: what is taken over is what the grammar says, becomes a
// traceparent that is valid, and comes back as it was.
func FuzzCloudTrace(f *testing.F) {
	const good = "105445aa7843bc8bf206b12000100000/13233012345678901234;o=1"
	if got := fromCloudTrace(good); got != "00-105445aa7843bc8bf206b12000100000-b7a51a9dec8caff2-01" {
		f.Fatal(got)
	}
	for i := range good {
		for _, c := range "/:`gAF-0;=+ \x00\n\xff" {
			f.Add(good[:i] + string(c) + good[i+1:])
		}
	}
	for _, s := range []string{"", good[:32], good[:33], good[:53], good[:54], good + "1", " " + good, strings.ToUpper(good), good[:33] + "18446744073709551616;o=1", good[:33] + "0;o=1", good[:33] + "007;o=0", good[:33] + strings.Repeat("0", 400) + "7", good[:33] + "1_0;o=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parent := fromCloudTrace(s)
		m := cloudTrace.FindStringSubmatch(s)
		want := false
		if m != nil {
			n, ok := new(big.Int).SetString(m[2], 10)
			want = ok && n.Sign() > 0 && n.IsUint64() && strings.Trim(m[1], "0") != ""
		}
		if want != (parent != "") {
			t.Fatalf("%q gives %q", s, parent)
		}
		if !want {
			return
		}
		if !validTraceparent(parent) || sampledFlag(parent) != (m[3] == "1") {
			t.Fatalf("%q gives %q", s, parent)
		}
		again := toCloudTrace(parent)
		if fromCloudTrace(again) != parent || !strings.HasPrefix(again, strings.ToLower(m[1])+"/"+strings.TrimLeft(m[2], "0")+";") {
			t.Errorf("%q comes back as %q", s, again)
		}
	})
}

func TestSampledFlag(t *testing.T) {
	const digits = "0123456789abcdef"
	for i, c := range digits {
		parent := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0" + string(c)
		if got := sampledFlag(parent); got != (i%2 == 1) {
			t.Errorf("%s: sampled %t", parent, got)
		}
	}
}
