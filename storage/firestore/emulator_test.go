package firestore

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// The emulator is one process for all tests of this package, with the rules of
// configs; each test takes a project of its own. TestMain ends it.
var shared struct {
	once sync.Once
	cmd  *exec.Cmd
	host string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.cmd != nil {
		shared.cmd.Process.Kill()
		shared.cmd.Wait()
	}
	os.Exit(code)
}

// emulator is the host:port of a Firestore emulator, started with the first
// test that asks. Without one the test is skipped, and fails where CI=true.
func emulator(t testing.TB) (host string) {
	t.Helper()
	shared.once.Do(func() { shared.cmd, shared.host, shared.err = startEmulator("--rules=../../configs/firestore.rules") })
	if shared.err == nil {
		return shared.host
	}
	missing := fmt.Sprintf("NO FIRESTORE EMULATOR: %v. Install the Cloud SDK with its cloud-firestore-emulator component, and Java.", shared.err)
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
	return ""
}

func startEmulator(flags ...string) (*exec.Cmd, string, error) {
	gcloud, err := exec.LookPath("gcloud")
	if err != nil {
		return nil, "", err
	}
	if gcloud, err = filepath.EvalSymlinks(gcloud); err != nil {
		return nil, "", err
	}
	jar := filepath.Join(filepath.Dir(gcloud), "../platform/cloud-firestore-emulator/cloud-firestore-emulator.jar")
	if _, err := os.Stat(jar); err != nil {
		return nil, "", err
	}
	port, websocket, err := freePorts()
	if err != nil {
		return nil, "", err
	}
	host := fmt.Sprintf("127.0.0.1:%d", port)
	args := append([]string{"-Duser.language=en", "-cp", jar, "com.google.cloud.datastore.emulator.firestore.CloudFirestore",
		"--host=127.0.0.1", fmt.Sprintf("--port=%d", port), fmt.Sprintf("--websocket_port=%d", websocket)}, flags...)
	cmd := exec.Command("java", args...)
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	if err := answers("http://" + host + "/"); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return nil, "", err
	}
	return cmd, host, nil
}

func freePorts() (int, int, error) {
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, 0, err
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports[0], ports[1], nil
}

// answers asks until something does: a cold start takes 18 seconds and more.
func answers(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the emulator at %s does not answer: %w", url, ctx.Err())
		}
	}
}
