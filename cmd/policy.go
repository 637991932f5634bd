package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sidegate/policy"
	"sidegate/policy/document"
	"sidegate/storage/s3"
)

// loadPolicy reads the policy at path with the names that c defines; without a
// config names are not checked. An error that is errInvalid lists every
// mistake of the file.
func loadPolicy(path string, c *Config) (*policy.Policy, error) {
	data, _, err := readPolicy(path)
	if err != nil {
		return nil, err
	}
	return parsePolicy(path, data, c)
}

// readPolicy reads a policy's file, and tells which state of it that was: in one
// reading, since a file may change between two, and a pipe has only one.
func readPolicy(path string) ([]byte, fingerprint, error) {
	data, err := readBounded(path, document.MaxBytes)
	seen := stateOf(data, err)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, seen, fmt.Errorf("no policy: %w; `sidegate init` writes one", err)
	}
	if err != nil {
		return nil, seen, fmt.Errorf("read the policy: %w", err)
	}
	return data, seen, nil
}

func parsePolicy(path string, data []byte, c *Config) (*policy.Policy, error) {
	p, err := policy.Load(shortPath(path), data, policyEnvironment(c))
	if err != nil {
		return nil, invalid{err}
	}
	return p, nil
}

// policyEnvironment is what a policy may name.
func policyEnvironment(c *Config) *policy.Environment {
	if c == nil {
		return nil
	}
	env := &policy.Environment{
		Identities: make(map[string]string, len(c.Identities)),
		Actors:     map[string]bool{},
		Upstreams:  make(map[string]policy.Upstream, len(c.Upstreams)),
		Buckets:    make(map[string]policy.Bucket, len(c.Buckets)),
		Lookups:    c.Lookups != nil,
		Shipping:   c.Audit.Firestore != nil,
		NoAddress:  c.Listen.NoAddress,
	}
	for _, id := range c.Identities {
		env.Identities[id.Name] = id.Namespace
		env.Actors[id.Name] = id.OIDC != nil && id.OIDC.Actor != nil
		env.AppCheck = env.AppCheck || id.Firebase != nil && id.Firebase.AppCheck
	}
	for _, u := range c.Upstreams {
		env.Upstreams[u.Name] = policy.Upstream{NoIdentity: !u.Headers.Identity, NoActor: !u.Headers.Actor, NoUpgrade: u.H2C}
	}
	for _, b := range c.Buckets {
		env.Buckets[b.Name] = policyBucket(b)
	}
	return env
}

// policyBucket is what the bucket's kind of store cannot do.
func policyBucket(b BucketConfig) policy.Bucket {
	is := s3.LimitsOf(b.Store)
	return policy.Bucket{
		Store: b.Store, NoForm: is.NoForm, NoConditions: is.NoConditions,
		NoSHA256: is.NoSHA256, NoCRC64: is.NoCRC64, NoWholeCRC64: is.NoWholeCRC64,
	}
}

// shortPath is path as somebody in this folder would write it.
func shortPath(path string) string {
	here, err := os.Getwd()
	if err != nil {
		return path
	}
	short, err := filepath.Rel(here, path)
	if err != nil || strings.HasPrefix(short, "..") {
		return path
	}
	return short
}
