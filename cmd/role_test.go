package cmd

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/storage/upload"
)

const roleConfig = versionLine + `
name: photos-api
buckets:
  default:
    bucket: acme-photos
    region: eu-central-1
    credentials: {role: "arn:aws:iam::111122223333:role/sidegate", from: google}
`

// TestRoleByGoogle has a gateway sign with nothing but a Google account: its
// metadata server gives an ID token, STS gives credentials for it. Google's
// library looks for the metadata server once in a process: this needs one of
// its own.
func TestRoleByGoogle(t *testing.T) {
	if os.Getenv("SIDEGATE_TEST_ROLE") == "child" {
		signByRole(t)
		return
	}
	b64 := base64.RawURLEncoding.EncodeToString
	token := fmt.Sprintf("%s.%s.sig", b64([]byte(`{"alg":"RS256"}`)), b64(fmt.Appendf(nil, `{"aud":"sts.amazonaws.com","exp":%d}`, time.Now().Add(time.Hour).Unix())))
	var asked, assumed atomic.Int32
	google := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		if r.URL.Path != "/computeMetadata/v1/instance/service-accounts/default/identity" || r.URL.Query().Get("audience") != "sts.amazonaws.com" {
			http.NotFound(w, r)
			return
		}
		asked.Add(1)
		fmt.Fprint(w, token)
	}))
	defer google.Close()
	sts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("WebIdentityToken") != token || r.FormValue("RoleSessionName") != "photos-api" || r.FormValue("RoleArn") != "arn:aws:iam::111122223333:role/sidegate" {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		assumed.Add(1)
		fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId>`+
			`<SecretAccessKey>x</SecretAccessKey><SessionToken>session</SessionToken><Expiration>%s</Expiration></Credentials>`+
			`</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	defer sts.Close()
	child := exec.Command(os.Args[0], "-test.run=^TestRoleByGoogle$")
	child.Env = []string{"SIDEGATE_TEST_ROLE=child", "HOME=" + t.TempDir(), "GCE_METADATA_HOST=" + strings.TrimPrefix(google.URL, "http://"),
		"AWS_ENDPOINT_URL_STS=" + sts.URL, "AWS_EC2_METADATA_DISABLED=true"}
	if out, err := child.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if asked.Load() != 1 || assumed.Load() != 1 {
		t.Errorf("the metadata server was asked %d times, STS %d times", asked.Load(), assumed.Load())
	}
}

func signByRole(t *testing.T) {
	c, _, err := place{}.load(roleConfig)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{s: settings{config: c, env: newEnvironment(os.Environ())}}
	b, err := g.openBucket(t.Context(), &c.Buckets[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		got, err := b.SignPut(t.Context(), upload.Put{Key: "users/u1/a.jpg", ContentType: "image/jpeg", Size: 5, Expires: 15 * time.Minute})
		if err != nil || !strings.Contains(got.URL, "X-Amz-Credential=ASIAROLE%2F") || !strings.Contains(got.URL, "X-Amz-Security-Token=session") {
			t.Fatalf("%s, %v", got.URL, err)
		}
	}
}

func TestRoleSession(t *testing.T) {
	for name, want := range map[string]string{"photos-api": "photos-api", "x": "sidegate-x", strings.Repeat("a", 128): strings.Repeat("a", 64)} {
		if got := roleSession(name); got != want {
			t.Errorf("%s: %s", name, got)
		}
	}
}
