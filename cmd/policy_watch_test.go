package cmd

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPolicyTestWatches: a change of a test file, of a policy that is broken at
// the time, and a test file that is new each make a run.
func TestPolicyTestWatches(t *testing.T) {
	dir := t.TempDir()
	policyFile, testFile := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "policy_test.yaml")
	good := "version: sidegate-policy/v1\nidentities: [users]\nroutes: [{id: a, path: /a, methods: [GET], upstream: app, allow: [{who: [users]}]}]\n"
	tests := func(target string) string {
		return "version: sidegate-test/v1\npolicy: policy.yaml\nnow: 2026-03-02T10:00:00Z\nidentities: {alice: {from: users, uid: alice}}\ntests: [{name: t, as: alice, cases: [{get: " + target + ", expect: allow}]}]\n"
	}
	write(t, policyFile, good)
	write(t, testFile, tests("/a"))
	ctx, cancel := context.WithCancel(t.Context())
	out := newLines()
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, []string{"policy", "test", "--watch", dir}, nil, out, io.Discard) }()
	t.Cleanup(func() { cancel(); <-ended })

	out.awaitCount(t, "1 passed, 0 failed", 1)
	write(t, testFile, tests("/b"))
	out.await(t, "0 passed, 1 failed")
	write(t, testFile, tests("/a"))
	out.awaitCount(t, "1 passed, 0 failed", 2)
	write(t, policyFile, strings.Replace(good, "routes", "rotes", 1))
	out.await(t, "unknown key `rotes`")
	write(t, policyFile, good) // which was not readable when the watch began
	out.awaitCount(t, "1 passed, 0 failed", 3)
	write(t, filepath.Join(dir, "more_test.yaml"), tests("/a"))
	out.await(t, "2 passed, 0 failed")
	if err := os.Remove(testFile); err != nil {
		t.Fatal(err)
	}
	out.awaitCount(t, "1 passed, 0 failed", 4)
}
