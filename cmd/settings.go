package cmd

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// settings is everything a command was given: flags, files and environment,
// read and checked. Nothing in it was opened or dialled.
type settings struct {
	config *Config
	// policy is the policy's path: --policy, else the config's.
	policy   string
	insecure insecure
	// warnings are for the operator: dangerous switches, places that a restart
	// loses. They are printed at the start and by check.
	warnings []string
	env      environment
	// version is this program's, for logs, the audit log and metrics.
	version        string
	stdout, stderr io.Writer
	pprof          bool // the admin listener has profiles, for this machine
	everyRefusal   bool // is on record by itself; of tests
}

// insecure holds the dangerous switches; its zero value is safe.
type insecure struct {
	// emulator is --insecure-emulator. Without it both hosts are empty.
	emulator bool
	// authEmulator is FIREBASE_AUTH_EMULATOR_HOST, host:port: tokens need no
	// signature. Empty: they do.
	authEmulator string
	// firestoreEmulator is FIRESTORE_EMULATOR_HOST, host:port.
	firestoreEmulator string
	// keys is --insecure-keys: where Firebase's signing keys are taken from;
	// nil: from Google.
	keys *url.URL
	// ephemeral is --insecure-ephemeral: the disk may be memory.
	ephemeral bool
}

// emulators names the emulators that are in place of the real thing.
func (in insecure) emulators() string {
	var names []string
	if in.authEmulator != "" {
		names = append(names, "auth")
	}
	if in.firestoreEmulator != "" {
		names = append(names, "firestore")
	}
	return strings.Join(names, ",")
}

// An environment looks up a variable, as os.LookupEnv does. The nil one is empty.
type environment func(name string) (value string, ok bool)

// get is the variable's value; empty where it is unset.
func (e environment) get(name string) string {
	if e == nil {
		return ""
	}
	v, _ := e(name)
	return v
}

// newEnvironment reads "NAME=value" lines; the last one of a name counts.
func newEnvironment(env []string) environment {
	values := make(map[string]string, len(env))
	for _, line := range env {
		if name, value, ok := strings.Cut(line, "="); ok {
			values[name] = value
		}
	}
	return func(name string) (string, bool) {
		v, ok := values[name]
		return v, ok
	}
}

// settingsFlags are the flags of commands that need sidegate.yaml whole.
type settingsFlags struct {
	config, policy, logLevel string
	keys                     string
	emulator, ephemeral      bool
}

const defaultConfig = "sidegate.yaml"

func addSettingsFlags(c *cobra.Command) *settingsFlags {
	f := &settingsFlags{}
	fs := c.Flags()
	fs.StringVar(&f.config, "config", defaultConfig, "`file` that says how the gateway runs")
	fs.StringVar(&f.policy, "policy", "", "`file` that says who may do what, instead of the config's")
	fs.StringVar(&f.logLevel, "log-level", "", "debug, info, warn or error, instead of the config's `level`")
	fs.BoolVar(&f.emulator, "insecure-emulator", false, "allow FIREBASE_AUTH_EMULATOR_HOST (unsigned tokens) and FIRESTORE_EMULATOR_HOST")
	fs.StringVar(&f.keys, "insecure-keys", "", "take Firebase's signing keys from this `URL` (demos, tests)")
	fs.BoolVar(&f.ephemeral, "insecure-ephemeral", false, "allow sessions and audit log on a disk that is memory")
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	_ = c.MarkFlagFilename("policy", "yaml", "yml")
	_ = c.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions(logLevels(), cobra.ShellCompDirectiveNoFileComp))
	return f
}

func logLevels() []string { return []string{"debug", "info", "warn", "error"} }

// loadSettings reads and checks all that a command was given. On an error the
// settings hold no config, but the warnings found before.
func (p *program) loadSettings(f *settingsFlags) (settings, error) {
	s := settings{env: p.env, version: readBuild().Version, stdout: p.stdout, stderr: p.stderr, everyRefusal: p.everyRefusal}
	in, err := f.insecure(p.env)
	if err != nil {
		return s, err
	}
	s.insecure = in
	if in.keys != nil {
		s.warnings = append(s.warnings, "--insecure-keys: whoever answers there decides which tokens are good; never do this in production")
	}
	if in.emulator && in.authEmulator == "" && in.firestoreEmulator == "" {
		s.warnings = append(s.warnings, "--insecure-emulator: neither FIREBASE_AUTH_EMULATOR_HOST nor FIRESTORE_EMULATOR_HOST is set; leave the switch out")
	}
	if in.ephemeral {
		s.warnings = append(s.warnings, "--insecure-ephemeral: sessions and audit log may lie on a disk that is memory; never do this in production")
	}
	c, warnings, err := loadConfig(f.config, p.env, in)
	s.warnings = append(s.warnings, warnings...)
	if err != nil {
		return s, err
	}
	if f.logLevel != "" {
		c.Log.Level = f.logLevel
	}
	s.config, s.policy = c, c.Policy
	if f.policy != "" {
		if s.policy, err = filepath.Abs(f.policy); err != nil {
			return s, fmt.Errorf("find the policy's folder: %w", err)
		}
	}
	return s, nil
}

// insecure checks the flags' values, and takes the emulators from the
// environment only where the switch allows them.
func (f *settingsFlags) insecure(env environment) (insecure, error) {
	in := insecure{emulator: f.emulator, ephemeral: f.ephemeral}
	if f.emulator {
		in.authEmulator = env.get("FIREBASE_AUTH_EMULATOR_HOST")
		in.firestoreEmulator = env.get("FIRESTORE_EMULATOR_HOST")
	}
	if f.logLevel != "" && !slices.Contains(logLevels(), f.logLevel) {
		return in, usageError{fmt.Errorf("--log-level must be one of %s, not %q", strings.Join(logLevels(), ", "), f.logLevel)}
	}
	if f.keys == "" {
		return in, nil
	}
	u, err := url.Parse(f.keys)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
		return in, usageError{errors.New("--insecure-keys must be a URL such as http://127.0.0.1:9099/keys, without user and password")}
	}
	in.keys = u
	return in, nil
}
