package cmd

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"testing"
)

// TestLargeAnswersAreNotRead: through all that stands between a gateway and its
// callers an answer passes within the kernel. What this process reads of it is the
// caller's own.
func TestLargeAnswersAreNotRead(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data)
	}))
	defer up.Close()
	for name, listen := range map[string]string{"bounded": "listen:max_connections: 10", "unbounded": "listen:max_connections: 0"} {
		g := startGateway(t, up.URL, newIssuer(t), "", listen)
		before := bytesRead(t)
		res, err := http.Get(g.url + "/open")
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		_, err = io.ReadFull(res.Body, got)
		res.Body.Close()
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%s: %v", name, err)
		}
		if n := bytesRead(t) - before; n > int64(len(data))*3/2 {
			t.Errorf("%s: %d bytes are read for an answer of %d", name, n, len(data))
		}
	}
}

// bytesRead are those that this process had copied to itself by any read.
func bytesRead(t *testing.T) (n int64) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/io")
	if err == nil {
		_, err = fmt.Sscanf(string(text), "rchar: %d", &n)
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("this kernel does not count what is read: ", err)
		}
		t.Skip("SKIPPED, NOT TESTED: this kernel does not count what is read: ", err)
	}
	return n
}
