package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/storage/upload"
)

const (
	testRole  = "arn:aws:iam::111122223333:role/sidegate"
	testToken = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"
)

// stsServer stands in for AWS STS.
type stsServer struct {
	asked  atomic.Int32
	answer atomic.Pointer[func(http.ResponseWriter)]
}

func (s *stsServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := s.asked.Add(1)
	_ = r.ParseForm()
	f := r.PostForm
	if r.Header.Get("Authorization") != "" || f.Get("Action") != "AssumeRoleWithWebIdentity" || f.Get("RoleArn") != testRole ||
		f.Get("WebIdentityToken") != testToken || f.Get("RoleSessionName") != "photos-api" || f.Has("DurationSeconds") {
		http.Error(w, "not what was agreed", http.StatusTeapot)
		return
	}
	if a := s.answer.Load(); a != nil {
		(*a)(w)
		return
	}
	granted(w, n, time.Hour)
}

func (s *stsServer) answers(f func(http.ResponseWriter)) { s.answer.Store(&f) }

func granted(w http.ResponseWriter, n int32, life time.Duration) {
	fmt.Fprintf(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>`+
		`<AccessKeyId>ASIA%d</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>session/%d</SessionToken><Expiration>%s</Expiration>`+
		`</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`, n, secret, n, clock.Add(life).Format(time.RFC3339))
}

func assuming(t *testing.T) (*Bucket, *stsServer) {
	t.Helper()
	hermetic(t)
	s := &stsServer{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	b, err := Open(t.Context(), Options{Bucket: "photos", Region: "eu-central-1", Now: func() time.Time { return clock }, Role: &Role{
		ARN: testRole, Session: "photos-api", Endpoint: server.URL,
		Token: func(context.Context) (string, error) { return testToken, nil },
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b, s
}

func TestRoleSigns(t *testing.T) {
	b, s := assuming(t)
	for range 3 {
		got, err := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "a/b", Size: 1, Expires: 15 * time.Minute})
		if err != nil || !strings.Contains(got.URL, "X-Amz-Credential=ASIA1%2F") || !strings.Contains(got.URL, "X-Amz-Security-Token=session%2F1") {
			t.Fatalf("%s, %v", got.URL, err)
		}
	}
	if s.asked.Load() != 1 {
		t.Errorf("asked %d times", s.asked.Load())
	}
}

// The credentials of a role are asked for anew before they cut a URL short.
func TestRoleIsRenewedBeforeItLimits(t *testing.T) {
	b, s := assuming(t)
	now := clock
	b.now, b.credentials.now = func() time.Time { return now }, func() time.Time { return now }
	sign := func() time.Duration {
		t.Helper()
		got, err := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "a/b", Size: 1, Expires: 15 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		return got.Expires.Sub(now)
	}
	sign()
	now = clock.Add(43 * time.Minute) // 16 minutes are left, without the margin
	if life := sign(); life != 15*time.Minute || s.asked.Load() != 1 {
		t.Errorf("%v, asked %d times", life, s.asked.Load())
	}
	s.answers(func(w http.ResponseWriter) { granted(w, 2, 2*time.Hour) })
	now = clock.Add(45 * time.Minute)
	if life := sign(); life != 15*time.Minute || s.asked.Load() != 2 {
		t.Errorf("%v, asked %d times", life, s.asked.Load())
	}
	// STS is down: those at hand serve until their end, and STS is not stormed.
	s.answers(func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) })
	now = clock.Add(115 * time.Minute)
	before := s.asked.Load()
	for range 5 {
		if life := sign(); life != 4*time.Minute {
			t.Errorf("%v", life)
		}
	}
	if asked := s.asked.Load() - before; asked > attempts {
		t.Errorf("asked %d times", asked)
	}
	now = clock.Add(2 * time.Hour)
	if _, err := b.SignPut(t.Context(), upload.Put{Key: "k", ContentType: "a/b", Size: 1, Expires: time.Minute}); !errors.Is(err, upload.ErrUnavailable) {
		t.Errorf("beyond their end: %v", err)
	}
}

// What STS says may hold what it was sent, and whatever it answered with is no
// one's business.
func TestRoleErrorsHoldNoSecrets(t *testing.T) {
	refusal := func(status int, code string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.WriteHeader(status)
			fmt.Fprintf(w, "<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>bad: %s</Message></Error></ErrorResponse>", code, testToken)
		}
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		says   string
	}{
		"denied":      {refusal(403, "AccessDenied"), "trust policy"},
		"no provider": {refusal(400, "InvalidIdentityToken"), "accounts.google.com"},
		"over":        {refusal(400, "ExpiredTokenException"), "clock"},
		"another":     {refusal(400, "Odd"), `400 "Odd"`},
		"a page":      {func(w http.ResponseWriter) { io.WriteString(w, "<html>"+testToken) }, "assume"},
		"half":        {func(w http.ResponseWriter) { io.WriteString(w, "<AssumeRoleWithWebIdentityResponse>") }, "assume"},
		"nothing in it": {func(w http.ResponseWriter) {
			io.WriteString(w, "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult/></AssumeRoleWithWebIdentityResponse>")
		}, "no whole credentials"},
	} {
		b, s := assuming(t)
		s.answers(c.answer)
		err := b.CheckCredentials(t.Context())
		if !errors.Is(err, upload.ErrUnavailable) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), testRole) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), testToken) || strings.Contains(err.Error(), secret)) {
			t.Errorf("%s: a secret is in %v", name, err)
		}
	}
}

// Of an answer without an end no more is read than credentials can be.
func TestSTSAnswersWithoutEnd(t *testing.T) {
	b, s := assuming(t)
	var sent atomic.Int64
	s.answers(func(w http.ResponseWriter) {
		const before = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><SessionToken>"
		io.WriteString(w, before)
		for sent.Load() < 256<<20 {
			n, err := io.WriteString(w, strings.Repeat("x", 1<<20))
			if sent.Add(int64(n)); err != nil {
				return
			}
		}
	})
	if err := b.CheckCredentials(t.Context()); !errors.Is(err, upload.ErrUnavailable) || len(err.Error()) > 1000 {
		t.Errorf("%.1000v", err)
	}
	if got := sent.Load(); got > 64<<20 {
		t.Errorf("%d bytes were read", got)
	}
}

func TestNoTokenNoRole(t *testing.T) {
	b, s := assuming(t)
	b.credentials = newCredentialSource(newAssumedRole(Role{ARN: testRole, Token: func(context.Context) (string, error) {
		return "", errors.New("no Google account")
	}}, "eu-central-1", nil), b.now)
	if err := b.CheckCredentials(t.Context()); !errors.Is(err, upload.ErrUnavailable) || !strings.Contains(err.Error(), "no Google account") || s.asked.Load() != 0 {
		t.Errorf("%v", err)
	}
}

// Where STS hangs, a request does not.
func TestSTSHangs(t *testing.T) {
	hanging := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer hanging.Close()
	b, _ := assuming(t)
	b.credentials = newCredentialSource(newAssumedRole(Role{ARN: testRole, Endpoint: hanging.URL, Token: func(context.Context) (string, error) { return testToken, nil }},
		"eu-central-1", &http.Client{Timeout: 200 * time.Millisecond}), b.now) // no deadline reaches it from the cache
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := b.CheckCredentials(ctx); !errors.Is(err, upload.ErrUnavailable) {
		t.Error(err)
	}
}

// STS is asked in the bucket's region, over TLS.
func TestRegionalSTS(t *testing.T) {
	for region, host := range map[string]string{
		"eu-central-1": "sts.eu-central-1.amazonaws.com", "us-east-1": "sts.us-east-1.amazonaws.com", "cn-north-1": "sts.cn-north-1.amazonaws.com.cn",
	} {
		caught := &captured{}
		a := newAssumedRole(Role{ARN: testRole, Token: func(context.Context) (string, error) { return testToken, nil }}, region, caught)
		if _, err := a.Retrieve(t.Context()); err == nil {
			t.Error("credentials out of nothing")
		}
		if u := caught.request.URL; u.Scheme != "https" || u.Host != host || u.RawQuery != "" {
			t.Errorf("%s: asked at %s", region, u)
		}
	}
}

func TestRoleARN(t *testing.T) {
	for _, good := range []string{testRole, "arn:aws-cn:iam::111122223333:role/a/b+c=d,e.f@g_h-i", "arn:aws-us-gov:iam::111122223333:role/x"} {
		if err := (&Options{Bucket: "photos", Role: &Role{ARN: good}}).Check(); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "sidegate", "arn:aws:iam::1:role/x", "arn:aws:iam::111122223333:user/x", testRole + "\n", testRole + " ", "arn:aws:sts::111122223333:assumed-role/x/y"} {
		if (&Options{Bucket: "photos", Role: &Role{ARN: bad}}).Check() == nil {
			t.Errorf("%q passes", bad)
		}
	}
}
