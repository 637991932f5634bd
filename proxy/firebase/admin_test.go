package firebase_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/proxy/firebase"
	"sidegate/proxy/oidc"
)

// noCredentials makes this process one of a machine without any.
func noCredentials(t *testing.T) {
	t.Helper()
	for _, name := range []string{"GOOGLE_APPLICATION_CREDENTIALS", "FIREBASE_AUTH_EMULATOR_HOST", "FIREBASE_CONFIG",
		"GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("CLOUDSDK_CONFIG", t.TempDir())
}

// standIn stands in for the Auth emulator's host; the reader asks it.
func standIn(t *testing.T, tenant string, answer http.HandlerFunc) (firebase.UserReader, *atomic.Int64) {
	t.Helper()
	noCredentials(t)
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	read, err := firebase.AdminUsers(t.Context(), project, tenant, server.Listener.Addr().String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return read, &requests
}

func body(text string) http.HandlerFunc { return status(http.StatusOK, text) }

func status(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, text)
	}
}

// What is asked is one user, of the project and tenant, by the uid and nothing
// made of it.
func TestWhatIsAsked(t *testing.T) {
	for tenant, path := range map[string]string{
		"":               "/identitytoolkit.googleapis.com/v1/projects/acme-prod/accounts:lookup",
		"consumer-x1y2z": "/identitytoolkit.googleapis.com/v1/projects/acme-prod/tenants/consumer-x1y2z/accounts:lookup",
	} {
		for _, uid := range []string{"alice", "../bob", "a/b?c#d%2f", `quote"backslash\`, "jürgen", strings.Repeat("x", 128)} {
			read, requests := standIn(t, tenant, func(w http.ResponseWriter, r *http.Request) {
				var asked map[string][]string
				if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || len(asked) != 1 || len(asked["localId"]) != 1 || asked["localId"][0] != uid {
					t.Errorf("%v, %v", asked, err)
				}
				if r.Method != http.MethodPost || r.RequestURI != path {
					t.Errorf("%s %s", r.Method, r.RequestURI)
				}
				if got := r.Header["Authorization"]; len(got) != 1 || got[0] != "Bearer owner" {
					t.Errorf("Authorization %q", got)
				}
				_ = json.NewEncoder(w).Encode(map[string]any{"users": []any{map[string]any{"localId": asked["localId"][0]}}})
			})
			if u, err := read(t.Context(), uid); err != nil || !u.Exists {
				t.Errorf("%.20q: %+v, %v", uid, u, err)
			}
			if n := requests.Load(); n != 1 {
				t.Errorf("%d requests", n)
			}
		}
	}
}

func TestAnswersOfFirebase(t *testing.T) {
	since := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	for name, c := range map[string]struct {
		answer string
		user   firebase.User
	}{
		"well":                {`{"users":[{"localId":"alice"}]}`, firebase.User{Exists: true, ValidSince: since(0)}},
		"with valid since":    {`{"users":[{"localId":"alice","validSince":"1800000000"}]}`, firebase.User{Exists: true, ValidSince: since(1_800_000_000)}},
		"disabled":            {`{"users":[{"localId":"alice","disabled":true}]}`, firebase.User{Exists: true, Disabled: true, ValidSince: since(0)}},
		"not disabled":        {`{"users":[{"localId":"alice","disabled":false}]}`, firebase.User{Exists: true, ValidSince: since(0)}},
		"both":                {`{"users":[{"localId":"alice","disabled":true,"validSince":"1"}]}`, firebase.User{Exists: true, Disabled: true, ValidSince: since(1)}},
		"unknown members":     {`{"kind":"x","users":[{"localId":"alice","x":{"y":[1]}}],"z":null}`, firebase.User{Exists: true, ValidSince: since(0)}},
		"nobody":              {`{"kind":"identitytoolkit#GetAccountInfoResponse"}`, firebase.User{}},
		"an empty list":       {`{"users":[]}`, firebase.User{}},
		"nobody, by its code": {"", firebase.User{}},
	} {
		answer := body(c.answer)
		if c.answer == "" {
			answer = status(http.StatusBadRequest, `{"error":{"code":400,"message":"USER_NOT_FOUND"}}`)
		}
		read, _ := standIn(t, "", answer)
		u, err := read(t.Context(), "alice")
		if err != nil || u.Exists != c.user.Exists || u.Disabled != c.user.Disabled || (u.Exists && !u.ValidSince.Equal(c.user.ValidSince)) {
			t.Errorf("%s: %+v, %v; want %+v", name, u, err, c.user)
		}
	}
}

// What is no answer about the user is an error, and never "there is no such
// user", nor one who is well. A panic would be the gateway's end.
func TestNoAnswersOfFirebase(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"500":                       status(500, `{"error":{"code":500,"message":"INTERNAL"}}`),
		"500 without a body":        status(500, ""),
		"403":                       status(403, `{"error":{"code":403,"message":"INSUFFICIENT_PERMISSION","status":"PERMISSION_DENIED"}}`),
		"401":                       status(401, `{"error":{"code":401,"message":"UNAUTHENTICATED"}}`),
		"404, a wrong project":      status(404, `{"error":{"code":404,"message":"CONFIGURATION_NOT_FOUND"}}`),
		"404 of some other server":  status(404, "no such page"),
		"400, a wrong tenant":       status(400, `{"error":{"code":400,"message":"TENANT_NOT_FOUND"}}`),
		"429":                       status(429, `{"error":{"code":429,"message":"QUOTA_EXCEEDED"}}`),
		"garbage":                   body("\x00\xff<html>"),
		"nothing":                   body(""),
		"cut":                       body(`{"users":[{"localId":"alice"`),
		"a list":                    body(`[{"localId":"alice"}]`),
		"users is text":             body(`{"users":"alice"}`),
		"users is an object":        body(`{"users":{"localId":"alice"}}`),
		"a user who is text":        body(`{"users":["alice"]}`),
		"a user who is null":        body(`{"users":[null]}`),
		"a user without a uid":      body(`{"users":[{}]}`),
		"another user":              body(`{"users":[{"localId":"bob"}]}`),
		"another case":              body(`{"users":[{"localId":"Alice"}]}`),
		"another first":             body(`{"users":[{"localId":"bob"},{"localId":"alice"}]}`),
		"a uid that is a number":    body(`{"users":[{"localId":1}]}`),
		"disabled is text":          body(`{"users":[{"localId":"alice","disabled":"true"}]}`),
		"valid since is no time":    body(`{"users":[{"localId":"alice","validSince":"yesterday"}]}`),
		"a factor that is null":     body(`{"users":[{"localId":"alice","mfaInfo":[null]}]}`),
		"claims that are no JSON":   body(`{"users":[{"localId":"alice","customAttributes":"{"}]}`),
		"a last refresh of no time": body(`{"users":[{"localId":"alice","lastRefreshAt":"x"}]}`),
	} {
		read, _ := standIn(t, "", answer)
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("%s: it panics: %v", name, p)
				}
			}()
			u, err := read(t.Context(), "alice")
			if err == nil || u != (firebase.User{}) {
				t.Errorf("%s: %+v, %v", name, u, err)
			} else if strings.Contains(err.Error(), "owner") {
				t.Errorf("%s: %v", name, err)
			}
		}()
	}
}

// The SDK tries 503 and failures of the network again: the context ends that.
func TestQuestionEndsWithItsContext(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	arrived := make(chan struct{}, 99)
	for name, answer := range map[string]http.HandlerFunc{
		"it hangs": func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			arrived <- struct{}{}
			arrived <- struct{}{}
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		},
		"it hangs in its body": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, `{"users":[`)
			w.(http.Flusher).Flush()
			arrived <- struct{}{}
			arrived <- struct{}{}
			select {
			case <-hang:
			case <-r.Context().Done():
			}
		},
		"503": func(w http.ResponseWriter, r *http.Request) {
			arrived <- struct{}{}
			status(503, `{"error":{"code":503,"message":"UNAVAILABLE"}}`)(w, r)
		},
		"it hangs up": func(http.ResponseWriter, *http.Request) {
			arrived <- struct{}{}
			panic(http.ErrAbortHandler)
		},
	} {
		read, _ := standIn(t, "", answer)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			u, err := read(ctx, "alice")
			if u != (firebase.User{}) {
				t.Errorf("%s: %+v", name, u)
			}
			done <- err
		}()
		<-arrived
		<-arrived
		cancel()
		if err := <-done; err == nil || strings.Contains(err.Error(), "owner") {
			t.Errorf("%s: %v", name, err)
		}
		for len(arrived) > 0 {
			<-arrived
		}
	}
}

func TestNobodyListens(t *testing.T) {
	noCredentials(t)
	server := httptest.NewServer(http.NotFoundHandler())
	host := server.Listener.Addr().String()
	server.Close()
	read, err := firebase.AdminUsers(t.Context(), project, "", host, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if u, err := read(ctx, "alice"); err == nil || u != (firebase.User{}) || strings.Contains(err.Error(), "owner") {
		t.Errorf("%+v, %v", u, err)
	}
}

// Where the process has the emulator's variable, too, as a gateway with
// --insecure-emulator has, the same host is asked in the same way.
func TestEmulatorOfTheProcess(t *testing.T) {
	noCredentials(t)
	var path, authorization atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path.Store(r.RequestURI)
		authorization.Store(strings.Join(r.Header["Authorization"], "|"))
		body(`{"users":[{"localId":"alice"}]}`)(w, r)
	}))
	defer server.Close()
	host := server.Listener.Addr().String()
	t.Setenv("FIREBASE_AUTH_EMULATOR_HOST", host)
	read, err := firebase.AdminUsers(t.Context(), project, "consumer", host, nil)
	if err != nil {
		t.Fatal(err)
	}
	if u, err := read(t.Context(), "alice"); err != nil || !u.Exists {
		t.Errorf("%+v, %v", u, err)
	}
	if path.Load() != "/identitytoolkit.googleapis.com/v1/projects/acme-prod/tenants/consumer/accounts:lookup" || authorization.Load() != "Bearer owner" {
		t.Errorf("%v, Authorization %q", path.Load(), authorization.Load())
	}
}

// Without --insecure-emulator the variable decides nothing but that there is no
// reader.
func TestEmulatorVariableInProduction(t *testing.T) {
	noCredentials(t)
	t.Setenv("FIREBASE_AUTH_EMULATOR_HOST", "127.0.0.1:9099")
	for _, tenant := range []string{"", "consumer"} {
		read, err := firebase.AdminUsers(t.Context(), project, tenant, "", nil)
		if err == nil || read != nil || !strings.Contains(err.Error(), "FIREBASE_AUTH_EMULATOR_HOST") {
			t.Errorf("%v", err)
		}
	}
}

// A machine without credentials is noticed when the gateway starts, not by its
// first caller.
func TestNoCredentials(t *testing.T) {
	noCredentials(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	read, err := firebase.AdminUsers(ctx, project, "", "", nil)
	if err == nil {
		if _, lookup := net.DefaultResolver.LookupHost(ctx, "metadata.google.internal"); lookup == nil {
			t.Skip("this machine is Google's: it has credentials of its own")
		}
	}
	if err == nil || read != nil {
		t.Errorf("a reader was made without credentials: %v", err)
	} else if !strings.Contains(err.Error(), "credentials") {
		t.Errorf("%v does not say what is missing", err)
	}
}

// From the stand-in to the verdict on a token.
func TestUsersOfTheStandIn(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	var answer atomic.Value
	read, _ := standIn(t, "", func(w http.ResponseWriter, r *http.Request) { answer.Load().(http.HandlerFunc)(w, r) })
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		reason string
	}{
		"well":               {body(`{"users":[{"localId":"alice"}]}`), ""},
		"the same second":    {body(fmt.Sprintf(`{"users":[{"localId":"alice","validSince":"%d"}]}`, now.Unix()-10)), ""},
		"revoked":            {body(fmt.Sprintf(`{"users":[{"localId":"alice","validSince":"%d"}]}`, now.Unix()-9)), oidc.ReasonRevoked},
		"disabled":           {body(`{"users":[{"localId":"alice","disabled":true}]}`), oidc.ReasonDisabled},
		"deleted":            {body(`{}`), oidc.ReasonRevoked},
		"may not be read":    {status(403, `{"error":{"message":"INSUFFICIENT_PERMISSION"}}`), "unavailable"},
		"of another":         {body(`{"users":[{"localId":"bob"}]}`), "unavailable"},
		"garbage":            {body("x"), "unavailable"},
		"the server's fault": {status(500, "owner"), "unavailable"},
	} {
		answer.Store(c.answer)
		users, err := firebase.NewUsers(firebase.UsersOptions{Read: read, Window: window})
		if err != nil {
			t.Fatal(err)
		}
		e, err := firebase.NewEmulator(firebase.Options{Name: "users", Namespace: "users", Project: project, Users: users})
		if err != nil {
			t.Fatal(err)
		}
		id, err := newSet(t, e).Authenticate(t.Context(), unsigned(now))
		switch c.reason {
		case "":
			wantGood(t, name, err)
		case "unavailable":
			wantUnavailable(t, name, err)
		default:
			wantRefused(t, name, err, c.reason)
		}
		if (id == nil) != (err != nil) || errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, %v", name, id, err)
		}
	}
}
