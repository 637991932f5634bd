package cmd

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"sidegate/proxy/trial"
)

// A watchedSet is what a run of tests came from, as it was before the run: each
// test file, the policy that it names whether or not it can be read, the config,
// and which test files the folders hold.
type watchedSet []watchedState

type watchedState struct {
	path  string
	state func() fingerprint
	seen  fingerprint
}

func watchedBy(args []string, config string) watchedSet {
	var set watchedSet
	add := func(path string, state func() fingerprint) {
		set = append(set, watchedState{path, state, state()})
	}
	addFile := func(path string) { add(path, func() fingerprint { return fingerprintOf(path) }) }
	if config != "" {
		addFile(config)
	}
	if len(args) == 0 {
		args = []string{"."}
	}
	for _, arg := range args {
		files := []string{arg}
		if info, err := os.Stat(arg); err == nil && info.IsDir() {
			list := func() fingerprint {
				found, _ := testFiles([]string{arg})
				return sha256.Sum256(fmt.Append(nil, strings.Join(found, "\x00")))
			}
			add(filepath.Join(arg, "_test.yaml"), list)
			files, _ = testFiles([]string{arg})
		}
		for _, file := range files {
			addFile(file)
			if of, ok := policyNamedBy(file); ok {
				addFile(of)
			}
		}
	}
	return set
}

func policyNamedBy(file string) (path string, ok bool) {
	data, err := readBounded(file, maxTestFile)
	if err != nil {
		return "", false
	}
	of, err := trial.ReadPolicyName(file, data)
	if err != nil || of == "" {
		return "", false
	}
	return policyOf(file, of), true
}

// wait returns true when something of the set is no longer as it was, and false
// when ctx ends.
func (set watchedSet) wait(ctx context.Context) bool {
	ctx, cancel := context.WithCancel(ctx)
	changed := make(chan struct{}, 1)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for _, w := range set {
		all.Go(func() {
			watchState(ctx, w.path, w.state, func() fingerprint { return w.seen }, func() {
				select {
				case changed <- struct{}{}:
				default: // one is waiting
				}
			})
		})
	}
	select {
	case <-changed:
		return true
	case <-ctx.Done():
		return false
	}
}
