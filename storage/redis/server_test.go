package redis

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	client "github.com/redis/go-redis/v9"
)

// A server is a real redis-server, in a folder of its own.
type server struct {
	address string
	args    []string
	dir     string
	process *exec.Cmd
	ended   chan struct{}
	log     lockedBuffer
}

type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// binary finds redis-server, or skips.
func binary(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("redis-server is missing: apt-get install redis-server")
		}
		t.Skip("SKIPPED, redis-server is missing: apt-get install redis-server")
	}
	return path
}

// startServer runs a redis-server that keeps nothing on disk.
func startServer(t testing.TB, args ...string) *server {
	t.Helper()
	s := &server{dir: t.TempDir(), args: args}
	for try := 0; ; try++ { // somebody may take the port meanwhile
		s.address = freeAddress(t)
		if s.started(t) {
			break
		}
		if try == 5 {
			t.Fatalf("redis-server ends:\n%s", &s.log)
		}
	}
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("redis-server:\n%s", &s.log)
		}
	})
	return s
}

// start runs it (again) at its address.
func (s *server) start(t testing.TB) {
	t.Helper()
	if !s.started(t) {
		t.Fatalf("redis-server ends:\n%s", &s.log)
	}
}

// started runs it, and waits until it takes connections or has ended.
func (s *server) started(t testing.TB) bool {
	t.Helper()
	_, port, _ := net.SplitHostPort(s.address)
	args := append([]string{"--port", port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--appendonly", "no", "--daemonize", "no"}, s.args...)
	s.process = exec.Command(binary(t), args...)
	s.process.Stdout, s.process.Stderr = &s.log, &s.log
	said := len(s.log.String())
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	process, ended := s.process, make(chan struct{})
	s.ended = ended
	go func() {
		_ = process.Wait()
		close(ended)
	}()
	ready, over := false, false
	await(t, "redis-server takes connections", func() bool {
		select {
		case <-ended:
			over = true
		default:
			ready = strings.Contains(s.log.String()[said:], "Ready to accept connections")
		}
		return ready || over
	})
	return ready
}

// kill ends it as a power switch would.
func (s *server) kill() {
	_ = s.process.Process.Signal(syscall.SIGCONT)
	_ = s.process.Process.Kill()
	<-s.ended
}

func (s *server) signal(t testing.TB, how os.Signal) {
	t.Helper()
	if err := s.process.Process.Signal(how); err != nil {
		t.Fatal(err)
	}
}

// admin is somebody who may do all, beside the gateways.
func (s *server) admin(t testing.TB) *client.Client {
	t.Helper()
	quiet()
	c := client.NewClient(&client.Options{Addr: s.address, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// await waits for something that is to become true.
func await(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: %s", what)
		}
		look := time.NewTimer(time.Millisecond)
		<-look.C
	}
}

// freeAddress lies below the ports that a system gives to connections by itself.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 12_000+rand.IntN(20_000)))
		if err == nil {
			_ = l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no port is free")
	return ""
}

// opened makes Limits of a server, with a time-out that no loaded machine
// exceeds.
func opened(t testing.TB, url string, change ...func(*Options)) *Limits {
	t.Helper()
	o := Options{URL: url, Timeout: 5 * time.Second, Prefix: "sidegate:test:"}
	for _, c := range change {
		c(&o)
	}
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// changes collects what Changed is told.
type changes struct {
	mu  sync.Mutex
	all []error
}

func (c *changes) add(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, err)
}

func (c *changes) seen() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]error(nil), c.all...)
}

// certificates makes an authority and a certificate for 127.0.0.1, and gives
// their files.
func certificates(t testing.TB) (ca, cert, key string) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("openssl is missing")
		}
		t.Skip("SKIPPED, openssl is missing: apt-get install openssl")
	}
	dir := t.TempDir()
	ca, cert, key = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	run := func(line string) {
		c := exec.CommandContext(context.Background(), "openssl", strings.Fields(line)...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("openssl %s: %v\n%s", line, err, out)
		}
	}
	run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority")
	run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=redis -addext subjectAltName=IP:127.0.0.1 -CA ca.pem -CAkey ca.key")
	return ca, cert, key
}

func authorities(t testing.TB, file string) *x509.CertPool {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		t.Fatal("no certificate")
	}
	return pool
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}
