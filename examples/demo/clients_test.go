package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Versions of what compiles and checks the client in TypeScript.
const (
	typescript = "5.9.3"
	nodeTypes  = "20.19.25"
)

// TestClients runs the clients of examples/clients as a user would, with the
// gateway, its policy and the store between them, while answers are lost,
// refused and late.
func TestClients(t *testing.T) {
	for name, start := range map[string]func(*testing.T) []string{
		"curl": func(t *testing.T) []string {
			for _, program := range []string{"curl", "jq", "openssl"} {
				if _, err := exec.LookPath(program); err != nil {
					needs(t, program, "apt-get install "+program)
				}
			}
			return []string{"bash", filepath.Join(clientsFolder(), "curl", "sidegate.sh")}
		},
		"python": func(t *testing.T) []string {
			if _, err := exec.LookPath("python3"); err != nil {
				needs(t, "python3", "apt-get install python3")
			}
			return []string{"python3", "-B", filepath.Join(clientsFolder(), "python", "sidegate.py")}
		},
		"typescript": compileTypeScript,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			newClient(t, start(t)).test(t)
		})
	}
}

func clientsFolder() string { return filepath.Join(lab.root, "examples", "clients") }

// compileTypeScript checks the client's types, compiles it, and gives the
// command that runs it.
func compileTypeScript(t *testing.T) []string {
	t.Helper()
	node, err := exec.LookPath("node")
	if err != nil {
		needs(t, "Node.js", "install Node.js 20 or later with npm")
	}
	out := t.TempDir()
	compiler := filepath.Join(installNode(t, "typescript", typescript), "node_modules", "typescript", "bin", "tsc")
	types := filepath.Join(installNode(t, "@types/node", nodeTypes), "node_modules", "@types")
	source := filepath.Join(clientsFolder(), "typescript")
	c := exec.CommandContext(t.Context(), node, compiler, "-p", source, "--typeRoots", types, "--outDir", out)
	if complaints, err := c.CombinedOutput(); err != nil {
		t.Fatalf("tsc: %v\n%s", err, complaints)
	}
	// As package.json has it: what is compiled are modules.
	if err := os.WriteFile(filepath.Join(out, "package.json"), []byte(`{"type": "module"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{node, "--no-warnings", filepath.Join(out, "main.js")}
}

// A client is a command of examples/clients, with a gateway of its own.
type client struct {
	command []string
	gateway *gateway
	store   *storeProxy
	dir     string
	uid     string
}

func newClient(t *testing.T, command []string) *client {
	t.Helper()
	c := &client{command: command, store: newStoreProxy(t), dir: t.TempDir(), uid: "alice"}
	s := exampleSetup(t, "clients").behind(c.store)
	// So slow that a client which does not wait as it is told is refused for good.
	s.policy = strings.Replace(s.policy, "limit: {rate: 5/s, burst: 30, per: uid}", "limit: {rate: 1/s, burst: 1, per: uid}", 1)
	c.gateway = startGateway(t, s)
	return c
}

// run runs a command of the client's, and gives what it printed.
func (c *client) run(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	line := append(slices.Clone(c.command), args...)
	run := exec.CommandContext(t.Context(), line[0], line[1:]...)
	run.Dir = c.dir
	run.Env = append(os.Environ(), "SIDEGATE_URL="+c.gateway.url, "SIDEGATE_TOKEN="+token(t, c.uid))
	var out, errs bytes.Buffer
	run.Stdout, run.Stderr = &out, &errs
	err = run.Run()
	if strings.Contains(out.String()+errs.String(), "X-Amz-Signature") {
		t.Errorf("%s: a signed URL is shown: %s%s", args[0], &out, &errs)
	}
	return out.String(), errs.String(), err
}

// does fails unless the command succeeds, and decodes what it printed.
func (c *client) does(t *testing.T, into any, args ...string) {
	t.Helper()
	stdout, stderr, err := c.run(t, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", args, err, stdout, stderr)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal([]byte(stdout), into); err != nil {
		t.Fatalf("%s: %v: %s", args, err, stdout)
	}
}

// refused fails unless the command ends with that complaint.
func (c *client) refused(t *testing.T, complaint string, args ...string) {
	t.Helper()
	stdout, stderr, err := c.run(t, args...)
	if err == nil || !strings.Contains(stderr, complaint) {
		t.Errorf("%s: %v, want %q\n%s%s", args, err, complaint, stdout, stderr)
	}
}

// file makes one with content of its own, and gives its path.
func (c *client) file(t *testing.T, name string, size int) string {
	t.Helper()
	path := filepath.Join(c.dir, name)
	content := bytes.Repeat([]byte("sidegate "+name+"\n"), size/8)[:size]
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

type confirmed struct {
	Key, Status, ContentType string
	Size                     int
}

func (c *client) test(t *testing.T) {
	small, large := c.file(t, "small file.png", 100_000), c.file(t, "large", 17<<20)
	put, form, parts := c.uploads(t, small, large)
	c.resumes(t, large)
	c.reads(t, small, put)
	c.reads(t, small, form)
	c.reads(t, large, parts)
	c.refusals(t, small)

	var listed []struct{ Key string }
	c.does(t, &listed, "list")
	if !slices.ContainsFunc(listed, func(o struct{ Key string }) bool { return o.Key == put }) {
		t.Errorf("%s is not among the %d objects listed", put, len(listed))
	}
	var sessions []struct{ Key, Status string }
	c.does(t, &sessions, "uploads")
	if !slices.Contains(sessions, struct{ Key, Status string }{parts, "ready"}) {
		t.Errorf("%s is not among the uploads listed: %v", parts, sessions)
	}
	c.does(t, nil, "delete", put)
	c.refused(t, "the object store answered 404", "download", put, filepath.Join(c.dir, "gone"))
}

// uploads sends files in the three ways, with failures that a client gets over.
func (c *client) uploads(t *testing.T, small, large string) (put, form, parts string) {
	t.Helper()
	upload := func(size int, args ...string) string {
		t.Helper()
		var done confirmed
		c.does(t, &done, args...)
		if done.Status != "ready" || done.Size != size || done.ContentType != args[2] || !strings.HasPrefix(done.Key, "users/"+c.uid+"/uploads/") {
			t.Errorf("%s: confirmed as %+v", args, done)
		}
		return done.Key
	}
	// The store has it, and nobody told the client: 412 the second time.
	c.store.fails(once("PutObject", fault{lost: true}))
	put = upload(100_000, "upload", small, "image/png")
	if n := c.store.count("PutObject"); n != 2 {
		t.Errorf("%d PUTs, want 2", n)
	}
	// The next must wait as Retry-After says; and the confirmation as the gateway says.
	c.store.fails(once("HeadObject", fault{status: http.StatusForbidden}))
	upload(100_000, "upload", small, "image/png")
	c.store.fails(once("PostObject", fault{status: http.StatusServiceUnavailable, header: http.Header{"Retry-After": {"1"}}}))
	form = upload(100_000, "form", small, "image/png")

	// One part is refused for a moment, another's answer is lost, a third's URL is no longer good.
	c.store.fails(func(call storeCall) fault {
		if call.op != "UploadPart" || call.n > 0 {
			return fault{}
		}
		return map[string]fault{"1": {status: http.StatusInternalServerError}, "2": {lost: true}, "3": {status: http.StatusForbidden}}[call.part]
	})
	parts = upload(17<<20, "parts", large, "video/mp4")
	if n := c.store.count("UploadPart"); n != 6 {
		t.Errorf("%d parts sent, want 6", n)
	}
	c.store.fails(nil)
	return put, form, parts
}

// resumes breaks an upload in parts off, and goes on with it.
func (c *client) resumes(t *testing.T, large string) {
	t.Helper()
	key := rand.Text() // another one would be another client's upload
	c.store.fails(func(call storeCall) fault {
		if call.op == "UploadPart" && call.part == "3" {
			return fault{status: http.StatusBadRequest}
		}
		return fault{}
	})
	c.refused(t, "the object store answered 400", "parts", large, "video/mp4", key)
	c.store.fails(nil)
	c.store.count("UploadPart")
	var first, again confirmed
	c.does(t, &first, "parts", large, "video/mp4", key)
	if n := c.store.count("UploadPart"); n != 1 {
		t.Errorf("%d parts sent, want the missing one", n)
	}
	c.does(t, &again, "parts", large, "video/mp4", key) // its answer was lost, say
	if n := c.store.count("UploadPart"); n != 0 || again != first {
		t.Errorf("%d parts sent again; %+v, want %+v", n, again, first)
	}
}

// reads fails unless what lies under the key is the file.
func (c *client) reads(t *testing.T, file, key string) {
	t.Helper()
	c.store.fails(once("GetObject", fault{down: true}))
	defer c.store.fails(nil)
	back := filepath.Join(c.dir, "back")
	c.does(t, nil, "download", key, back)
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back, want the %d of %s (%v)", len(got), len(want), file, err)
	}
}

func (c *client) refusals(t *testing.T, small string) {
	t.Helper()
	c.refused(t, "415 unsupported_type", "upload", small, "text/html")
	c.refused(t, "413 too_large", "upload", c.file(t, "too large", 26<<20), "image/png")
	c.refused(t, "403 not_allowed", "download", "users/bob/x.txt", filepath.Join(c.dir, "x"))
	c.refused(t, "403 not_allowed", "delete", "users/bob/x.txt")
	c.refused(t, "403 not_allowed", "list", "users/bob/")
	c.refused(t, "404 no_session", "abort", strings.Repeat("0", 32))
	// What lands is not what was signed.
	c.store.fails(once("PutObject", fault{status: http.StatusBadRequest}))
	c.refused(t, "the object store answered 400", "upload", small, "image/png")
	c.store.fails(nil)
}
