package main

import (
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"text/template"
)

// A peer is a proxy in one of its configurations.
type peer interface {
	// prepare writes what the peer needs into the folder, and gives what is to
	// be started, in order, and the address that wrk then asks. errMissing: it is
	// not installed.
	prepare(l *lab, dir string) (address string, start []command, err error)
}

// A command starts a process of a peer. Its folder is the peer's.
type command struct {
	program string
	args    []string
	env     []string // beside what all get
}

// errMissing is of a row that cannot run here.
var errMissing = errors.New("not measured")

// find gives the program's path. Debian keeps servers where users do not look.
func find(program, debian string) (string, error) {
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if found, err := exec.LookPath(name); err == nil {
			return filepath.Abs(found)
		}
	}
	return "", fmt.Errorf("%w: %s is not installed (apt-get install %s)", errMissing, program, debian)
}

//go:embed configs
var configs embed.FS

var templates = template.Must(template.ParseFS(configs, "configs/*"))

// settings are what the templates of configs are filled with.
type settings struct {
	Address, App, Dir  string
	JWT, Ask           bool   // verify tokens; ask sidegate
	Question           string // where sidegate is asked
	Issuer, Audience   string
	KeyID, Key         string // the issuer's key: its id, and its file in the form of the peer
	User               string // to whom Apache drops its rights where it is root
	Admin, Transport   string // of sidegate, as what follows
	Survive            string
	TokenCache, Routes int
	Assertion          string
}

func write(dir, name, from string, s settings) error {
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	return errors.Join(templates.ExecuteTemplate(f, from, s), f.Close())
}

func (l *lab) settings(dir string) (settings, error) {
	address, err := freeAddress()
	return settings{
		Address: address, App: l.app, Dir: dir,
		Issuer: issuer, Audience: project, KeyID: keyID,
	}, err
}

// oneCPU has a program in Go use one CPU at a time.
const oneCPU = "GOMAXPROCS=1"

type bare struct{ env []string }

func (b bare) prepare(l *lab, _ string) (string, []command, error) {
	address, err := freeAddress()
	return address, []command{{program: l.self, args: []string{"bare", address, l.app}, env: b.env}}, err
}

type haproxy struct{ jwt bool }

func (h haproxy) prepare(l *lab, dir string) (string, []command, error) {
	program, err := find("haproxy", "haproxy")
	if err != nil {
		return "", nil, err
	}
	s, err := l.settings(dir)
	if err != nil {
		return "", nil, err
	}
	s.JWT, s.Key = h.jwt, l.publicKey
	return s.Address, []command{{program: program, args: []string{"-db", "-f", "haproxy.cfg"}}}, write(dir, "haproxy.cfg", "haproxy.cfg", s)
}

type nginx struct{ ask bool }

func (n nginx) prepare(l *lab, dir string) (string, []command, error) {
	program, err := find("nginx", "nginx-light")
	if err != nil {
		return "", nil, err
	}
	s, err := l.settings(dir)
	if err != nil {
		return "", nil, err
	}
	var start []command
	if n.ask {
		s.Ask = true
		if s.Question, err = freeAddress(); err != nil {
			return "", nil, err
		}
		_, asked, err := sidegate{question: s.Question}.prepare(l, dir)
		if err != nil {
			return "", nil, err
		}
		start = append(start, asked...)
	}
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o755); err != nil {
		return "", nil, err
	}
	start = append(start, command{program: program, args: []string{"-p", dir, "-c", "nginx.conf", "-e", "stderr"}})
	return s.Address, start, write(dir, "nginx.conf", "nginx.conf", s)
}

type apache struct{ jwt bool }

// apacheModules is where Debian has them.
const apacheModules = "/usr/lib/apache2/modules"

func (a apache) prepare(l *lab, dir string) (string, []command, error) {
	program, err := find("apache2", "apache2-bin")
	if err != nil {
		return "", nil, err
	}
	if _, err := os.Stat(apacheModules + "/mod_auth_openidc.so"); a.jwt && err != nil {
		return "", nil, fmt.Errorf("%w: mod_auth_openidc is not installed (apt-get install libapache2-mod-auth-openidc)", errMissing)
	}
	s, err := l.settings(dir)
	if err != nil {
		return "", nil, err
	}
	s.JWT, s.Key = a.jwt, l.certificate
	if os.Geteuid() == 0 {
		if _, err := user.Lookup("www-data"); err != nil {
			return "", nil, fmt.Errorf("%w: Apache does not serve as root, and there is no user www-data", errMissing)
		}
		s.User = "www-data"
	}
	return s.Address, []command{{program: program, args: []string{"-d", dir, "-f", filepath.Join(dir, "apache.conf"), "-DFOREGROUND"}}}, write(dir, "apache.conf", "apache.conf", s)
}

type caddy struct{}

func (caddy) prepare(l *lab, dir string) (string, []command, error) {
	program, err := find("caddy", "caddy")
	if err != nil {
		return "", nil, err
	}
	s, err := l.settings(dir)
	if err != nil {
		return "", nil, err
	}
	return s.Address, []command{{program: program, args: []string{"run", "--config", "Caddyfile", "--adapter", "caddyfile"}}}, write(dir, "Caddyfile", "Caddyfile", s)
}

// A sidegate is the gateway; a zero field is its default.
type sidegate struct {
	transport, survive string
	tokenCache         int
	assertion          bool
	question           string // where another proxy asks it
	env                []string
}

// policyRoutes is how many routes the policy has; the one in the middle is
// asked.
const (
	policyRoutes = 100
	measuredPath = "/v1/r50/abc/items?x=1"
)

func (g sidegate) prepare(l *lab, dir string) (string, []command, error) {
	if g.transport != "" && !l.knowsTransport {
		return "", nil, fmt.Errorf("%w: this version does not have `transport`", errMissing)
	}
	s, err := l.settings(dir)
	if err != nil {
		return "", nil, err
	}
	if s.Admin, err = freeAddress(); err != nil {
		return "", nil, err
	}
	s.Transport, s.Survive, s.TokenCache, s.Question = g.transport, g.survive, g.tokenCache, g.question
	if g.assertion {
		s.Assertion = l.assertionKey
	}
	s.Routes = policyRoutes
	l.admin[dir] = s.Admin
	args := append([]string{"run", "--config", "sidegate.yaml", "--insecure-keys", l.keysURL}, l.profiler.args()...)
	return s.Address, []command{{program: l.sidegate, args: args, env: g.env}},
		errors.Join(write(dir, "sidegate.yaml", "sidegate.yaml", s), write(dir, "policy.yaml", "policy.yaml", s))
}

// Each and Tens number the policy's routes, and those that have a guard of
// their own.
func (s settings) Each() []int { return every(s.Routes, 1) }
func (s settings) Tens() []int { return every(s.Routes, 10) }

func every(n, step int) []int {
	var out []int
	for i := 0; i < n; i += step {
		out = append(out, i)
	}
	return out
}
