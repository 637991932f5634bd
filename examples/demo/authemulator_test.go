package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// firebaseTools is the version of the Firebase CLI, whose Auth emulator is
// Google's own.
const firebaseTools = "15.34.2"

// TestAuthEmulator signs a user up at the Firebase Auth emulator and calls the
// gateway with the token it gives, which nobody signed.
func TestAuthEmulator(t *testing.T) {
	host := startAuthEmulator(t)
	g := startGateway(t, setup{
		flags: []string{"--insecure-emulator"},
		env:   []string{"FIREBASE_AUTH_EMULATOR_HOST=" + host},
	})
	var account struct{ LocalID, IDToken string }
	ask(t, http.MethodPost, "http://"+host+"/identitytoolkit.googleapis.com/v1/accounts:signUp?key=any", "",
		`{"email": "dora@example.com", "password": "not a secret", "returnSecureToken": true}`).
		want(t, http.StatusOK).decode(t, &account)
	if account.LocalID == "" || account.IDToken == "" {
		t.Fatal("the emulator gave no token")
	}
	var seen struct{ Headers map[string]string }
	ask(t, http.MethodGet, g.url+"/v1/me", account.IDToken, "").want(t, http.StatusOK).decode(t, &seen)
	if got := seen.Headers["X-Sidegate-Uid"]; got != account.LocalID {
		t.Errorf("the app saw uid %q, want %q", got, account.LocalID)
	}
	if got, there := seen.Headers["X-Sidegate-Email"]; there {
		t.Errorf("the app saw the e-mail address %q, which nobody has verified", got)
	}
	key := "users/" + account.LocalID + "/uploads/x.txt"
	ask(t, http.MethodGet, g.url+"/v1/files/"+key+"/download", account.IDToken, "").want(t, http.StatusOK)

	// Without the switch the same token is worth nothing.
	strict := startGateway(t, setup{})
	ask(t, http.MethodGet, strict.url+"/v1/me", account.IDToken, "").problem(t, http.StatusUnauthorized, "invalid_token")
}

func startAuthEmulator(t *testing.T) string {
	t.Helper()
	firebase := installFirebase(t)
	dir := t.TempDir()
	address, hub, logging := unusedAddress(t), unusedAddress(t), unusedAddress(t)
	config := fmt.Sprintf(`{"emulators": {"auth": %s, "hub": %s, "logging": %s, "ui": {"enabled": false}}}`,
		place(t, address), place(t, hub), place(t, logging))
	if err := os.WriteFile(filepath.Join(dir, "firebase.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(firebase, "emulators:start", "--only", "auth", "--project", project)
	c.Dir = dir
	c.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "CI=true")
	startComponent(t, c, "http://"+address+"/")
	return address
}

// place is the address as firebase.json has it.
func place(t *testing.T, address string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"host": %q, "port": %s}`, host, port)
}

// installFirebase gives the Firebase CLI.
func installFirebase(t *testing.T) string {
	t.Helper()
	return filepath.Join(installNode(t, "firebase-tools", firebaseTools), "node_modules", ".bin", "firebase")
}

// installNode gives the folder in which a package of npm is, installed once for
// this user. Without install scripts and optional parts: those of firebase-tools
// compile for minutes, and are not the emulator's.
func installNode(t *testing.T, name, version string) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(cache, "sidegate", name+"-"+version)
	if _, err := os.Stat(folder); err == nil {
		return folder
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		needs(t, "npm, for "+name+",", "install Node.js 20 or later with npm")
	}
	if err := os.MkdirAll(filepath.Dir(folder), 0o700); err != nil {
		t.Fatal(err)
	}
	// Beside it first: half an installation must not look like one.
	half, err := os.MkdirTemp(filepath.Dir(folder), "installing-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(half)
	t.Logf("installing %s %s, once (a minute)", name, version)
	c := exec.CommandContext(t.Context(), npm, "install", name+"@"+version,
		"--prefix", half, "--ignore-scripts", "--omit=optional", "--no-audit", "--no-fund")
	c.Dir = half
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("npm install: %v\n%s", err, out)
	}
	if err := os.Rename(half, folder); err != nil {
		if _, there := os.Stat(folder); there != nil {
			t.Fatal(err)
		}
	}
	return folder
}
