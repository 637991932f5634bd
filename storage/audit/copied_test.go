package audit

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestACopyOfARunningLog makes copies as docs/audit.md says.
func TestACopyOfARunningLog(t *testing.T) {
	doc, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	_, how, found := strings.Cut(string(doc), "\ncp -p data/audit/")
	how, _, _ = strings.Cut("cp -p data/audit/"+how, "\n")
	if !found {
		t.Fatal("docs/audit.md does not say how")
	}
	by, keys := newKey(t)
	dir := t.TempDir()
	l := open(t, Options{Dir: dir, Signer: by, Checkpoint: time.Millisecond, Segment: 100000})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				if put(t, l, "r", Crash) != nil {
					return
				}
			}
		}
	}()
	eventually(t, "it has a head", func() bool { return l.Stats().Checkpoint > 0 })
	for range 10 {
		to := t.TempDir()
		script := strings.NewReplacer("data/audit", dir, "/backup/audit/", to).Replace(how)
		if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", script, err, out)
			break
		}
		if r := sound(t, to, keys); r.Newest.Seq == 0 {
			t.Errorf("%+v", r)
		}
	}
	close(stop)
	<-done
	closed(t, l)
}
