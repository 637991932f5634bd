package cmd

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestTelemetryProbe(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   status
		do     string
	}{
		"a collector": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "s3cr3t" || r.URL.Path != "/v1/traces" {
				w.WriteHeader(http.StatusUnauthorized)
			}
			w.Header().Set("Content-Type", "application/x-protobuf")
		}, statusOK, ""},
		"another key":    {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, statusWarn, "telemetry.headers"},
		"an overloaded":  {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }, statusWarn, "runs"},
		"a web server":   {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>", r.Header.Get("Authorization")) }, statusWarn, "4318"},
		"another's path": {http.NotFound, statusWarn, "4318"},
		"elsewhere":      {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/x", http.StatusFound) }, statusWarn, "4318"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(c.answer)
			defer server.Close()
			config := mustLoad(t, place{env: map[string]string{"KEY": "s3cr3t"}}, `telemetry: {otlp: "`+server.URL+`", headers: {Authorization: "${env:KEY}"}}`)
			got := runProbes(t.Context(), telemetryProbes(settings{config: config}), 10*time.Second)
			if len(got) != 1 || got[0].ID != "telemetry" || got[0].Status != c.want || !strings.Contains(got[0].Do, c.do) || (c.do == "") != (got[0].Do == "") || strings.Contains(got[0].Text, "s3cr3t") {
				t.Errorf("%+v", got)
			}
		})
	}
	if got := telemetryProbes(settings{config: mustLoad(t, place{}, "")}); got != nil {
		t.Errorf("without a collector: %v", got)
	}
	away := mustLoad(t, place{}, `telemetry: {otlp: "http://127.0.0.1:1"}`)
	if got := runProbes(t.Context(), telemetryProbes(settings{config: away}), 10*time.Second); len(got) != 1 || got[0].Status != statusWarn || !strings.Contains(got[0].Text, "refused") {
		t.Errorf("%+v", got)
	}
	ca := mustLoad(t, place{}, `telemetry: {otlp: "https://127.0.0.1:1", ca: none.pem}`)
	if got := runProbes(t.Context(), telemetryProbes(settings{config: ca}), 10*time.Second); len(got) != 1 || got[0].Status != statusFail {
		t.Errorf("%+v", got)
	}
}
