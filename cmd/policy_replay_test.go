package cmd

import (
	"strings"
	"testing"
	"time"
)

func TestMoment(t *testing.T) {
	now := time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"":                          {},
		"2026-03-02T10:00:00+01:00": time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC),
		"90m":                       now.Add(-90 * time.Minute),
		"7d":                        now.AddDate(0, 0, -7),
		"0s":                        now,
	} {
		if got, err := moment("--since", text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"-1h", "7", "7 d", "1d12h", "2026-03-02", "yesterday", "9999999d"} {
		if got, err := moment("--since", text, now); err == nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}

// TestProgress: lines where there is no terminal, none before it is time, and
// none at all where it is to be quiet.
func TestProgress(t *testing.T) {
	var out strings.Builder
	p := &program{stderr: &out}
	g := p.progress("requests judged", false)
	for i := range 10 * progressCalls {
		g.tell(i + 1)
	}
	if out.Len() > 0 {
		t.Errorf("early: %q", out.String())
	}
	g.next = time.Time{}
	for i := range 2 * progressCalls {
		g.tell(1000 + i + 1)
	}
	g.end()
	if got, want := out.String(), "1064 requests judged\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	out.Reset()
	quiet := p.progress("requests judged", true)
	quiet.tell(1)
	quiet.end()
	if out.Len() > 0 {
		t.Errorf("quiet: %q", out.String())
	}
}
