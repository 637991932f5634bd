package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rechained computes a folder's chain anew with each line changed by f.
func rechained(t testing.TB, dir string, f func(string) string) {
	t.Helper()
	list, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	prev := [sha256.Size]byte{}
	for _, first := range list {
		name := filepath.Join(dir, segmentName(first))
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		for line := range strings.Lines(string(text)) {
			line = f(line)
			i := strings.Index(line, `"prev":"`) + len(`"prev":"`)
			line = line[:i] + hex.EncodeToString(prev[:]) + line[i+2*sha256.Size:]
			prev = sha256.Sum256([]byte(strings.TrimSuffix(line, "\n")))
			out.WriteString(line)
		}
		if err := os.WriteFile(name, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAForgedLogCannotDropItsChainsName(t *testing.T) {
	by, keys := newKey(t)
	dir := t.TempDir()
	fill(t, Options{Dir: dir, Signer: by, Segment: 4000}, 30)
	safe := noteOf(t, dir, headNote)
	chain := sound(t, dir, keys, safe).Chain
	rechained(t, dir, func(line string) string {
		line = strings.Replace(line, `"chain":"`+chain+`"`, `"chain":""`, 1)
		return strings.Replace(line, `"allow"`, `"deny"`, 1)
	})
	if err := failing(t, dir, keys, safe); err == nil {
		t.Error("a log that was computed anew, without its chain's name, is taken for the one that was signed")
	}
}
