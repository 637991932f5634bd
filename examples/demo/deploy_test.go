package main

import (
	"bytes"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// A deployment is a folder of examples: how to run the gateway at one place.
type deployment struct {
	name  string
	env   map[string]string // what the place gives to the gateway, with made-up values; the region is the lab's store's
	flags []string
	// bucket is the line, or the lines, that stand for a bucket of AWS: in the
	// tests its place is taken by the lab's store.
	bucket string
}

// deployments are those whose files docs/deployment.md explains.
var deployments = []deployment{
	{
		name: "cloudrun",
		env: map[string]string{
			"K_SERVICE": "notes", "PORT": "8080",
			"GOOGLE_CLOUD_PROJECT": project, "S3_BUCKET": bucket, "S3_REGION": "us-east-1",
			"AWS_ROLE": "arn:aws:iam::111122223333:role/notes-gateway",
		},
		bucket: `    credentials: {role: "${env:AWS_ROLE}", from: google}`,
	},
	{
		name: "ecs",
		env: map[string]string{
			"GOOGLE_CLOUD_PROJECT": project, "S3_BUCKET": bucket, "AWS_REGION": "us-east-1", "VPC_CIDR": "10.0.0.0/16",
			"GOOGLE_APPLICATION_CREDENTIALS": "/etc/sidegate/google.json",
		},
		bucket: `  default: {bucket: "${env:S3_BUCKET}"}`,
	},
	{
		name: "kubernetes",
		env: map[string]string{
			"GOOGLE_CLOUD_PROJECT": project, "S3_BUCKET": bucket, "S3_REGION": "us-east-1", "INGRESS_CIDR": "10.0.0.0/8",
			"AWS_ROLE": "arn:aws:iam::111122223333:role/notes-gateway",
		},
		bucket: `    credentials: {role: "${env:AWS_ROLE}", from: google}`,
	},
	{
		name: "compose",
		env: map[string]string{
			"GOOGLE_CLOUD_PROJECT": project, "S3_BUCKET": bucket, "S3_ACCESS_KEY": "sidegate", "S3_SECRET_KEY": "of-the-test",
			"FIRESTORE_EMULATOR_HOST": "firestore:8200", "FIREBASE_AUTH_EMULATOR_HOST": "127.0.0.1:9099",
		},
		flags:  []string{"--insecure-emulator"},
		bucket: `    endpoint: http://store:7070`,
	},
	{
		name:   "systemd",
		env:    map[string]string{"GOOGLE_CLOUD_PROJECT": project, "S3_BUCKET": bucket, "AWS_REGION": "us-east-1"},
		bucket: `  default: {bucket: "${env:S3_BUCKET}"}`,
	},
}

func (d deployment) path(name string) string {
	return filepath.Join(lab.root, "examples", d.name, name)
}

func (d deployment) read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(d.path(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func deploymentNamed(t *testing.T, name string) deployment {
	t.Helper()
	for _, d := range deployments {
		if d.name == name {
			return d
		}
	}
	t.Fatalf("no deployment %q", name)
	return deployment{}
}

// A deployedConfig is what of sidegate.yaml must agree with a platform's files.
type deployedConfig struct {
	Listen struct {
		Address       string   `json:"address"`
		ShutdownGrace string   `json:"shutdown_grace"`
		DrainDelay    string   `json:"drain_delay"`
		Proxies       []string `json:"trusted_proxies"`
	} `json:"listen"`
	Admin     struct{ Address string } `json:"admin"`
	Upstreams map[string]struct {
		URL string `json:"url"`
	} `json:"upstreams"`
	Redis   struct{ URL string }
	Storage struct {
		Local     *struct{ Dir string } `json:"local"`
		Firestore *struct{}             `json:"firestore"`
	} `json:"storage"`
	Audit struct {
		Dir, Survive, Key string
		MaxSize           string    `json:"max_size"`
		Firestore         *struct{} `json:"firestore"`
	} `json:"audit"`
}

func (d deployment) config(t *testing.T) deployedConfig {
	t.Helper()
	var c deployedConfig
	if err := yaml.Unmarshal([]byte(d.read(t, "sidegate.yaml")), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

var (
	variableForm = regexp.MustCompile(`\$\{env:([A-Z0-9_]+)(:[^}]*)?\}`)
	fileForm     = regexp.MustCompile(`\$\{file:([^}]+)\}`)
)

// variables are those that sidegate.yaml reads.
func (d deployment) variables(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, m := range variableForm.FindAllStringSubmatch(d.read(t, "sidegate.yaml"), -1) {
		names[m[1]] = true
	}
	return names
}

// givesVariables holds what a platform's file gives the gateway against what
// sidegate.yaml reads: neither may miss one of the other's. Besides are those that
// the platform gives by itself, or that the SDKs read.
func (d deployment) givesVariables(t *testing.T, given []string, besides ...string) {
	t.Helper()
	read := d.variables(t)
	for name := range read {
		if !slices.Contains(given, name) && !slices.Contains(besides, name) {
			t.Errorf("sidegate.yaml reads %s, which nothing gives", name)
		}
	}
	for _, name := range given {
		if !read[name] && !slices.Contains(besides, name) {
			t.Errorf("%s is given, and sidegate.yaml does not read it", name)
		}
	}
	// The environment that the other tests use is this one.
	for _, name := range given {
		if _, there := d.env[name]; !there && name != "AUDIT_KEY" {
			t.Errorf("the tests run it without %s", name)
		}
	}
}

// key makes a key that signs checkpoints.
func deploymentKey(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "audit.key")
	if status, _, errs := sidegate(t, nil, "audit", "keygen", "--out", file); status != 0 {
		t.Fatalf("keygen: status %d: %s", status, errs)
	}
	return file
}

// placed is sidegate.yaml with the files of this run in the places of those that
// the platform mounts, and the rest of the environment.
func (d deployment) placed(t *testing.T) (config string, env []string) {
	t.Helper()
	keyFile := deploymentKey(t)
	config = d.read(t, "sidegate.yaml")
	for _, m := range fileForm.FindAllStringSubmatch(config, -1) {
		config = strings.ReplaceAll(config, m[1], keyFile)
	}
	for name, value := range d.env {
		env = append(env, name+"="+value)
	}
	if strings.Contains(config, "${env:AUDIT_KEY}") {
		key, err := os.ReadFile(keyFile)
		if err != nil {
			t.Fatal(err)
		}
		// As the README's step makes the secret of it: with the file's line break.
		env = append(env, "AUDIT_KEY="+string(key))
	}
	return config, env
}

// TestDeployCheck: `sidegate check` finds nothing in the files of any
// deployment, with what the place gives and nothing else, and their policies
// pass their tests.
func TestDeployCheck(t *testing.T) {
	policy := deployments[0].read(t, "policy.yaml")
	for _, d := range deployments {
		t.Run(d.name, func(t *testing.T) {
			config, env := d.placed(t)
			dir := t.TempDir()
			writeDefault(t, dir, "sidegate.yaml", config)
			for _, name := range []string{"policy.yaml", "policy_test.yaml"} {
				writeDefault(t, dir, name, d.read(t, name))
			}
			file := filepath.Join(dir, "sidegate.yaml")
			status, out, errs := sidegate(t, env, append([]string{"check", "--config", file}, d.flags...)...)
			if status != 0 || !strings.HasSuffix(out, ")\n") || !strings.Contains(out, "policy notes") {
				t.Errorf("check: status %d: %s%s", status, out, errs)
			}
			// A warning of an example is one that every reader copies; emulators are meant here.
			for line := range strings.Lines(out + errs) {
				if strings.Contains(line, "warning") && !strings.Contains(line, "--insecure-emulator") {
					t.Errorf("check warns: %s", line)
				}
			}
			// Each variable is one that is needed: without it, check says so.
			for name := range d.variables(t) {
				without := slices.DeleteFunc(slices.Clone(env), func(v string) bool { return strings.HasPrefix(v, name+"=") })
				if status, _, _ := sidegate(t, without, append([]string{"check", "--config", file}, d.flags...)...); status == 0 {
					t.Errorf("check does not miss %s", name)
				}
			}
			for _, args := range [][]string{{"policy", "test", dir}, {"policy", "lint", filepath.Join(dir, "policy.yaml")}} {
				if status, out, errs := sidegate(t, nil, args...); status != 0 {
					t.Errorf("%v: status %d: %s%s", args, status, out, errs)
				}
			}
			if d.read(t, "policy.yaml") != policy {
				t.Errorf("policy.yaml is not that of %s", deployments[0].name)
			}
		})
	}
}

// TestDeployRun runs each deployment's two files in front of an app and the
// lab's store, with Firestore's emulator: what they promise works, the app is told
// who calls, and what it is told is nobody else's word.
func TestDeployRun(t *testing.T) {
	for _, d := range deployments {
		t.Run(d.name, func(t *testing.T) {
			g := startGateway(t, d.setup(t, lab.appURL))
			alice := token(t, "alice")
			uploadLifecycle(t, g.url)
			var seen struct{ Headers map[string]string }
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/v1/users/alice/notes/one", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+alice)
			r.Header.Set("X-Sidegate-Uid", "bob")
			do(t, r).want(t, http.StatusOK).decode(t, &seen)
			if seen.Headers["X-Sidegate-Uid"] != "alice" || seen.Headers["Authorization"] != "" {
				t.Errorf("the app saw %v", seen.Headers)
			}
			ask(t, http.MethodGet, g.url+"/v1/users/bob/notes/one", alice, "").problem(t, http.StatusForbidden, "not_allowed")
			if d.config(t).Redis.URL != "" && g.metric(t, "sidegate_redis_duration_seconds_count") == 0 {
				t.Error("the uploads' limits did not ask Redis")
			}
			if status, _, errs := sidegate(t, nil, "health", "--started", "--address", strings.TrimPrefix(g.adminURL, "http://")); status != 0 {
				t.Errorf("it has not started: %s", errs)
			}
			if status := g.stop(t); status != 0 {
				t.Errorf("exit status %d", status)
			}
		})
	}
}

// setup is how the deployment runs here: its files, with the addresses and
// folders of this run.
func (d deployment) setup(t *testing.T, appURL string) setup {
	t.Helper()
	config, env := d.placed(t)
	dir := t.TempDir()
	replace := func(old, new string) {
		t.Helper()
		if !strings.Contains(config, old) {
			t.Fatalf("examples/%s/sidegate.yaml holds no %q", d.name, old)
		}
		config = strings.Replace(config, old, new, 1)
	}
	config = strings.ReplaceAll(config, "/var/lib/sidegate", filepath.Join(dir, "data"))
	store := `endpoint: "${env:DEMO_STORE_URL}", store: versitygw, path_style: true}`
	switch {
	case d.name == "compose": // it names a store of its own
		replace(d.bucket, `    endpoint: "${env:DEMO_STORE_URL}"`)
		replace("    public_endpoint: http://localhost:7070       # as clients outside reach it\n", "")
		replace("redis://redis:6379", "redis://"+startRedis(t).address)
		replace(`access_key: "${env:S3_ACCESS_KEY}", secret_key: "${env:S3_SECRET_KEY}"`, `access_key: "${env:DEMO_ACCESS_KEY}", secret_key: "${env:DEMO_SECRET_KEY}"`)
	case strings.HasPrefix(d.bucket, "  default:"):
		replace(d.bucket, strings.TrimSuffix(d.bucket, "}")+", "+store)
	default:
		replace(d.bucket, strings.ReplaceAll("    "+strings.TrimSuffix(store, "}"), ", ", "\n    "))
	}
	switch {
	case strings.Contains(config, "  app: {url: http://127.0.0.1:9000}"):
		replace("http://127.0.0.1:9000", appURL)
	default:
		replace("unix:///run/notes/app.sock", "unix://"+appSocket(t))
	}
	// The addresses: a port that this run found, in the place of the platform's.
	address := `address: "${env:DEMO_ADDRESS}"`
	switch c := d.config(t); {
	case c.Listen.Address != "":
		replace(`address: "`+c.Listen.Address+`"`, address)
	default:
		replace("listen:\n", "listen:\n  "+address+"\n")
	}
	if strings.Contains(config, "  tls: {") { // TestListenerWithTLS is about that
		config = regexp.MustCompile(`(?m)^  tls: \{.*\n`).ReplaceAllString(config, "")
	}
	const admin = `admin: {address: "${env:DEMO_ADMIN_ADDRESS}"}`
	if strings.Contains(config, `admin: {address: ":9180"}`) {
		replace(`admin: {address: ":9180"}`, admin)
	} else {
		config += admin + "\n"
	}
	if strings.Contains(config, "drain_delay") { // it would only be waited for
		config = regexp.MustCompile(`(?m)^  drain_delay: .*\n`).ReplaceAllString(config, "")
	}
	env = slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "FIRE") })
	flags := d.flags
	if d.config(t).Storage.Firestore != nil {
		env = append(env, "FIRESTORE_EMULATOR_HOST="+sharedFirestore(t))
		flags = []string{"--insecure-emulator"}
	}
	return setup{dir: dir, config: config, policy: d.read(t, "policy.yaml"), flags: flags, env: env}
}

// appSocket serves the lab's app at a Unix socket.
func appSocket(t *testing.T) string {
	t.Helper()
	// A short path: a socket's may have 107 bytes.
	dir, err := os.MkdirTemp("", "app")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "app.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: lab.app}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// An imageFile is what a Dockerfile says of the image that the deployments run.
type imageFile struct {
	user, workdir string
	healthcheck   []string
	entrypoint    string
	toolchain     string // that it is built with
}

// gatewayImage reads the repository's Dockerfile.
func gatewayImage(t *testing.T) imageFile {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(lab.root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	find := func(pattern string) string {
		t.Helper()
		m := regexp.MustCompile(`(?m)`+pattern).FindAllSubmatch(content, -1)
		if len(m) == 0 {
			t.Fatalf("the Dockerfile has no %s", pattern)
		}
		return string(m[len(m)-1][1]) // the last stage's
	}
	i := imageFile{user: find(`^USER (.*)$`), workdir: find(`^WORKDIR (.*)$`), entrypoint: find(`^ENTRYPOINT \["(.*)"\]$`), toolchain: find(`^RUN .*GOTOOLCHAIN="(.*?)" go build `)}
	for _, word := range regexp.MustCompile(`"([^"]*)"`).FindAllStringSubmatch(find(`^HEALTHCHECK .*CMD (\[.*\])$`), -1) {
		i.healthcheck = append(i.healthcheck, word[1])
	}
	return i
}

// TestDeployImages holds the images that examples make of the gateway's against
// its Dockerfile and against what lies in their folders.
func TestDeployImages(t *testing.T) {
	base := gatewayImage(t)
	// GOTOOLCHAIN=local of golang's images takes whatever Go they have, also an
	// older one than go.mod asks for by its line `toolchain`.
	if base.toolchain != "$(sed -n 's/^toolchain //p' go.mod)" {
		t.Errorf("the image is built with GOTOOLCHAIN=%s, and not by go.mod's", base.toolchain)
	}
	for _, name := range []string{"cloudrun", "ecs"} {
		d := deploymentNamed(t, name)
		text := d.read(t, "Dockerfile")
		if !strings.Contains(text, "\nFROM ${SIDEGATE_IMAGE}\n") {
			t.Errorf("%s: is not made FROM the gateway's image", name)
		}
		copied := regexp.MustCompile(`(?m)^COPY ((?:--\S+ )*)(.*) (\S+)$`).FindAllStringSubmatch(text, -1)
		var files []string
		for _, c := range copied {
			sources := strings.Fields(c[2])
			for _, source := range sources {
				if _, err := os.Stat(d.path(source)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			if c[3] == base.workdir+"/" {
				files = append(files, sources...)
			}
			if strings.Contains(c[1], "--chown=") && !strings.Contains(c[1], "--chown="+base.user) {
				t.Errorf("%s: gives files to another user than the image's %s: %s", name, base.user, c[0])
			}
		}
		for _, want := range []string{"sidegate.yaml", "policy.yaml"} {
			if !slices.Contains(files, want) {
				t.Errorf("%s: the image does not have %s in %s, where `sidegate run` starts", name, want, base.workdir)
			}
		}
		if regexp.MustCompile(`(?m)^(USER|ENTRYPOINT|CMD|WORKDIR) `).MatchString(text) {
			t.Errorf("%s: changes how the image runs", name)
		}
	}
}

// TestDeployREADMEs: each file of a deployment is one that its README names, and
// each that README names is there.
func TestDeployREADMEs(t *testing.T) {
	for _, d := range deployments {
		readme := d.read(t, "README.md")
		entries, err := os.ReadDir(d.path("."))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			if entry.Name() != "README.md" && !strings.Contains(readme, entry.Name()) {
				t.Errorf("examples/%s/README.md does not name %s", d.name, entry.Name())
			}
		}
		for _, want := range []string{"## Prove", "## Roll back", "\n1. "} {
			if !strings.Contains(readme, want) {
				t.Errorf("examples/%s/README.md has no %q", d.name, strings.TrimSpace(want))
			}
		}
		for _, line := range strings.Split(readme, "\n") {
			if strings.Contains(line, "sidegate audit keygen") && !strings.Contains(line, "--out") {
				t.Errorf("examples/%s/README.md: keygen needs --out: %s", d.name, line)
			}
		}
	}
}

// sortedKeys are for messages.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// documentsOf splits a file of several YAML documents.
func documentsOf(text []byte) [][]byte {
	var out [][]byte
	for _, part := range bytes.Split(text, []byte("\n---\n")) {
		if len(bytes.TrimSpace(part)) > 0 {
			out = append(out, part)
		}
	}
	return out
}
