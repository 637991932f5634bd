package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A unit is a systemd unit's settings, in the order of the file.
type unit map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	u := unit{}
	for line := range strings.Lines(deploymentNamed(t, "systemd").read(t, name)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			u[key] = append(u[key], value)
		}
	}
	return u
}

func (u unit) has(t *testing.T, key string, values ...string) {
	t.Helper()
	if !slices.Equal(u[key], values) {
		t.Errorf("%s is %q, want %q", key, u[key], values)
	}
}

// TestDeploySystemd holds the units against sidegate.yaml.
func TestDeploySystemd(t *testing.T) {
	d := deploymentNamed(t, "systemd")
	config := d.config(t)
	gateway, app := readUnit(t, "sidegate.service"), readUnit(t, "notes.service")

	// Nobody reaches the app around the gateway: its socket is in a folder that only
	// its own user and the group of the gateway can get into.
	socket := strings.TrimPrefix(config.Upstreams["app"].URL, "unix://")
	if want := "--uds " + socket + " "; !strings.Contains(app["ExecStart"][0]+" ", want) {
		t.Errorf("the app is not started with %s", want)
	}
	app.has(t, "RuntimeDirectory", filepath.Base(filepath.Dir(socket)))
	app.has(t, "RuntimeDirectoryMode", "0710")
	app.has(t, "PrivateNetwork", "yes")
	app.has(t, "IPAddressDeny", "any")
	app.has(t, "RestrictAddressFamilies", "AF_UNIX")
	gateway.has(t, "SupplementaryGroups", app["Group"]...)
	if strings.Contains(app["ExecStart"][0], "--host") || strings.Contains(app["ExecStart"][0], "--port") {
		t.Error("the app has a port")
	}
	for _, name := range []string{gateway["User"][0], app["User"][0]} {
		if !regexp.MustCompile(`(?m)^u ` + name + ` -`).MatchString(d.read(t, "sysusers.conf")) {
			t.Errorf("sysusers.conf makes no user %s", name)
		}
	}

	// Order: the gateway after the app, so that it stops before it.
	gateway.has(t, "Requires", "notes.service")
	if !slices.Contains(strings.Fields(gateway["After"][0]), "notes.service") {
		t.Error("the gateway is not started after the app")
	}
	stop, err := time.ParseDuration(gateway["TimeoutStopSec"][0])
	if err != nil {
		t.Fatal(err)
	}
	if grace, err := time.ParseDuration(config.Listen.ShutdownGrace); err != nil || stop < grace+5*time.Second {
		t.Errorf("killed after %v, shutdown_grace %v: %v", stop, grace, err)
	}

	// Files.
	gateway.has(t, "LoadCredential", "audit.key:/etc/sidegate/audit.key")
	if key := fileForm.FindStringSubmatch(config.Audit.Key)[1]; key != "/run/credentials/sidegate.service/audit.key" {
		t.Errorf("the key is read from %s", key)
	}
	state := "/var/lib/" + gateway["StateDirectory"][0]
	for _, dir := range []string{config.Audit.Dir, config.Storage.Local.Dir} {
		if filepath.Dir(dir) != state {
			t.Errorf("%s is not below %s, and all else is read-only", dir, state)
		}
	}
	gateway.has(t, "WorkingDirectory", "/etc/sidegate")
	if config.Listen.Address == ":443" {
		gateway.has(t, "AmbientCapabilities", "CAP_NET_BIND_SERVICE")
		gateway.has(t, "CapabilityBoundingSet", "CAP_NET_BIND_SERVICE")
	}
	// Statuses that a restart does not mend (docs/configuration.md).
	gateway.has(t, "RestartPreventExitStatus", "2 3")
	var given []string
	for line := range strings.Lines(d.read(t, "environment")) {
		if name, _, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			given = append(given, name)
		}
	}
	d.givesVariables(t, given, "AWS_REGION")
}

// analyze runs systemd-analyze on copies of the units that name programs of this
// machine.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		needs(t, "systemd-analyze", "apt-get install systemd")
	}
	dir := t.TempDir()
	for _, name := range []string{"sidegate.service", "notes.service"} {
		text := strings.ReplaceAll(deploymentNamed(t, "systemd").read(t, name), "/usr/local/bin/sidegate ", lab.sidegate+" ")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.CommandContext(t.Context(), program, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "SYSTEMD_COLORS=0", "LC_ALL=C")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestDeploySystemdVerify: systemd finds nothing wrong with the units, and thinks
// well of what they may not do.
func TestDeploySystemdVerify(t *testing.T) {
	if out := analyze(t, "verify", "./sidegate.service", "./notes.service"); strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	for name, most := range map[string]float64{"sidegate": 2, "notes": 1} {
		out := analyze(t, "security", "--offline=true", "--no-pager", "./"+name+".service")
		m := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(out)
		if m == nil {
			t.Fatalf("no level: %s", out)
		}
		if level, err := strconv.ParseFloat(m[1], 64); err != nil || level > most {
			t.Errorf("%s is exposed at level %s, want at most %g (0 is best): %v", name, m[1], most, err)
		}
	}
}

// TestDeploySystemdCalls runs the gateway of examples/systemd under strace, with
// uploads, the app and a stop, and holds each system call against the unit's filter:
// one that the kernel would refuse must be one that the program does without.
func TestDeploySystemdCalls(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		needs(t, "strace", "apt-get install strace")
	}
	allowed := map[string]bool{}
	for _, line := range readUnit(t, "sidegate.service")["SystemCallFilter"] {
		without := strings.HasPrefix(line, "~")
		for _, set := range strings.Fields(strings.TrimPrefix(line, "~")) {
			for _, call := range callsOf(t, set, map[string]bool{}) {
				allowed[call] = !without
			}
		}
	}
	trace := filepath.Join(t.TempDir(), "trace")
	s := deploymentNamed(t, "systemd").setup(t, "")
	// -D: the gateway is our child, and strace looks on from beside it.
	s.wrap = []string{strace, "-D", "-f", "-qq", "--seccomp-bpf", "-e", "trace=!futex,nanosleep,epoll_pwait,sched_yield,read,write,madvise", "-e", "signal=none", "-o", trace}
	g := startGateway(t, s)
	alice := token(t, "alice")
	u := presign(t, g.url, alice, `{"contentType": "application/pdf", "fileExt": "pdf", "size": 9}`)
	confirm(t, g.url, alice, u.Session) // asks the store
	ask(t, "GET", g.url+"/v1/users/alice/notes/one", alice, "").want(t, 200)
	ask(t, "GET", g.adminURL+"/metrics", "", "").want(t, 200)
	if status := g.stop(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
	content, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\d+ +([a-z0-9_]+)\(`).FindAllSubmatch(content, -1) {
		used[string(m[1])] = true
	}
	if !used["execve"] || !used["accept4"] || !used["fsync"] && !used["fdatasync"] {
		t.Fatalf("that was no run of the gateway: %v", sortedKeys(used))
	}
	// What is left out of the trace, since it is most of it, are calls that every
	// program makes. Go raises the bound of open files at its start, and goes on where that is
	// refused: LimitNOFILE= has set it.
	refused := []string{"prlimit64", "setrlimit"}
	for call := range used {
		if !allowed[call] && !slices.Contains(refused, call) {
			t.Errorf("the filter refuses %s, which the gateway uses", call)
		}
	}
	// Memory that is written and then run: MemoryDenyWriteExecute= refuses it.
	if m := regexp.MustCompile(`(?m)^.*(?:mmap|mprotect)\(.*PROT_WRITE\|PROT_EXEC.*$`).Find(content); m != nil {
		t.Errorf("memory that can be written and run: %s", m)
	}
	for _, m := range regexp.MustCompile(`socket\((AF_[A-Z0-9]+)`).FindAllSubmatch(content, -1) {
		if families := readUnit(t, "sidegate.service")["RestrictAddressFamilies"][0]; !slices.Contains(strings.Fields(families), string(m[1])) {
			t.Errorf("the gateway opens a socket of %s", m[1])
		}
	}
}

// callsOf are the system calls of a set as systemd knows it, sets within it included.
func callsOf(t *testing.T, set string, seen map[string]bool) (calls []string) {
	t.Helper()
	if seen[set] {
		return nil
	}
	seen[set] = true
	c := exec.CommandContext(t.Context(), "systemd-analyze", "--no-pager", "syscall-filter", set)
	c.Env = append(os.Environ(), "SYSTEMD_COLORS=0")
	out, err := c.Output()
	if err != nil {
		needs(t, "systemd-analyze", "apt-get install systemd")
	}
	for line := range bytes.Lines(out) {
		word := strings.TrimSpace(string(line))
		switch {
		case word == "" || word == set || strings.HasPrefix(word, "#"):
		case strings.HasPrefix(word, "@"):
			calls = append(calls, callsOf(t, word, seen)...)
		default:
			calls = append(calls, word)
		}
	}
	return calls
}
