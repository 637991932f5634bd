package cmd

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestProfiles: with --pprof this machine gets them, and nobody else; without it
// they are not there.
func TestProfiles(t *testing.T) {
	without := startGateway(t, "http://127.0.0.1:1", newIssuer(t), "")
	with := startGateway(t, "http://127.0.0.1:1", newIssuer(t), "", "--pprof")
	for name, c := range map[string]struct {
		g                  *running
		path, header, host string
		status             int
	}{
		"the list":             {g: with, path: "", status: 200},
		"the heap":             {g: with, path: "heap?gc=1", status: 200},
		"CPU":                  {g: with, path: "profile?seconds=1", status: 200},
		"CPU, too long":        {g: with, path: "profile?seconds=121", status: 400},
		"for ever":             {g: with, path: "heap?seconds=NaN", status: 400},
		"before":               {g: with, path: "profile?seconds=-1", status: 400},
		"a trace, too long":    {g: with, path: "trace?seconds=1e9", status: 400},
		"unknown":              {g: with, path: "secrets", status: 404},
		"the command line":     {g: with, path: "cmdline", status: 404},
		"symbols":              {g: with, path: "symbol", status: 404},
		"a page":               {g: with, path: "heap", header: "Origin", status: 403},
		"a page, CPU":          {g: with, path: "profile?seconds=1", header: "Sec-Fetch-Site", status: 403},
		"a proxy":              {g: with, path: "", header: "X-Forwarded-For", status: 403},
		"a proxy, for a trace": {g: with, path: "trace?seconds=1", header: "Via", status: 403},
		"another name":         {g: with, path: "heap", host: "rebound.example:9180", status: 403},
		"without the flag":     {g: without, path: "heap", status: 404},
		"without, the list":    {g: without, path: "", status: 404},
	} {
		req, err := http.NewRequest(http.MethodGet, c.g.admin+pprofPath+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.header != "" {
			req.Header.Set(c.header, "http://127.0.0.1")
		}
		if c.host != "" {
			req.Host = c.host
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != c.status {
			t.Errorf("%s: %d %.200q %v", name, res.StatusCode, body, err)
		}
		if c.status == 200 && c.path != "" {
			if _, err := gzip.NewReader(bytes.NewReader(body)); err != nil {
				t.Errorf("%s: no profile: %v", name, err)
			}
		}
	}
	// What a form in a body says counts, too, with net/http/pprof, where the target
	// says nothing of it.
	form := "--a\r\nContent-Disposition: form-data; name=\"seconds\"\r\n\r\n121\r\n--a--\r\n"
	for _, path := range []string{"profile", "trace", "heap"} {
		for kind, length := range map[string]int64{"with its length": int64(len(form)), "in chunks": -1} {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, with.admin+pprofPath+path, struct{ io.Reader }{strings.NewReader(form)})
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = length
			req.Header.Set("Content-Type", "multipart/form-data; boundary=a")
			res, err := http.DefaultClient.Do(req)
			cancel()
			if err != nil {
				t.Errorf("%s, by a form %s: %v", path, kind, err)
				continue
			}
			res.Body.Close()
			if res.StatusCode != http.StatusBadRequest {
				t.Errorf("%s, by a form %s: %d", path, kind, res.StatusCode)
			}
		}
	}
	// Nor do callers get them, by the public listener.
	res, err := http.Get(with.url + pprofPath + "heap")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode != http.StatusNotFound || !strings.Contains(string(body), `"code"`) {
		t.Errorf("a caller gets %d %.200q", res.StatusCode, body)
	}
}
