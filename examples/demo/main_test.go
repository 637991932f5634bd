package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// lab is what the tests share: the programs, built once, and the parts around
// a gateway that outlive it. The tests know the gateway by HTTP, by its
// command line and by the files it documents, never by its insides.
var lab struct {
	root     string // of the repository
	sidegate string // the programs
	demo     string
	issuer   *issuer
	keysURL  string
	app      *app
	appURL   string
	store    *store
	// firestore is the emulator that tests share: see sharedFirestore.
	firestore struct {
		sync.Mutex
		address string
		stop    func()
	}
}

func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "set up the tests:", err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "sidegate-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	// Before the store starts, which changes the working folder.
	if lab.root, err = filepath.Abs("../.."); err != nil {
		return 0, err
	}
	lab.sidegate, lab.demo = filepath.Join(dir, "sidegate"), filepath.Join(dir, "demo")
	if err := build(lab.root, lab.sidegate, "./cmd/sidegate"); err != nil {
		return 0, err
	}
	if err := build(filepath.Join(lab.root, "examples", "demo"), lab.demo, "."); err != nil {
		return 0, err
	}

	if lab.issuer, err = newIssuer(); err != nil {
		return 0, err
	}
	keys := httptest.NewServer(lab.issuer)
	defer keys.Close()
	lab.keysURL = keys.URL + "/keys"
	lab.app = newApp()
	sample := httptest.NewServer(lab.app)
	defer sample.Close()
	lab.appURL = sample.URL
	address, err := freeAddress("127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	if lab.store, err = startStore(context.Background(), filepath.Join(dir, "store"), address); err != nil {
		return 0, err
	}
	defer lab.store.stop()
	defer func() {
		if lab.firestore.stop != nil {
			lab.firestore.stop()
		}
	}()
	return m.Run(), nil
}

func build(folder, to, what string) error {
	fmt.Fprintf(os.Stderr, "building %s (some minutes where nothing is built yet)\n", filepath.Base(to))
	// With the flags of the Makefile and the Dockerfile: what is tested is what
	// is run, and it is compiled once.
	c := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace,disable_grpc_modules", "-o", to, what)
	c.Dir = folder
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", what, err, out)
	}
	return nil
}

// needs skips the test, loudly, because a component is missing; where CI=true
// that is a failure.
func needs(t *testing.T, component, how string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing, and CI needs it: %s", component, how)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s is missing: %s", component, how)
}

// token is a fresh token of one of the demo's users.
func token(t *testing.T, uid string) string {
	t.Helper()
	for _, u := range users {
		if u.UID == uid {
			text, err := lab.issuer.token(u, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			return text
		}
	}
	t.Fatalf("no user %q", uid)
	return ""
}
