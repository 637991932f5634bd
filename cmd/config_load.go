package cmd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sidegate/policy/document"
)

// maxSecretBytes bounds a file that ${file:} reads: keys and tokens stay far
// below it.
const maxSecretBytes = 64 << 10

// errInvalid marks what is wrong with what the operator wrote: exit status 3.
var errInvalid = errors.New("invalid config or policy")

// invalid marks err as the operator's mistake without adding words to it.
type invalid struct{ error }

func (e invalid) Is(target error) bool { return target == errInvalid }
func (e invalid) Unwrap() error        { return e.error }

// loadConfig reads sidegate.yaml at path. The strings are warnings. An error
// that is errInvalid lists every mistake of the file and of the environment.
func loadConfig(path string, env environment, in insecure) (*Config, []string, error) {
	data, err := readConfig(path)
	if err != nil {
		return nil, nil, err
	}
	l, err := newConfigLoader(path, env, in)
	if err != nil {
		return nil, nil, err
	}
	c, err := l.load(data)
	if err != nil {
		return nil, l.warnings, err
	}
	return c, l.warnings, nil
}

// loadAdminAddress reads admin.address alone: a gateway goes on with what it
// read when it started, whatever else became of the file. The error is nil or
// says why there is no address.
func loadAdminAddress(path string, env environment) (string, error) {
	data, err := readConfig(path)
	if err != nil {
		return "", err
	}
	l, err := newConfigLoader(path, env, insecure{emulator: true, ephemeral: true})
	if err != nil {
		return "", err
	}
	c, err := l.load(data)
	if c.AdminAddress == "" {
		return "", err
	}
	return c.AdminAddress, nil
}

func readConfig(path string) ([]byte, error) {
	data, err := readBounded(path, document.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no config: %w; `sidegate init` writes one, --config names another", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read the config: %w", err)
	}
	return data, nil
}

func newConfigLoader(path string, env environment, in insecure) (*configLoader, error) {
	file, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("find the config's folder: %w", err)
	}
	return &configLoader{name: path, file: file, env: env, insecure: in, readFile: readBounded, diskOf: diskOf, keys: configKeys()}, nil
}

// readBounded reads a file of at most limit bytes. A pipe is read too, as a
// shell's <(...) is one, but one that nobody writes to is empty, and one that
// says nothing is not waited for long.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_ = f.SetReadDeadline(time.Now().Add(pipeWait)) // files have none and need none
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d KiB", path, limit>>10)
	}
	return data, nil
}

// A configLoader reads one sidegate.yaml. What it asks of the machine is passed
// in, so that it only looks and tests can answer.
type configLoader struct {
	name     string // as in errors
	file     string // absolute
	env      environment
	insecure insecure
	readFile func(path string, limit int64) ([]byte, error)
	diskOf   func(path string) disk
	keys     map[string]document.Keys

	warnings []string
	files    []string // that ${file:} read
}

// load reads the file. The Config is never nil; with an error it holds only
// what could be read.
func (l *configLoader) load(data []byte) (*Config, error) {
	d := document.New(l.name, l.expand)
	c := &Config{File: l.file}
	if root := d.Parse(data, configVersion); root.Present() {
		l.read(root.Map(l.keys[""]), c)
	}
	slices.Sort(l.files)
	c.SecretFiles = slices.Compact(l.files)
	if err := errors.Join(d.Err(), l.checkEnvironment()); err != nil {
		return c, invalid{err}
	}
	return c, nil
}

// read fills c in the order of the file's reference.
func (l *configLoader) read(root document.Map, c *Config) {
	c.Name = "sidegate"
	if v := root.Get("name"); v.Present() {
		c.Name = l.matching(v, gatewayName, "1 to 128 letters, digits and `._-`")
	}
	l.readListen(root.Get("listen").Map(l.keys["listen"]), c)
	c.Listen.NoAddress = l.onCloudRun() && !c.Listen.TrustPeer && len(c.Listen.TrustedProxies) == 0
	l.readAdmin(root.Get("admin").Map(l.keys["admin"]), c)
	l.readForwardAuth(root.Get("forward_auth"), c)
	c.Policy = l.path(root.Get("policy"), "policy.yaml")
	l.readIdentities(root.Get("identities"), c)
	if v := root.Get("keys_cache"); v.Present() {
		if text, ok := v.Text(); ok && text != "" {
			c.KeysCache = l.path(v, "")
		}
	}
	l.readAssertion(root.Get("assertion").Map(l.keys["assertion"]), c)
	l.readWebhook(root.Get("webhook"), c)
	l.readRedis(root.Get("redis"), c)
	c.TokenCache = 100_000
	if v := root.Get("token_cache"); v.Present() {
		c.TokenCache = int(v.Int(0, 10_000_000))
	}
	l.readUpstreams(root.Get("upstreams"), c)
	c.CORS = l.readCORS(root.Get("cors"))
	l.readBuckets(root.Get("buckets"), c)
	l.readStorage(root.Get("storage").Map(l.keys["storage"]), c)
	l.readLookups(root.Get("lookups").Map(l.keys["lookups"]), c)
	l.readAudit(root.Get("audit").Map(l.keys["audit"]), c)
	l.readTelemetry(root.Get("telemetry"), c)
	l.readLog(root.Get("log").Map(l.keys["log"]), c)
	l.checkPlaces(root, c)
}

// pipeWait is how long a pipe in a file's place is waited for.
const pipeWait = 5 * time.Second

// expand gives the value of ${env:NAME}, ${env:NAME:default} and ${file:PATH}.
// An empty variable counts as unset, as in the shell's ${NAME:-default}.
func (l *configLoader) expand(form, argument string) (string, error) {
	if form == "file" {
		return l.expandFile(argument)
	}
	name, fallback, hasFallback := strings.Cut(argument, ":")
	if !variableName.matches(name) {
		return "", errors.New("`${env:` needs a variable's name: letters, digits and `_`")
	}
	// What is kept as a secret was often a file, and still ends as one.
	if value := withoutLastBreak(l.env.get(name)); value != "" {
		if strings.ContainsAny(value, "\x00\r\n") {
			return "", fmt.Errorf("the variable %s holds a line break", name)
		}
		return value, nil
	}
	if !hasFallback {
		return "", fmt.Errorf("the variable %s is not set, or empty; set it, or write a default: ${env:%s:default}", name, name)
	}
	return fallback, nil
}

func (l *configLoader) expandFile(path string) (string, error) {
	if path == "" {
		return "", errors.New("`${file:` needs a path")
	}
	data, err := l.readFile(l.absolute(path), maxSecretBytes)
	if err != nil {
		return "", fmt.Errorf("${file:}: %w", err)
	}
	l.files = append(l.files, l.absolute(path))
	text := withoutLastBreak(string(data))
	if text == "" {
		return "", fmt.Errorf("${file:}: %s is empty", path)
	}
	return text, nil
}

func withoutLastBreak(text string) string {
	return strings.TrimSuffix(strings.TrimSuffix(text, "\n"), "\r")
}

// absolute makes a path of the file absolute: it is relative to the file.
func (l *configLoader) absolute(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(l.file), path)
}

func (l *configLoader) warn(at document.Value, format string, args ...any) {
	l.warnings = append(l.warnings, at.Place()+": "+fmt.Sprintf(format, args...))
}
