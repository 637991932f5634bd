package google_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"sidegate/proxy/google"
)

// A federation is Google's token service, and the one that lets an account be
// another.
type federation struct {
	*httptest.Server
	subject chan url.Values
}

func newFederation(t *testing.T) *federation {
	t.Helper()
	f := &federation{subject: make(chan url.Values, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/token", func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		f.subject <- r.PostForm
		fmt.Fprint(w, `{"access_token": "of-the-pool", "issued_token_type": "urn:ietf:params:oauth:token-type:access_token", "token_type": "Bearer", "expires_in": 3600}`)
	})
	mux.HandleFunc("POST /impersonate", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer of-the-pool" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, `{"accessToken": "of-the-account", "expireTime": %q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	})
	f.Server = httptest.NewServer(mux)
	t.Cleanup(f.Close)
	return f
}

func (f *federation) file() []byte {
	return fmt.Appendf(nil, `{
		"type": "external_account",
		"audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/aws/providers/aws",
		"subject_token_type": "urn:ietf:params:aws:token-type:aws4_request",
		"token_url": %q,
		"service_account_impersonation_url": %q,
		"credential_source": {"environment_id": "aws1", "regional_cred_verification_url": "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"}
	}`, f.URL+"/v1/token", f.URL+"/impersonate")
}

// TestFromAWS: the keys of AWS sign the question who they are of, which Google is
// shown for a token of the account; neither secret is shown to anybody.
func TestFromAWS(t *testing.T) {
	f := newFederation(t)
	c, err := google.FromAWS(f.file(), func(context.Context) (google.AWSKeys, error) {
		return google.AWSKeys{Region: "eu-central-1", AccessKey: "ASIAEXAMPLE", SecretKey: "never-shown", SessionToken: "of-the-session"}, nil
	})
	if err != nil || c == nil {
		t.Fatalf("%v, %v", c, err)
	}
	token, err := c.Token(t.Context())
	if err != nil || token.Value != "of-the-account" {
		t.Fatalf("%v, %v", token, err)
	}
	form := <-f.subject
	text, err := url.QueryUnescape(form.Get("subject_token"))
	if err != nil {
		t.Fatal(err)
	}
	var question struct {
		URL, Method string
		Headers     []struct{ Key, Value string }
	}
	if err := json.Unmarshal([]byte(text), &question); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	headers := map[string]string{}
	for _, h := range question.Headers {
		headers[strings.ToLower(h.Key)] = h.Value
	}
	if question.Method != "POST" || question.URL != "https://sts.eu-central-1.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15" {
		t.Errorf("%s %s", question.Method, question.URL)
	}
	if !strings.Contains(headers["authorization"], "Credential=ASIAEXAMPLE/") || !strings.Contains(headers["authorization"], "/eu-central-1/sts/aws4_request") || headers["x-amz-security-token"] != "of-the-session" {
		t.Errorf("signed as %v", headers)
	}
	// Bound to this pool: another one cannot use it.
	if headers["x-goog-cloud-target-resource"] != form.Get("audience") || form.Get("audience") == "" || !strings.Contains(headers["authorization"], "x-goog-cloud-target-resource") {
		t.Errorf("for %q, signed for %v", form.Get("audience"), headers)
	}
	if strings.Contains(form.Encode()+text, "never-shown") {
		t.Error("the secret key was sent")
	}
}

// TestFromAWSWithout: keys that cannot be had are an error of the token, and a
// file about something else is not taken for one about AWS.
func TestFromAWSWithout(t *testing.T) {
	f := newFederation(t)
	missing := errors.New("no keys now")
	for _, test := range []struct {
		keys google.AWSKeys
		err  error
		want string
	}{
		{err: missing, want: missing.Error()},
		{keys: google.AWSKeys{AccessKey: "ASIAEXAMPLE", SecretKey: "never-shown"}, want: "AWS_REGION"},
	} {
		c, err := google.FromAWS(f.file(), func(context.Context) (google.AWSKeys, error) { return test.keys, test.err })
		if err != nil {
			t.Fatal(err)
		}
		if token, err := c.Token(t.Context()); err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "never-shown") {
			t.Errorf("%v, %v; want %s", token, err, test.want)
		}
	}
	for _, file := range []string{`{"type": "service_account"}`, `{"type": "external_account", "credential_source": {"file": "/token"}}`, `{}`} {
		if c, err := google.FromAWS([]byte(file), nil); c != nil || err != nil {
			t.Errorf("%s: %v, %v", file, c, err)
		}
	}
	for _, file := range []string{"", "nonsense", `[]`, `{"type": 1}`} {
		if c, err := google.FromAWS([]byte(file), nil); c != nil || err == nil {
			t.Errorf("%q: %v, no error", file, c)
		}
	}
}

// FuzzFromAWS: whatever the file holds, there are credentials, an error, or a file
// of another kind, and an error tells nothing of a secret in it.
func FuzzFromAWS(f *testing.F) {
	f.Add(`{"type": "external_account", "credential_source": {"environment_id": "aws1"}, "client_secret": "hidden-hidden"}`)
	f.Add(`{"type": "external_account", "audience": "a", "subject_token_type": "b", "token_url": "c", "credential_source": {"environment_id": "aws1"}}`)
	f.Add(`{"client_secret": "hidden-hidden"`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := google.FromAWS([]byte(text), func(context.Context) (google.AWSKeys, error) { return google.AWSKeys{}, nil })
		if c != nil && err != nil {
			t.Error("credentials and an error")
		}
		if err != nil && strings.Contains(err.Error(), "hidden-hidden") {
			t.Errorf("the error shows the file: %v", err)
		}
	})
}

// TestSignatureOfAWS: the signature is the one that AWS's own library makes of the
// same question, and so the one that AWS expects.
func TestSignatureOfAWS(t *testing.T) {
	f := newFederation(t)
	for _, session := range []string{"", "of/the+session=="} {
		keys := google.AWSKeys{Region: "eu-central-1", AccessKey: "ASIAEXAMPLE", SecretKey: "never/shown+", SessionToken: session}
		c, err := google.FromAWS(f.file(), func(context.Context) (google.AWSKeys, error) { return keys, nil })
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Token(t.Context()); err != nil {
			t.Fatal(err)
		}
		text, err := url.QueryUnescape((<-f.subject).Get("subject_token"))
		if err != nil {
			t.Fatal(err)
		}
		var question struct {
			URL, Method string
			Headers     []struct{ Key, Value string }
		}
		if err := json.Unmarshal([]byte(text), &question); err != nil {
			t.Fatal(err)
		}
		again, err := http.NewRequest(question.Method, question.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		said, at := "", time.Time{}
		for _, h := range question.Headers {
			switch strings.ToLower(h.Key) {
			case "authorization":
				said = h.Value
			case "host":
				again.Host = h.Value
			case "x-amz-date":
				if at, err = time.Parse("20060102T150405Z", h.Value); err != nil {
					t.Fatal(err)
				}
			case "x-amz-security-token": // the signer sets it
			default:
				again.Header.Set(h.Key, h.Value)
			}
		}
		empty := sha256.Sum256(nil)
		signs := aws.Credentials{AccessKeyID: keys.AccessKey, SecretAccessKey: keys.SecretKey, SessionToken: session}
		if err := v4.NewSigner().SignHTTP(t.Context(), signs, again, hex.EncodeToString(empty[:]), "sts", keys.Region, at); err != nil {
			t.Fatal(err)
		}
		if want := again.Header.Get("Authorization"); said != want || want == "" {
			t.Errorf("signed as\n%s\nand AWS signs\n%s", said, want)
		}
		if age := time.Since(at); age < -time.Minute || age > time.Minute {
			t.Errorf("signed at %s", at)
		}
	}
}

// TestOddAnswersToFederation: nothing but a whole answer is a token, no answer
// sends the signed question elsewhere, and no error repeats one.
func TestOddAnswersToFederation(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("the signed question went where an answer pointed")
	}))
	defer elsewhere.Close()
	good := `{"access_token": "of-the-pool", "token_type": "Bearer", "expires_in": 3600}`
	end := func(in time.Duration) string { return time.Now().Add(in).UTC().Format(time.RFC3339) }
	for name, c := range map[string]struct {
		status                  int
		raw, pool, impersonated string
	}{
		"redirect":     {status: http.StatusTemporaryRedirect},
		"no HTTP":      {raw: "hunter2\r\n\r\n"},
		"a header":     {raw: "HTTP/1.1 200 OK\r\nhunter2\r\n\r\n"},
		"a length":     {raw: "HTTP/1.1 200 OK\r\nContent-Length: hunter2\r\n\r\n"},
		"refused":      {status: http.StatusForbidden, pool: `{"error": "hunter2"}`},
		"empty":        {pool: ""},
		"garbage":      {pool: "<html>hunter2"},
		"no token":     {pool: `{"token_type": "Bearer", "expires_in": 3600}`, impersonated: "{}"},
		"no life":      {pool: `{"access_token": "a", "token_type": "Bearer"}`},
		"negative":     {pool: `{"access_token": "a", "expires_in": -1}`},
		"nobody":       {pool: good, impersonated: `{"expireTime": "` + end(time.Hour) + `"}`},
		"over":         {pool: good, impersonated: `{"accessToken": "a", "expireTime": "` + end(-time.Hour) + `"}`},
		"no time":      {pool: good, impersonated: `{"accessToken": "a", "expireTime": "hunter2"}`},
		"another line": {pool: good, impersonated: `{"accessToken": "a\r\nhunter2: b", "expireTime": "` + end(time.Hour) + `"}`},
	} {
		mux := http.NewServeMux()
		mux.HandleFunc("POST /v1/token", func(w http.ResponseWriter, _ *http.Request) {
			if c.raw != "" {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.WriteString(conn, c.raw)
				_ = conn.Close()
				return
			}
			w.Header().Set("Location", elsewhere.URL)
			w.WriteHeader(max(c.status, http.StatusOK))
			fmt.Fprint(w, c.pool)
		})
		mux.HandleFunc("POST /impersonate", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, c.impersonated) })
		f := &federation{Server: httptest.NewServer(mux)}
		made, err := google.FromAWS(f.file(), func(context.Context) (google.AWSKeys, error) {
			return google.AWSKeys{Region: "eu-central-1", AccessKey: "ASIAEXAMPLE", SecretKey: "never-shown"}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if token, err := made.Token(t.Context()); err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), f.URL) {
			t.Errorf("%s: %v, %v", name, token, err)
		}
		f.Close()
	}
}

// TestFileIsObeyed: what the file says of the account's tokens holds, and what
// cannot be obeyed is refused.
func TestFileIsObeyed(t *testing.T) {
	var asked struct{ Lifetime string }
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/token", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"access_token": "a", "token_type": "Bearer", "expires_in": 3600}`)
	})
	mux.HandleFunc("POST /impersonate", func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, `{"accessToken": "b", "expireTime": %q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	})
	f := &federation{Server: httptest.NewServer(mux)}
	defer f.Close()
	keys := func(context.Context) (google.AWSKeys, error) {
		return google.AWSKeys{Region: "eu-central-1", AccessKey: "ASIAEXAMPLE", SecretKey: "never-shown"}, nil
	}
	short := strings.Replace(string(f.file()), `"type"`, `"service_account_impersonation": {"token_lifetime_seconds": 900}, "type"`, 1)
	made, err := google.FromAWS([]byte(short), keys)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := made.Token(t.Context()); err != nil || asked.Lifetime != "900s" {
		t.Errorf("%q, %v", asked.Lifetime, err)
	}
	china := strings.Replace(string(f.file()), "amazonaws.com?", "amazonaws.com.cn?", 1)
	if made, err := google.FromAWS([]byte(china), keys); err == nil {
		t.Errorf("%v: signed for another host than the file says", made)
	}
	for _, region := range []string{"", "eu-central-1.evil.example/", "EU", "a b"} {
		made, err := google.FromAWS(f.file(), func(context.Context) (google.AWSKeys, error) {
			return google.AWSKeys{Region: region, AccessKey: "ASIAEXAMPLE", SecretKey: "never-shown"}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if token, err := made.Token(t.Context()); err == nil {
			t.Errorf("%q: %v", region, token)
		}
	}
}
