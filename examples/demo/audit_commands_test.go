package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// sameAnswers asks the folder and the collection, which hold the same events,
// in every way: the answers are the same to the byte.
func sameAnswers(t *testing.T, dir, host string) {
	t.Helper()
	folder := []string{"--dir", filepath.Join(dir, "data", "audit")}
	collection := []string{"--firestore", "--project", project, "--insecure-emulator"}
	env := []string{"FIRESTORE_EMULATOR_HOST=" + host}
	for _, c := range []struct {
		command string
		least   int // lines
	}{
		{"query", 3},
		{"query --json --reverse", 3},
		{"query --uid alice --since 1h", 3},
		{"query --uid alice --effect deny", 0},
		{"query --effect allow --route files-upload --json", 0},
		{"query --uid nobody", 0},
		{"query -n 2", 2},
		{"tail --json -n 5", 5},
		{"export", 8},
		{"export --format ocsf", 5},
		{"export --format ocsf --until 1h", 0},
	} {
		args := append([]string{"audit"}, strings.Fields(c.command)...)
		status, want, stderr := sidegate(t, nil, append(args, folder...)...)
		if status != 0 || strings.Count(want, "\n") < c.least {
			t.Errorf("%s: status %d, %q, %q", c.command, status, want, stderr)
		}
		status, got, stderr := sidegate(t, env, append(args, collection...)...)
		if status != 0 || got != want {
			t.Errorf("%s of the collection: status %d, %q\n%s\nof the folder:\n%s", c.command, status, stderr, got, want)
		}
	}
}
