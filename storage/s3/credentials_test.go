package s3

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sidegate/storage/upload"
)

func TestNoCredentials(t *testing.T) {
	hermetic(t)
	b, err := Open(t.Context(), Options{Bucket: "photos"})
	if err != nil {
		t.Fatal("Open needs no credentials:", err)
	}
	if b.region != "us-east-1" {
		t.Errorf("region %s", b.region)
	}
	_, putErr := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "a/b", Expires: time.Minute})
	_, getErr := b.SignGet(t.Context(), upload.Get{Key: "k", Expires: time.Minute})
	_, headErr := b.Head(t.Context(), "k")
	for name, err := range map[string]error{"put": putErr, "get": getErr, "head": headErr, "check": b.CheckCredentials(t.Context())} {
		if !errors.Is(err, upload.ErrUnavailable) || !strings.Contains(err.Error(), "no AWS credentials") {
			t.Errorf("%s: %v", name, err)
		}
	}
	none := newCredentialSource(nil, time.Now)
	if _, err := none.Retrieve(t.Context()); !errors.Is(err, upload.ErrUnavailable) {
		t.Errorf("no provider: %v", err)
	}
}

func TestDefaultChain(t *testing.T) {
	hermetic(t)
	profile := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(profile, []byte("[default]\naws_access_key_id=AKFILE\naws_secret_access_key=x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", profile)
	t.Setenv("AWS_REGION", "eu-west-3")
	b, err := Open(t.Context(), Options{Bucket: "photos"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.CheckCredentials(t.Context()); err != nil {
		t.Error(err)
	}
	got, err := b.SignGet(t.Context(), upload.Get{Key: "k", Expires: time.Minute})
	if err != nil || !strings.HasPrefix(got.URL, "https://photos.s3.eu-west-3.amazonaws.com/k?") || !strings.Contains(got.URL, "AKFILE") {
		t.Errorf("%s, %v", got.URL, err)
	}
}

// Credentials near their end with none newer: what is at hand serves, and the
// source is not asked again by every request.
func TestRefreshIsBounded(t *testing.T) {
	now := clock
	source := &rotating{ends: []time.Duration{90 * time.Second}, broken: errors.New("metadata service is down"), breakAt: 2}
	c := newCredentialSource(source, func() time.Time { return now })
	if _, end, err := c.lasting(t.Context(), time.Minute); err != nil || !end.Equal(clock.Add(30*time.Second)) {
		t.Errorf("end %v, %v", end, err)
	}
	source.broken = nil
	for range 3 {
		if _, _, err := c.lasting(t.Context(), time.Minute); err != nil {
			t.Error(err)
		}
	}
	if source.asked != 2 { // first, and once out of turn
		t.Errorf("asked %d times", source.asked)
	}
	now = now.Add(refreshEvery)
	if _, _, err := c.lasting(t.Context(), time.Minute); err != nil || source.asked != 3 {
		t.Errorf("asked %d times, %v", source.asked, err)
	}
}

func TestManySignAtOnce(t *testing.T) {
	b := open(t, Options{})
	b.credentials = newCredentialSource(&rotating{ends: []time.Duration{time.Hour}}, b.now)
	var wg sync.WaitGroup
	urls := make([]string, 32)
	for i := range urls {
		wg.Go(func() {
			s, err := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "a/b", Size: 1, Expires: time.Minute})
			if err != nil {
				t.Error(err)
			}
			urls[i] = s.URL
		})
	}
	wg.Wait()
	for _, u := range urls {
		if u != urls[0] {
			t.Errorf("%s and %s", u, urls[0])
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	hermetic(t)
	for want, o := range map[string]Options{
		"needs a name":        {},
		"ARN":                 {Bucket: "arn:aws:s3:eu-central-1:1:accesspoint/x"},
		"S3 Express":          {Bucket: "b--euc1-az1--x-s3"},
		"need each other":     {Bucket: "b", AccessKey: "a"},
		"endpoint is not":     {Bucket: "b", Endpoint: "minio:9000"},
		"public_endpoint is":  {Bucket: "b", PublicEndpoint: "https://u:p@files.acme.test"},
		"is not an http or h": {Bucket: "b", Endpoint: "https://files.acme.test/?x"},
	} {
		_, err := Open(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
}

// TestProcessTellsNoKeys: a credential_process whose output is not JSON alone is
// told of, and its output, in which the keys are, is not.
func TestProcessTellsNoKeys(t *testing.T) {
	hermetic(t)
	dir := t.TempDir()
	script, profile := filepath.Join(dir, "keys"), filepath.Join(dir, "config")
	text := "#!/bin/sh\necho 'a new version of this program is there'\necho '{\"Version\": 1, \"AccessKeyId\": \"AKPROCESS\", \"SecretAccessKey\": \"hunter2\"}'\n"
	if err := errors.Join(os.WriteFile(script, []byte(text), 0o700), os.WriteFile(profile, []byte("[default]\ncredential_process = "+script+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_CONFIG_FILE", profile)
	b, err := Open(t.Context(), Options{Bucket: "photos"})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := DefaultKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, keysErr := keys(t.Context())
	_, _, probeErr := b.Probe().Credentials(t.Context())
	_, headErr := b.Head(t.Context(), "k")
	for name, err := range map[string]error{"sign": b.CheckCredentials(t.Context()), "probe": probeErr, "head": headErr, "keys": keysErr} {
		if err == nil || strings.Contains(err.Error(), "hunter2") || !strings.Contains(err.Error(), "credential_process") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
