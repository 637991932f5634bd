package proxy

import (
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
