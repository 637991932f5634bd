package cmd

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// redisServer runs a real redis-server, and gives its address and what ends it.
func redisServer(t *testing.T, args ...string) (address string, kill func()) {
	t.Helper()
	binary, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("redis-server is missing: apt-get install redis-server")
		}
		t.Skip("SKIPPED, redis-server is missing: apt-get install redis-server")
	}
	for try := 0; ; try++ {
		// Below the ports that a system gives to connections by itself, and so is
		// what a cluster adds, 10,000 more.
		address = fmt.Sprint("127.0.0.1:", 12_000+rand.IntN(10_000))
		kill, ok := startRedisServer(t, binary, address, args)
		if ok {
			t.Cleanup(kill)
			return address, kill
		}
		if try == 5 {
			t.Fatal("redis-server ends at once, whatever its port is")
		}
	}
}

// startRedisServer is not ok where the server has ended: its port may be another's.
func startRedisServer(t *testing.T, binary, address string, args []string) (kill func(), ok bool) {
	t.Helper()
	socket := t.TempDir() + "/redis.sock" // which says when it is ready, and nobody else's is
	_, port, _ := strings.Cut(address, ":")
	c := exec.Command(binary, append([]string{"--port", port, "--bind", "127.0.0.1", "--unixsocket", socket, "--dir", t.TempDir(), "--save", ""}, args...)...)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = c.Wait()
		close(ended)
	}()
	kill = func() {
		_ = c.Process.Kill()
		<-ended
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		select {
		case <-ended:
			return nil, false
		case <-look.C:
		}
		if conn, err := net.Dial("unix", socket); err == nil {
			_ = conn.Close()
			return kill, true
		}
	}
	kill()
	t.Fatal("redis-server does not take connections")
	return nil, false
}

// TestOnlineRedis: the checklist has a line for Redis where it is configured, and
// each fault is named, without anything secret.
func TestOnlineRedis(t *testing.T) {
	const password = "s3cr3t-p4ss"
	open, kill := redisServer(t)
	closed, _ := redisServer(t, "--requirepass", password)
	full, _ := redisServer(t, "--maxmemory", "1")
	cluster, _ := redisServer(t, "--cluster-enabled", "yes")
	if got := redisProbes(settings{config: mustLoad(t, place{}, "")}); got != nil {
		t.Errorf("without redis: %v", got)
	}
	look := func(url string) check {
		t.Helper()
		c := mustLoad(t, place{env: map[string]string{"URL": url}}, `redis: {url: "${env:URL}", timeout: 5s}`)
		probes := redisProbes(settings{config: c})
		if len(probes) != 1 {
			t.Fatalf("%d probes", len(probes))
		}
		got := probes[0].run(context.Background())
		if len(got) != 1 || got[0].ID != "redis.reach" || strings.Contains(fmt.Sprint(got), password) {
			t.Fatalf("%v", got)
		}
		return got[0]
	}
	for url, want := range map[string]status{
		"redis://" + open: statusOK, "redis://:" + password + "@" + closed: statusOK,
		"redis://" + closed: statusFail, "redis://:" + password + "x@" + closed: statusFail, "redis://" + full: statusFail, "redis://" + cluster: statusFail,
		"redis://sidegate.invalid": statusFail,
	} {
		if got := look(url); got.Status != want || want == statusFail && got.Do == "" {
			t.Errorf("%s: %+v", url, got)
		}
	}
	kill()
	if got := look("redis://" + open); got.Status != statusFail || !strings.Contains(got.Text, "connection refused") {
		t.Errorf("%+v", got)
	}
}

// TestPlainRedis: without TLS only what leaves private networks is a warning, in
// whatever way it is written.
func TestPlainRedis(t *testing.T) {
	for url, want := range map[string]bool{
		"redis://:pw@192.0.2.1": true, "redis://192.0.2.1:1/2": true, "redis://[2001:db8::1]": true, "redis://[::ffff:192.0.2.1]": true, "redis://100.128.0.1": true, "redis://172.32.0.1": true,
		"rediss://:pw@192.0.2.1": false, "redis://:pw@127.0.0.1": false, "redis://[::1]": false, "redis://:pw@10.0.0.1": false, "redis://[::ffff:10.0.0.1]": false, "redis://172.16.0.1": false,
		"redis://192.168.1.1": false, "redis://100.64.0.1": false, "redis://169.254.1.1": false, "redis://[fd00::1]": false, "redis://[fe80::1%25eth0]": false, "redis://:pw@localhost": false, "redis://:pw@sidegate.invalid": false,
	} {
		c, warnings, err := place{env: map[string]string{"URL": url}}.load(versionLine + `redis: {url: "${env:URL}"}`)
		if err != nil {
			t.Fatal(url, err)
		}
		if all := strings.Join(warnings, " "); (all != "") != want || want && (!strings.Contains(all, "without encryption") || strings.Contains(all, "pw@") || strings.Contains(all, "192.0.2.1")) {
			t.Errorf("%s: warnings %q", url, all)
		}
		if got := publicly(t.Context(), c.Redis); got != want {
			t.Errorf("%s: check --online: %t", url, got)
		}
	}
}
