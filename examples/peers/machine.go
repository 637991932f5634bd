package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

// report is of the run that was, with where and when it was.
func (l *lab) report(ctx context.Context, o options) report {
	r := report{rsa: spreadOf(l.rsa)}
	for _, p := range l.running {
		r.results = append(r.results, p.result())
	}
	r.machine = fmt.Sprintf("Measured on %s: %s, %d cores, Linux %s; %d rounds, slices of %v. The bare ReverseProxy took %d microseconds of CPU for a request. %s.",
		time.Now().UTC().Format(time.DateOnly), cpuModel(), runtime.NumCPU(), kernel(), o.rounds, o.slice, r.results[0].each.Microseconds(), strings.Join(l.versions(ctx), ", "))
	return r
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "a CPU that does not say its name (" + runtime.GOARCH + ")"
}

func kernel() string {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(text))
}

// programs are the names of those whose versions are told, and how they are
// asked.
var programs = map[string]struct{ name, flag string }{
	"haproxy": {"HAProxy", "-v"}, "nginx": {"nginx", "-v"}, "apache2": {"Apache", "-v"}, "caddy": {"Caddy", "version"}, "wrk": {"wrk", "-v"},
}

// versions are those of the programs that ran.
func (l *lab) versions(ctx context.Context) []string {
	mine, _ := exec.CommandContext(ctx, l.first, "version").Output()
	out := []string{strings.TrimSpace(string(mine))}
	seen := map[string]bool{}
	paths := []string{l.wrkProgram}
	for _, p := range l.present() {
		for _, q := range p.procs {
			paths = append(paths, q.cmd.Path)
		}
	}
	for _, path := range paths {
		if p, known := programs[filepath.Base(path)]; known && !seen[path] {
			seen[path] = true
			// Some say it on standard error, and wrk fails when it is asked.
			text, _ := exec.CommandContext(ctx, path, p.flag).CombinedOutput()
			out = append(out, p.name+" "+versionIn(string(text)))
		}
	}
	if module, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", "libapache2-mod-auth-openidc").Output(); err == nil {
		out = append(out, "mod_auth_openidc "+string(module))
	}
	return out
}

var versionForm = regexp.MustCompile(`[0-9]+\.[0-9][0-9A-Za-z.+~-]*`)

// versionIn is the first version that a program's words hold.
func versionIn(text string) string {
	if v := versionForm.FindString(text); v != "" {
		return v
	}
	return "of an unknown version"
}
