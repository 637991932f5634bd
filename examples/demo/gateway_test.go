package main

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A gateway is the sidegate program, running as a child.
type gateway struct {
	dir           string
	url, adminURL string
	process       *exec.Cmd
	log           *output
	ended         chan struct{} // closed when the process is gone
}

// A setup says how to run one. The zero setup is the demo's own configuration
// in front of the lab's parts.
type setup struct {
	dir    string   // the folder of its files; default: a temporary one
	config string   // sidegate.yaml; default: the demo's
	policy string   // policy.yaml; default: the demo's
	appURL string   // default: the lab's app
	flags  []string // besides --config and --insecure-keys
	env    []string // besides the demo's
	wrap   []string // the program that runs it, with its arguments; default: none
	output *os.File // takes what it prints; default: the log
	// unready does not wait until the gateway is ready.
	unready bool
}

// startGateway runs a gateway that is ended with the test at the latest.
func startGateway(t *testing.T, s setup) *gateway {
	t.Helper()
	g := &gateway{dir: s.dir, log: &output{}, ended: make(chan struct{})}
	if g.dir == "" {
		g.dir = t.TempDir()
	}
	writeDefault(t, g.dir, "sidegate.yaml", s.config)
	writeDefault(t, g.dir, "policy.yaml", s.policy)
	address, admin := unusedAddress(t), unusedAddress(t)
	g.url, g.adminURL = "http://"+address, "http://"+admin
	if s.appURL == "" {
		s.appURL = lab.appURL
	}
	args := append([]string{"run", "--config", filepath.Join(g.dir, "sidegate.yaml"), "--insecure-keys", lab.keysURL}, s.flags...)
	line := append(append(slices.Clone(s.wrap), lab.sidegate), args...)
	g.process = exec.Command(line[0], line[1:]...)
	g.process.Dir = g.dir
	g.process.Stdout, g.process.Stderr = g.log, g.log
	if s.output != nil {
		g.process.Stdout, g.process.Stderr = s.output, s.output
	}
	g.process.Env = append([]string{
		// Nothing of this machine's: no credentials, no emulators.
		"PATH=" + os.Getenv("PATH"),
		"HOME=" + g.dir,
		"AWS_EC2_METADATA_DISABLED=true",
		"AWS_ACCESS_KEY_ID=" + lab.store.accessKey,
		"AWS_SECRET_ACCESS_KEY=" + lab.store.secretKey,
		"DEMO_ADDRESS=" + address,
		"DEMO_ADMIN_ADDRESS=" + admin,
		"DEMO_APP_URL=" + s.appURL,
		"DEMO_STORE_URL=" + lab.store.url,
		"DEMO_ACCESS_KEY=" + lab.store.accessKey,
		"DEMO_SECRET_KEY=" + lab.store.secretKey,
	}, s.env...)
	if err := g.process.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(g.ended)
		g.process.Wait() // its result is in ProcessState
	}()
	t.Cleanup(func() {
		g.kill()
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", g.log)
		}
	})
	if !s.unready {
		if err := waitFor(t.Context(), g.adminURL+"/health/ready", g.ended); err != nil {
			t.Fatalf("the gateway is not ready: %v", err)
		}
	}
	return g
}

// kill ends the process as a power switch would, and waits until it is gone.
func (g *gateway) kill() {
	g.process.Process.Kill()
	<-g.ended
}

// stop asks the process to end, and gives its exit status.
func (g *gateway) stop(t *testing.T) int {
	t.Helper()
	if err := g.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	return g.status(t)
}

// status is the exit status, once the process has ended.
func (g *gateway) status(t *testing.T) int {
	t.Helper()
	select {
	case <-g.ended:
		return g.process.ProcessState.ExitCode()
	case <-time.After(30 * time.Second):
		t.Fatal("the gateway does not end")
		return 0
	}
}

// sidegate runs the program with these arguments and gives its exit status and
// what it printed.
func sidegate(t *testing.T, env []string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, lab.sidegate, args...)
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	c.Env = append([]string{"HOME=" + t.TempDir(), "AWS_EC2_METADATA_DISABLED=true"}, env...)
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return c.ProcessState.ExitCode(), out.String(), errs.String()
}

// writeDefault writes the text, or the demo's file of that name where there is
// neither a text nor a file yet.
func writeDefault(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if text == "" {
		if _, err := os.Stat(path); err == nil {
			return
		}
		content, err := configuration.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text = string(content)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// unusedAddress is one that nobody listens at. It lies below the ports that a
// system gives to connections by itself (on Linux from 32768 on): one of those
// may be taken again before who is meant to listen there has started.
func unusedAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:"+itoa(12_000+rand.IntN(20_000)))
		if err == nil {
			l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// demoFile is one of the demo's files, changed: old, which must be there, is
// replaced by new.
func demoFile(t *testing.T, name string, oldNew ...string) string {
	t.Helper()
	content, err := configuration.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text := string(content)
	for i := 0; i < len(oldNew); i += 2 {
		if !strings.Contains(text, oldNew[i]) {
			t.Fatalf("%s holds no %q", name, oldNew[i])
		}
		text = strings.Replace(text, oldNew[i], oldNew[i+1], 1)
	}
	return text
}

// An output collects what a process prints.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
