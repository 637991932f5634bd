package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPresignGateway runs examples/presign-gateway as it is, but for the
// addresses.
func TestPresignGateway(t *testing.T) {
	g := startGateway(t, exampleSetup(t, "presign-gateway"))
	uploadLifecycle(t, g.url)
	// There is nothing behind it.
	ask(t, http.MethodGet, g.url+"/v1/me", token(t, "alice"), "").problem(t, http.StatusNotFound, "no_route")
}

// TestFastAPISidecar runs examples/fastapi-sidecar: the service under uvicorn,
// and its gateway in front.
func TestFastAPISidecar(t *testing.T) {
	g := startGateway(t, sidecarSetup(t, sharedFirestore(t), startFastAPI(t, "FIRESTORE_EMULATOR_HOST="+sharedFirestore(t)).url))
	alice, bob, admin := token(t, "alice"), token(t, "bob"), token(t, "carol")

	var who struct {
		UID, Email string
		Roles      []string
	}
	ask(t, http.MethodGet, g.url+"/v1/me", alice, "").want(t, http.StatusOK).decode(t, &who)
	if who.UID != "alice" || who.Email != "alice@example.com" || fmt.Sprint(who.Roles) != "[viewer]" {
		t.Errorf("the service took alice for %+v", who)
	}
	odd := user{UID: "Zoë, 100% / x", Email: "zoe@example.com", Roles: []string{"a,b", "ü"}}
	oddToken, err := lab.issuer.token(odd, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ask(t, http.MethodGet, g.url+"/v1/me", oddToken, "").want(t, http.StatusOK).decode(t, &who)
	if who.UID != odd.UID || fmt.Sprint(who.Roles) != fmt.Sprint(odd.Roles) {
		t.Errorf("the service took %+v for %+v", odd, who)
	}

	ask(t, http.MethodGet, g.url+"/v1/me", "", "").problem(t, http.StatusUnauthorized, "no_token")
	forged, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.url+"/v1/me", nil)
	if err != nil {
		t.Fatal(err)
	}
	forged.Header.Set("X-Sidegate-Uid", "alice")
	forged.Header.Set("Authorization", "Bearer "+bob)
	do(t, forged).want(t, http.StatusOK).decode(t, &who)
	if who.UID != "bob" {
		t.Errorf("bob passed for %q", who.UID)
	}

	note := g.url + "/v1/users/alice/notes/one"
	ask(t, http.MethodPut, note, alice, `{"text": "hello"}`).want(t, http.StatusNoContent)
	ask(t, http.MethodGet, note, alice, "").want(t, http.StatusOK)
	ask(t, http.MethodGet, note, bob, "").problem(t, http.StatusForbidden, "not_allowed")
	ask(t, http.MethodGet, note, admin, "").want(t, http.StatusOK)
	ask(t, http.MethodPut, note, admin, `{"text": "changed"}`).problem(t, http.StatusForbidden, "not_allowed")
	ask(t, http.MethodGet, g.url+"/v1/admin/notes", alice, "").problem(t, http.StatusForbidden, "not_allowed")
	ask(t, http.MethodGet, g.url+"/v1/admin/notes", admin, "").want(t, http.StatusOK)
	// The service's own refusals come through as they are.
	missing := ask(t, http.MethodGet, g.url+"/v1/users/alice/notes/two", alice, "").want(t, http.StatusNotFound)
	if missing.header.Get("X-Sidegate-Response") != "" || !bytes.Contains(missing.body, []byte("no such note")) {
		t.Errorf("the service's 404 came as %s", missing.body)
	}
	uploadLifecycle(t, g.url)
}

// exampleSetup is the example's two files, with the addresses of this run put
// in: where the gateway listens and where the store is.
func exampleSetup(t *testing.T, name string) setup {
	t.Helper()
	read := func(file string) string {
		content, err := os.ReadFile(filepath.Join(lab.root, "examples", name, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	const line = `  default: {bucket: "${env:S3_BUCKET}"}`
	config := read("sidegate.yaml")
	if !strings.Contains(config, line) {
		t.Fatalf("%s/sidegate.yaml holds no %q", name, line)
	}
	config = strings.Replace(config, line,
		`  default: {bucket: "${env:S3_BUCKET}", endpoint: "${env:DEMO_STORE_URL}", store: versitygw, path_style: true}`, 1)
	return setup{
		config: config + "listen: {address: \"${env:DEMO_ADDRESS}\"}\nadmin: {address: \"${env:DEMO_ADMIN_ADDRESS}\"}\n",
		policy: read("policy.yaml"),
		env:    []string{"GOOGLE_CLOUD_PROJECT=" + project, "S3_BUCKET=" + bucket},
	}
}

// sidecarSetup is the gateway of examples/fastapi-sidecar in front of its
// service.
func sidecarSetup(t *testing.T, firestore, appURL string) setup {
	t.Helper()
	s := exampleSetup(t, "fastapi-sidecar")
	s.config = strings.Replace(s.config, "http://127.0.0.1:9000", appURL, 1)
	flags, env := emulated(firestore)
	s.flags, s.env = append(s.flags, flags...), append(s.env, env...)
	return s
}

// A service is one that runs under uvicorn.
type service struct {
	url string
	log *output
}

// fastAPIPython is an interpreter that has what the example needs.
func fastAPIPython(t *testing.T) string {
	t.Helper()
	// Debian's packages are for Debian's interpreter, whatever else is there.
	for _, candidate := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(candidate, "-c", "import fastapi, uvicorn, httpx, requests, google.auth").Run() == nil {
			return candidate
		}
	}
	needs(t, "FastAPI with what its example needs", "apt-get install python3-fastapi python3-uvicorn python3-httpx python3-google-auth python3-requests")
	return ""
}

// startFastAPI runs the service of examples/fastapi-sidecar, whose environment
// says where Firestore is.
func startFastAPI(t *testing.T, env ...string) service {
	t.Helper()
	address := "http://" + unusedAddress(t)
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(fastAPIPython(t), "-m", "uvicorn", "app:app", "--host", u.Hostname(), "--port", u.Port(), "--no-access-log")
	c.Dir = filepath.Join(lab.root, "examples", "fastapi-sidecar")
	c.Env = append(env, "PATH="+os.Getenv("PATH"), "HOME="+t.TempDir(), "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1",
		"GOOGLE_CLOUD_PROJECT="+project)
	return service{address, startComponent(t, c, address+"/openapi.json")}
}
