package cmd

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"sidegate/storage/audit"
)

// auditKey is a new key that signs checkpoints.
func auditKey(t testing.TB) string {
	t.Helper()
	secret, _, err := note.GenerateKey(rand.Reader, "test")
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// TestAuditKeyToProof goes the whole way: a key, a signed log, its head kept
// elsewhere, a removed end, a repair.
func TestAuditKeyToProof(t *testing.T) {
	home := t.TempDir()
	key, dir, safe := filepath.Join(home, "audit.key"), filepath.Join(home, "audit"), filepath.Join(home, "head.note")
	public, err := runAudit(t.Context(), "keygen", "--out", key, "--name", "acme")
	if err != nil || !strings.HasPrefix(public, "acme+") {
		t.Fatalf("%q, %v", public, err)
	}
	info, err := os.Stat(key)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	secret, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	// The shell has emptied audit.pub by then: it gets the same text again.
	if again, err := runAudit(t.Context(), "keygen", "--out", key); err == nil || !strings.Contains(err.Error(), "never replaced") || again != public {
		t.Errorf("over a key: %q, %v", again, err)
	}
	none := filepath.Join(home, "no.key")
	if err := os.WriteFile(none, []byte(strings.TrimSpace(public)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := runAudit(t.Context(), "keygen", "--out", none); err == nil || out != "" || strings.Contains(err.Error(), "was printed") {
		t.Errorf("over another file: %q, %v", out, err)
	}
	if again, err := os.ReadFile(key); err != nil || !bytes.Equal(again, secret) {
		t.Error("the key was replaced")
	}
	by, err := note.NewSigner(strings.TrimSpace(string(secret)))
	if err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(audit.Options{Dir: dir, Signer: by})
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if _, err := l.Append(&audit.Event{Type: audit.TypeSystem, System: &audit.System{Event: "start"}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	head, err := os.ReadFile(filepath.Join(dir, "head.note"))
	if err == nil {
		err = os.WriteFile(safe, head, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	public = strings.TrimSpace(public)
	verify := []string{"verify", "--dir", dir, "--key", public, "--checkpoint", safe}
	out, err := runAudit(t.Context(), verify...)
	if err != nil || !strings.Contains(out, "2 signed checkpoints fit, the newest of seq 5") || !strings.Contains(out, "signed to its end") {
		t.Errorf("%s%v", out, err)
	}
	out, err = runAudit(t.Context(), "verify", "--dir", dir)
	if err != nil || !strings.Contains(out, "checkpoint head.note: not checked") {
		t.Errorf("%s%v", out, err)
	}
	next, err := runAudit(t.Context(), "keygen", "--out", key+".next")
	if err != nil {
		t.Fatal(err)
	}
	// The key was changed, and who verifies gives the new one only.
	out, err = runAudit(t.Context(), "verify", "--dir", dir, "--key", strings.TrimSpace(next))
	if err == nil || !strings.Contains(out, "give --key for each public key that was in use") || strings.Contains(err.Error(), "the audit log is not what") {
		t.Errorf("%s%v", out, err)
	}

	name := filepath.Join(dir, "00000000000000000001.jsonl")
	lines, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	end := bytes.LastIndexByte(lines[:len(lines)-1], '\n') + 1
	if err := os.WriteFile(name, lines[:end], 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = runAudit(t.Context(), verify...)
	if err == nil || ExitStatus(err) != exitFailed || !strings.Contains(out, "BROKEN") || !strings.Contains(err.Error(), "seq 5") {
		t.Errorf("%s%v", out, err)
	}
	out, err = runAudit(t.Context(), "repair", "--dir", dir, "--key", public)
	if err != nil || !strings.Contains(out, "vouched for up to seq 3") || !strings.Contains(out, "is in damaged-") {
		t.Errorf("%s%v", out, err)
	}
	out, err = runAudit(t.Context(), "repair", "--dir", dir, "--key", public)
	if err != nil || !strings.Contains(out, "as it was written: nothing was changed") {
		t.Errorf("%s%v", out, err)
	}
	out, err = runAudit(t.Context(), verify...)
	if err == nil || !strings.Contains(out, "no event of that chain is here") {
		t.Errorf("the head of the old chain: %s%v", out, err)
	}
	out, err = runAudit(t.Context(), "verify", "--dir", dir, "--key", public)
	if err == nil || !strings.Contains(out, "BROKEN: no checkpoint of a given key vouches for chain") || !strings.Contains(out, "--allow-unsigned") ||
		!strings.HasPrefix(err.Error(), "it is not shown that the audit log is what was written: ") {
		t.Errorf("a key, and no checkpoint: %s%v", out, err)
	}
	out, err = runAudit(t.Context(), "verify", "--dir", dir, "--key", public, "--allow-unsigned")
	if err != nil || !strings.Contains(out, "no signed checkpoint vouches for it") || !strings.Contains(out, "a chain computed anew, would not show") {
		t.Errorf("a key, and no checkpoint: %s%v", out, err)
	}
}

// TestAuditKeysAreNotRepeated: somebody gives the secret key where the public
// one belongs.
func TestAuditKeysAreNotRepeated(t *testing.T) {
	dir := auditFolder(t)
	secret := auditKey(t)
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ key, says string }{
		{secret, "belongs on no command line"},
		{file, "holds the key to sign with"},
		{filepath.Join(dir, "none"), "no such file"},
		{filepath.Join(dir, "00000000000000000001.jsonl"), "holds no public key"},
	} {
		out, err := runAudit(t.Context(), "verify", "--dir", dir, "--key", c.key)
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(out+err.Error(), secret[len(secret)-20:]) {
			t.Errorf("%s%v", out, err)
		}
	}
	if _, err := runAudit(t.Context(), "verify", "--dir", dir, "--checkpoint", file); ExitStatus(err) != exitUsage {
		t.Errorf("a checkpoint without a key: %v", err)
	}
	if _, err := runAudit(t.Context(), "keygen"); ExitStatus(err) != exitUsage {
		t.Error(err)
	}
	if _, err := runAudit(t.Context(), "keygen", "--out", filepath.Join(dir, "k"), "--name", "a b"); ExitStatus(err) != exitUsage {
		t.Error(err)
	}
}

// TestAuditVerifyOfNothing: nobody takes it for a log that is whole.
func TestAuditVerifyOfNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "00000000000000000001.jsonl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := runAudit(t.Context(), "verify", "--dir", dir); err == nil || out != "" || !strings.Contains(err.Error(), "nothing was verified") {
		t.Errorf("%s%v", out, err)
	}
}

// TestPartOfABatchIsNoTampering: who verifies a collection while a gateway ships
// to it is told to look again, and nobody else is.
func TestPartOfABatchIsNoTampering(t *testing.T) {
	broken := audit.Result{Reports: []audit.Report{{}, {Broken: &audit.CorruptError{}}}}
	if !strings.Contains(perhapsShipping(&broken, true), "run verify again") {
		t.Error("a hole in a collection, and nothing is said of shipping")
	}
	if got := perhapsShipping(&broken, false) + perhapsShipping(&audit.Result{Missing: []error{os.ErrNotExist}}, true); got != "" {
		t.Errorf("nothing of this is a batch: %q", got)
	}
}
