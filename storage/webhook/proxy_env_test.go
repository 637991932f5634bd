package webhook

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
)

// childOf has a process post to a machine behind the proxy of its environment,
// which net/http reads once in a process.
const childOf = "SIDEGATE_WEBHOOK_CHILD"

func TestProxyOfTheEnvironment(t *testing.T) {
	if os.Getenv(childOf) != "" {
		err := endpoint(t, "https://acme.invalid/?SECRET").Notify(t.Context(), ready())
		t.Log("told:", err)
		return
	}
	var connects atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := proxyUser(r); r.Method == http.MethodConnect && r.Host == "acme.invalid:443" && ok && user == "user" && password == "SECRET" {
			connects.Add(1)
		}
		w.WriteHeader(http.StatusForbidden)
	}))
	defer proxy.Close()
	address := strings.Replace(proxy.URL, "://", "://user:SECRET@", 1)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProxyOfTheEnvironment$", "-test.v")
	cmd.Env = append(os.Environ(), childOf+"=1", "HTTPS_PROXY="+address, "https_proxy="+address, "NO_PROXY=", "no_proxy=")
	out, err := cmd.CombinedOutput()
	want := "told: webhook https://acme.invalid: the connection ended without an answer"
	if err != nil || !strings.Contains(string(out), want) || strings.Contains(string(out), "SECRET") {
		t.Errorf("%v\n%s", err, out)
	}
	if connects.Load() != 1 {
		t.Errorf("the proxy was asked %d times", connects.Load())
	}
}

func proxyUser(r *http.Request) (user, password string, ok bool) {
	r.Header.Set("Authorization", r.Header.Get("Proxy-Authorization"))
	return r.BasicAuth()
}
