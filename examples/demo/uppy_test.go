package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// playwright is the version of playwright-core, which drives the browser.
const playwright = "1.65.1"

// What the page can be asked for: see examples/uppy/page/page.js.
const (
	uppy5       = "v5"
	uppy6Cookie = "v6-cookie"
	uppy6Sign   = "v6-sign"
)

var uppyClients = []string{uppy5, uppy6Cookie, uppy6Sign}

// A uppyLab is a page with Uppy behind a gateway, and a browser.
type uppyLab struct {
	gateway  *gateway
	emulator authEmulator
	page     string // the address of the page's own server
	chromium string
	node     string
	driver   string
	files    map[string]string // tiny, small and large, by name
}

// TestUppy uploads with the real clients in a real browser: a byte, 6 MiB and
// 120 MiB in parts, by each way that Uppy has. SIDEGATE_SCREENSHOTS names a
// folder for pictures of the page.
func TestUppy(t *testing.T) {
	l := startUppyLab(t)
	l.startGateway(t, exampleSetup(t, "uppy"))
	for _, client := range uppyClients {
		t.Run(client, func(t *testing.T) {
			user := l.signUp(t, client)
			said := l.browse(t, client, l.credential(user, client), "upload", "resume", "abort", "refused")
			if n := said["resume"].Parts; n != 11 {
				t.Errorf("%d parts were sent after the reload, want the 11 that had not arrived", n)
			}
			if status := said["abort"].Status; status/100 != 2 && !(client == uppy6Sign && status == http.StatusNotFound) {
				t.Errorf("the abort was answered with %d", status)
			}
			wantRefusal(t, client, said["refused"])

			sessions := l.sessions(t, user)
			states := map[string]int{}
			for _, s := range sessions {
				states[fmt.Sprintf("%s %d", s.Status, s.Size)]++
			}
			want := map[string]int{"ready 1": 1, "ready 6291456": 1, "ready 125829120": 2}
			aborted := 0
			for state, n := range states {
				if strings.HasPrefix(state, "aborted") {
					aborted += n
				} else if want[state] != n {
					t.Errorf("%d uploads are %q, want %d", n, state, want[state])
				}
			}
			if aborted != 1 || len(sessions) != 5 {
				t.Errorf("%d of %d uploads are aborted, want one of five: %v", aborted, len(sessions), states)
			}
			l.wantContent(t, user, sessions)
		})
	}
	wantNoOpenUploads(t)
	wantWholeLog(t, l.gateway)
	t.Run("nobody confirms", l.nobodyConfirms)
}

// nobodyConfirms: the page says nothing when it is done, as one does that was made
// for Companion. The gateway finds the objects by itself.
func (l *uppyLab) nobodyConfirms(t *testing.T) {
	s := exampleSetup(t, "uppy")
	const line = "expires: {default: 15m, min: 1m, max: 15m}"
	if !strings.Contains(s.policy, line) {
		t.Fatalf("the policy has no %q", line)
	}
	s.policy = strings.Replace(s.policy, line, "expires: {default: 10s, min: 2s, max: 15m}", 1)
	l.startGateway(t, s)
	var users []account
	for _, client := range uppyClients {
		user := l.signUp(t, "silent-"+client)
		users = append(users, user)
		said := l.browse(t, client, l.credential(user, client), "unconfirmed")
		if n := said["unconfirmed"].Parts; n != 24 { // 120 MiB by 5
			t.Errorf("%s: %d parts were sent, want 24", client, n)
		}
	}
	for i, user := range users {
		until := time.Now().Add(90 * time.Second)
		for !slices.Equal(l.states(t, user), []string{"ready", "ready"}) {
			if time.Now().After(until) {
				t.Fatalf("client %d: %v", i, l.states(t, user))
			}
			<-time.After(250 * time.Millisecond)
		}
	}
}

func startUppyLab(t *testing.T) *uppyLab {
	t.Helper()
	l := &uppyLab{chromium: findChromium(t), files: map[string]string{}}
	var err error
	if l.node, err = exec.LookPath("node"); err != nil {
		needs(t, "Node.js, for Uppy,", "install Node.js 20 or later with npm")
	}
	l.driver = filepath.Join(lab.root, "examples", "demo", "testdata", "uppy.mjs")
	l.page = unusedAddress(t)
	_, port, _ := strings.Cut(l.page, ":")
	server := exec.Command(l.node, "server.mjs")
	server.Dir = buildUppy(t)
	server.Env = append(os.Environ(), "PORT="+port)
	startComponent(t, server, "http://"+l.page+"/")

	l.emulator = authEmulator{t, startAuthEmulator(t)}
	for name, size := range map[string]int64{"tiny.txt": 1, "small größe.png": 6 << 20, "large.mp4": 120 << 20} {
		l.files[strings.FieldsFunc(name, func(r rune) bool { return r == '.' || r == ' ' })[0]] = writeNoise(t, filepath.Join(t.TempDir(), name), size)
	}
	return l
}

// startGateway runs the example's gateway, whose users are the emulator's.
func (l *uppyLab) startGateway(t *testing.T, s setup) {
	t.Helper()
	const upstream = `url: "http://127.0.0.1:3000"`
	if !strings.Contains(s.config, upstream) {
		t.Fatalf("the example has no %s", upstream)
	}
	s.config = strings.Replace(s.config, upstream, `url: "http://`+l.page+`"`, 1)
	s.flags = append(s.flags, "--insecure-emulator")
	s.env = append(s.env, "FIREBASE_AUTH_EMULATOR_HOST="+l.emulator.host)
	l.gateway = startGateway(t, s)
}

// findChromium gives Debian's browser, or one that is called so elsewhere.
func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	needs(t, "Chromium", "apt-get install chromium")
	return ""
}

// buildUppy gives the folder of a built examples/uppy, made once for each of its
// states: its packages come from npm as its lock file has them.
func buildUppy(t *testing.T) string {
	t.Helper()
	source := filepath.Join(lab.root, "examples", "uppy")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	files := sourcesOf(t, source)
	sum := sha256.New()
	for _, name := range files {
		fmt.Fprintf(sum, "%q ", name)
		addFile(t, sum, filepath.Join(source, name))
	}
	folder := filepath.Join(cache, "sidegate", "uppy-"+hex.EncodeToString(sum.Sum(nil)[:8]))
	if _, err := os.Stat(folder); err == nil {
		return folder
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		needs(t, "npm, for Uppy,", "install Node.js 20 or later with npm")
	}
	if err := os.MkdirAll(filepath.Dir(folder), 0o700); err != nil {
		t.Fatal(err)
	}
	half, err := os.MkdirTemp(filepath.Dir(folder), "installing-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(half)
	for _, name := range files {
		content, err := os.ReadFile(filepath.Join(source, name))
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(half, name)), 0o700)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(half, name), content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Log("installing and building examples/uppy, once (some seconds)")
	for _, args := range [][]string{{"ci"}, {"run", "build"}} {
		c := exec.CommandContext(t.Context(), npm, args...)
		c.Dir = half
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("npm %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	if err := os.Rename(half, folder); err != nil {
		if _, there := os.Stat(folder); there != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// sourcesOf are the files of the example, without what was built or installed.
func sourcesOf(t *testing.T, folder string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == "dist"):
			return filepath.SkipDir
		case !d.IsDir():
			name, err := filepath.Rel(folder, path)
			files = append(files, name)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func addFile(t *testing.T, sum hash.Hash, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.Copy(sum, f); err != nil {
		t.Fatal(err)
	}
}

// writeNoise writes a file of that size whose parts all differ.
func writeNoise(t *testing.T, path string, size int64) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	noise := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(f, noise, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func (l *uppyLab) signUp(t *testing.T, client string) account {
	t.Helper()
	e := l.emulator
	e.t = t
	return e.signUp(client+"@example.com", "")
}

// credential is what the page is given.
func (l *uppyLab) credential(user account, client string) string {
	if client == uppy6Cookie {
		return l.emulator.cookie(user.IDToken)
	}
	return user.IDToken
}

// A uppyStep is what the browser said of one step.
type uppyStep struct {
	Step          string
	Parts, Status int
	Tiny, Large   string
}

// browse takes the steps in a fresh browser, and gives what was said of each.
func (l *uppyLab) browse(t *testing.T, client, credential string, steps ...string) map[string]uppyStep {
	t.Helper()
	task, err := json.Marshal(map[string]any{
		"playwright": installNode(t, "playwright-core", playwright),
		"chromium":   l.chromium, "url": l.gateway.url, "client": client, "credential": credential,
		"files": l.files, "steps": steps, "shots": os.Getenv("SIDEGATE_SCREENSHOTS"),
	})
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), l.node, l.driver, string(task))
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	said := map[string]uppyStep{}
	for line := range bytes.Lines(out) {
		var step uppyStep
		if json.Unmarshal(line, &step) != nil {
			t.Errorf("the browser's driver said %q", line)
			continue
		}
		said[step.Step] = step
	}
	if err != nil {
		t.Fatalf("the browser: %v\n%s%s", err, out, &errs)
	}
	if _, bad := said["pageerror"]; bad {
		t.Errorf("the page broke: %s", out)
	}
	return said
}

// wantRefusal holds what a user without a good token is told.
func wantRefusal(t *testing.T, client string, said uppyStep) {
	t.Helper()
	want := map[string]string{
		uppy5:       "Authorization required",
		uppy6Cookie: "Companion request failed: Unauthorized",
		uppy6Sign:   "token",
	}[client]
	for _, text := range []string{said.Tiny, said.Large} {
		if !strings.Contains(text, want) {
			t.Errorf("the user is told %q, want %q", text, want)
		}
	}
}

// A uppySession is one of a user's uploads, as the gateway lists it.
type uppySession struct {
	Key, Status, ContentType string
	Size                     int64
}

func (l *uppyLab) sessions(t *testing.T, user account) []uppySession {
	t.Helper()
	var list struct{ Uploads []uppySession }
	ask(t, http.MethodGet, l.gateway.url+"/v1/uploads?pageSize=100", user.IDToken, "").want(t, http.StatusOK).decode(t, &list)
	return list.Uploads
}

func (l *uppyLab) states(t *testing.T, user account) (states []string) {
	t.Helper()
	for _, s := range l.sessions(t, user) {
		states = append(states, s.Status)
	}
	return states
}

// wantContent downloads what is ready and compares it with the files.
func (l *uppyLab) wantContent(t *testing.T, user account, sessions []uppySession) {
	t.Helper()
	bySize := map[int64]string{}
	for _, path := range l.files {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		bySize[info.Size()] = path
	}
	for _, s := range sessions {
		if s.Status != "ready" {
			continue
		}
		if !strings.HasPrefix(s.Key, "users/"+user.LocalID+"/uploads/") {
			t.Errorf("key %q", s.Key)
		}
		var got struct{ GetURL string }
		ask(t, http.MethodGet, l.gateway.url+"/v1/files/"+s.Key+"/download", user.IDToken, "").want(t, http.StatusOK).decode(t, &got)
		back := ask(t, http.MethodGet, got.GetURL, "", "").want(t, http.StatusOK)
		want, err := os.ReadFile(bySize[s.Size])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(back.body, want) {
			at := 0
			for at < min(len(want), len(back.body)) && want[at] == back.body[at] {
				at++
			}
			t.Errorf("%s: %d bytes came back, other ones from %d on", s.Key, len(back.body), at)
		}
		if strings.HasSuffix(bySize[s.Size], ".png") && !strings.HasSuffix(s.Key, ".png") || s.ContentType == "" {
			t.Errorf("%s is of type %q", s.Key, s.ContentType)
		}
	}
}

// wantNoOpenUploads looks into the store's folder, which holds what is open.
func wantNoOpenUploads(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(lab.store.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.Contains(path, "/objects/") && strings.Contains(path, "/.sgwtmp/multipart/") {
			t.Errorf("a multipart upload is open at the store: %s", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// wantWholeLog holds that each decision has its outcome, and that what a client
// did of an upload is on record.
func wantWholeLog(t *testing.T, g *gateway) {
	t.Helper()
	if status := g.stop(t); status != 0 {
		t.Errorf("the gateway ended with %d", status)
	}
	decided, ended := map[string]int{}, map[string]int{}
	operations := map[string]int{}
	for _, e := range readLedger(t, g.dir) {
		switch e.Type {
		case "decision":
			decided[e.Record]++
			if e.Decision.Effect == "allow" && e.Decision.Route == "uppy" {
				operations[e.Object.Operation]++
				if e.Object.Key == "" || e.Object.Session == "" {
					t.Errorf("record %s is of no object: %+v", e.Record, e.Object)
				}
			}
		case "outcome":
			ended[e.Record]++
		}
	}
	for record := range decided {
		if decided[record] != 1 || ended[record] != 1 {
			t.Errorf("record %s has %d decisions and %d outcomes", record, decided[record], ended[record])
		}
	}
	for _, operation := range []string{"post", "multipart_create", "multipart_sign", "multipart_list", "multipart_complete", "multipart_abort", "confirm"} {
		if operations[operation] < 3 { // of each client
			t.Errorf("%d records of %s: %v", operations[operation], operation, operations)
		}
	}
	t.Logf("on record: %v", operations)
}
