package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A lab is everything that runs: the upstream, the issuer's keys, and the
// proxies, each row's in processes of its own.
type lab struct {
	dir      string
	remove   bool // dir is temporary
	progress io.Writer

	self           string // this program, which is upstream and bare, too
	sidegate       string // the program that is prepared now
	first, other   string // the programs of the rows
	knowsTransport bool   // whether sidegate's configuration has `transport`
	wrkProgram     string
	script         string // wrk's, a file

	key                                  *issuerKey
	keys                                 *http.Server
	keysURL                              string
	publicKey, certificate, assertionKey string // files
	tokens                               map[tokenSet]string
	admin                                map[string]string // of sidegate, by its folder

	app      string // the upstream's address
	upstream *process
	running  []*proxyRun
	profiler *profiler // nil: nobody wants a profile
	rsa      []float64 // a check of a signature beside a request of the bare ReverseProxy
}

// A proxyRun is a row, and what was measured of it.
type proxyRun struct {
	row
	dir, address string
	procs        []*process
	missing      error // why it does not run: it is not installed, say
	started      time.Duration
	idle, loaded int64 // bytes
	samples      []sample
}

// openLab makes what the proxies need; start starts them.
func openLab(ctx context.Context, o options, progress io.Writer) (l *lab, err error) {
	l = &lab{dir: o.dir, progress: progress, admin: map[string]string{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	if l.dir == "" {
		l.remove = true
		if l.dir, err = os.MkdirTemp("", "sidegate-peers-"); err != nil {
			return l, err
		}
	} else if l.dir, err = filepath.Abs(l.dir); err != nil {
		return l, err
	}
	// Proxies that drop their rights look into their folders by other users.
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return l, err
	}
	if err := os.Chmod(l.dir, 0o755); err != nil {
		return l, err
	}
	if l.self, err = os.Executable(); err != nil {
		return l, err
	}
	if o.profile != "" {
		l.profiler = &profiler{path: o.profile}
	}
	if l.wrkProgram, err = find("wrk", "wrk"); err != nil {
		return l, err
	}
	if l.first, err = filepath.Abs(o.sidegate); err != nil {
		return l, err
	}
	if o.other != "" {
		if l.other, err = filepath.Abs(o.other); err != nil {
			return l, err
		}
	}
	l.script = filepath.Join(l.dir, "load.lua")
	if err := os.WriteFile(l.script, loadScript, 0o600); err != nil {
		return l, err
	}
	return l, l.openKeys(ctx)
}

// openKeys makes the issuer's key and publishes it.
func (l *lab) openKeys(ctx context.Context) (err error) {
	if l.key, err = newIssuerKey(); err != nil {
		return err
	}
	for name, f := range map[string]struct {
		make func() ([]byte, error)
		path *string
	}{
		"public.pem":      {l.key.publicPEM, &l.publicKey},
		"certificate.pem": {l.key.certificate, &l.certificate},
		"assertion.pem":   {assertionKey, &l.assertionKey},
	} {
		text, err := f.make()
		if err != nil {
			return err
		}
		*f.path = filepath.Join(l.dir, name)
		if err := os.WriteFile(*f.path, text, 0o644); err != nil {
			return err
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	l.keysURL = "http://" + listener.Addr().String() + "/keys"
	l.keys = &http.Server{Handler: l.key, ReadHeaderTimeout: 10 * time.Second}
	go l.keys.Serve(listener)
	return nil
}

// start starts the upstream and then each row's proxy, until it answers as the
// row says.
func (l *lab) start(ctx context.Context, chosen []row) (err error) {
	if l.app, err = freeAddress(); err != nil {
		return err
	}
	if l.upstream, err = startProcess(l.dir, l.self, []string{"upstream", l.app}); err != nil {
		return err
	}
	ask := func(ctx context.Context) error { return probe(ctx, l.app, oneToken, "") }
	if _, err := await(ctx, []*process{l.upstream}, ask); err != nil {
		return err
	}
	sets := map[tokenSet]bool{}
	for _, r := range chosen {
		sets[r.load.tokens] = true
	}
	if l.tokens, err = l.key.write(l.dir, sets); err != nil {
		return err
	}
	for _, r := range chosen {
		p := &proxyRun{row: r, dir: filepath.Join(l.dir, r.id)}
		l.running = append(l.running, p)
		fmt.Fprintln(l.progress, "# starting", r.id)
		if err := l.startRow(ctx, p); errors.Is(err, errMissing) {
			p.missing = err
			fmt.Fprintf(l.progress, "# %s: %v\n", r.id, err)
		} else if err != nil {
			return fmt.Errorf("%s: %w", r.id, err)
		}
	}
	return l.measureIdle()
}

func (l *lab) startRow(ctx context.Context, p *proxyRun) error {
	l.sidegate = l.first
	if p.other {
		l.sidegate = l.other
	}
	if _, isOurs := p.peer.(sidegate); isOurs {
		// An older program beside a newer one may lack the key.
		schema, err := exec.CommandContext(ctx, l.sidegate, "policy", "schema", "config").Output()
		if err != nil {
			return fmt.Errorf("%s: %w: `make build` builds it", l.sidegate, err)
		}
		l.knowsTransport = bytes.Contains(schema, []byte(`"transport"`))
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	address, commands, err := p.peer.prepare(l, p.dir)
	if err != nil {
		return err
	}
	p.address = address
	for _, c := range commands {
		started, err := startProcess(p.dir, c.program, c.args, c.env...)
		if err != nil {
			return err
		}
		p.procs = append(p.procs, started)
	}
	token, err := l.firstToken(p.load.tokens)
	if err != nil {
		return err
	}
	if p.started, err = await(ctx, p.procs, func(ctx context.Context) error { return probe(ctx, p.address, p.load, token) }); err != nil {
		return err
	}
	return l.probeForged(ctx, p)
}

// probeForged holds whoever is said to verify tokens to it: one that lets
// everything pass is fast.
func (l *lab) probeForged(ctx context.Context, p *proxyRun) error {
	if p.kind != verifies && p.kind != gateway {
		return nil
	}
	tokens, err := l.key.tokens(forged)
	if err != nil {
		return err
	}
	bad := p.load
	bad.status = http.StatusUnauthorized
	if err := probe(ctx, p.address, bad, tokens[0]); err != nil {
		return fmt.Errorf("a token with another's signature: %w", err)
	}
	return nil
}

func (l *lab) firstToken(set tokenSet) (string, error) {
	text, err := os.ReadFile(l.tokens[set])
	token, _, _ := strings.Cut(string(text), "\n")
	return token, err
}

// probe asks once, and says what is wrong with the answer.
func probe(ctx context.Context, address string, what load, token string) error {
	request := append(what.request(), "")
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, request[0], "http://"+address+request[1], strings.NewReader(request[2]))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if request[2] != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return err
	case answer.StatusCode != what.status:
		return fmt.Errorf("the answer is %d and not %d: %.300q", answer.StatusCode, what.status, body)
	case what.presign && what.status == http.StatusOK && !bytes.Contains(body, []byte("X-Amz-Signature=")):
		return fmt.Errorf("no URL was signed: %.300q", body)
	case !what.presign && what.status == http.StatusOK && len(body) != answerBytes:
		return fmt.Errorf("the answer has %d bytes and not %d", len(body), answerBytes)
	}
	return nil
}

// measureIdle is after the last was started: the first ones had time to settle.
func (l *lab) measureIdle() error {
	for _, p := range l.present() {
		pids, err := family(p.procs)
		if err != nil {
			return err
		}
		if p.idle, err = memoryOf(pids); err != nil {
			return fmt.Errorf("%s: %w", p.id, err)
		}
	}
	return nil
}

// present are the rows that run.
func (l *lab) present() []*proxyRun {
	return slices.DeleteFunc(slices.Clone(l.running), func(p *proxyRun) bool { return p.missing != nil })
}

// close ends everything that was started, the proxies first.
func (l *lab) close() error {
	var errs []error
	for _, p := range l.running {
		for _, q := range slices.Backward(p.procs) {
			errs = append(errs, q.stop())
		}
	}
	if l.upstream != nil {
		errs = append(errs, l.upstream.stop())
	}
	if l.keys != nil {
		errs = append(errs, l.keys.Close())
	}
	if l.remove {
		errs = append(errs, os.RemoveAll(l.dir))
	}
	return errors.Join(errs...)
}

// freeAddress is one at which nobody listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
