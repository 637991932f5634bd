package google

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// minted answers as Google does, with a token of an hour for each question.
type minted struct {
	asked atomic.Int64
	err   atomic.Pointer[error]
	took  time.Duration
}

func (m *minted) ask(_ context.Context, audience string) (string, time.Time, error) {
	n := m.asked.Add(1)
	time.Sleep(m.took)
	if err := m.err.Load(); err != nil {
		return "", time.Time{}, *err
	}
	return fmt.Sprintf("%s#%d", audience, n), time.Now().Add(time.Hour), nil
}

func (m *minted) fails(err error) {
	if err == nil {
		m.err.Store(nil)
		return
	}
	m.err.Store(&err)
}

func tokens(t *testing.T, m *minted) *IDTokens {
	t.Helper()
	tokens, err := NewIDTokens("https://app.example")
	if err != nil {
		t.Fatal(err)
	}
	tokens.ask = m.ask
	return tokens
}

func want(t *testing.T, tokens *IDTokens, text string) {
	t.Helper()
	if got, err := tokens.Token(t.Context()); got != text || err != nil {
		t.Errorf("%q, %v; want %q", got, err, text)
	}
}

// One question for all who wait, and none while the token is good.
func TestTokenIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &minted{took: time.Second}
		tokens := tokens(t, m)
		for range 64 {
			go want(t, tokens, "https://app.example#1")
		}
		synctest.Wait()
		want(t, tokens, "https://app.example#1")
		time.Sleep(time.Hour - unusedBefore - time.Second)
		want(t, tokens, "https://app.example#1")
		time.Sleep(2 * time.Second)
		want(t, tokens, "https://app.example#2")
		if n := m.asked.Load(); n != 2 {
			t.Errorf("%d questions", n)
		}
	})
}

// With Run no request waits: a new token is there before the old one ends, and
// an outage that is shorter than what is left is not noticed.
func TestRunKeepsOneReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &minted{}
		tokens := tokens(t, m)
		ctx, stop := context.WithCancel(t.Context())
		var failures atomic.Int64
		go tokens.Run(ctx, func(error) { failures.Add(1) })
		synctest.Wait()
		want(t, tokens, "https://app.example#1")
		time.Sleep(time.Hour - refreshBefore)
		synctest.Wait()
		want(t, tokens, "https://app.example#2")
		m.fails(errors.New("away"))
		time.Sleep(time.Hour - refreshBefore + 2*time.Minute)
		want(t, tokens, "https://app.example#2") // in the outage
		m.fails(nil)
		time.Sleep(maxPause)
		synctest.Wait()
		got, err := tokens.Token(t.Context())
		if err != nil || got == "https://app.example#2" {
			t.Errorf("%q, %v", got, err)
		}
		if n := failures.Load(); n < 3 || n > 10 {
			t.Errorf("%d failures were told", n)
		}
		stop()
		synctest.Wait()
	})
}

func TestNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &minted{}
		m.fails(errors.New("no account"))
		tokens := tokens(t, m)
		if got, err := tokens.Token(t.Context()); err == nil || got != "" || !strings.Contains(err.Error(), "no account") {
			t.Errorf("%q, %v", got, err)
		}
		m.took = time.Minute // it hangs
		begun := time.Now()
		if got, err := tokens.Token(t.Context()); err == nil || time.Since(begun) != wait {
			t.Errorf("%q, %v, after %s", got, err, time.Since(begun))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun = time.Now()
		if _, err := tokens.Token(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != time.Second {
			t.Errorf("%v after %s", err, time.Since(begun))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		tokens.ask = func(ctx context.Context, _ string) (string, time.Time, error) {
			<-ctx.Done() // it hangs until it is told to end
			return "", time.Time{}, ctx.Err()
		}
		if _, err := tokens.Token(t.Context()); err == nil {
			t.Error("a token of one who hangs")
		}
		time.Sleep(askTimeout)
		synctest.Wait()
		tokens.ask = func(context.Context, string) (string, time.Time, error) { panic("in a library") }
		if _, err := tokens.Token(t.Context()); err == nil || !strings.Contains(err.Error(), "panic") {
			t.Errorf("%v", err)
		}
		tokens.ask, m.took = m.ask, 0
		m.fails(nil)
		if got, err := tokens.Token(t.Context()); err != nil || got == "" {
			t.Errorf("%q, %v: it does not recover", got, err)
		}
	})
	if _, err := NewIDTokens(""); err == nil {
		t.Error("a token for nobody")
	}
}

// TestMain stands in for the metadata server of Google Cloud, by the variable
// that Google's libraries read; they look for it once.
func TestMain(m *testing.M) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		audience := r.URL.Query().Get("audience")
		if r.Header.Get("Metadata-Flavor") != "Google" || r.URL.Path != "/computeMetadata/v1/instance/service-accounts/default/identity" || audience == "https://nobody.example" {
			w.Header().Set("Metadata-Flavor", "Google")
			http.Error(w, "no", http.StatusNotFound)
			return
		}
		w.Header().Set("Metadata-Flavor", "Google")
		b64 := base64.RawURLEncoding.EncodeToString
		life := time.Hour
		switch audience {
		case "https://kept.example":
			life = 20 * time.Minute
		case "https://page.example":
			fmt.Fprint(w, "<p>sign in</p>")
			return
		}
		fmt.Fprintf(w, "%s.%s.sig", b64([]byte(`{"alg":"RS256"}`)), b64(fmt.Appendf(nil, `{"aud":%q,"exp":%d}`, audience, time.Now().Add(life).Unix())))
	}))
	home, err := os.MkdirTemp("", "home-")
	if err != nil {
		panic(err)
	}
	os.Setenv("HOME", home) // no credentials of this machine
	os.Unsetenv("GOOGLE_APPLICATION_CREDENTIALS")
	os.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(server.URL, "http://"))
	status := m.Run()
	server.Close()
	os.RemoveAll(home)
	os.Exit(status)
}

// TestMetadataServer asks by Google's own library.
func TestMetadataServer(t *testing.T) {
	tokens, err := NewIDTokens("https://app.example")
	if err != nil {
		t.Fatal(err)
	}
	text, err := tokens.Token(t.Context())
	if err != nil || strings.Count(text, ".") != 2 {
		t.Fatalf("%q, %v", text, err)
	}
	if left := time.Until(tokens.current.Load().expires); left < 50*time.Minute || left > time.Hour { // the library takes a little off
		t.Errorf("it is said to end in %s", left)
	}
	if again, _ := tokens.Token(t.Context()); again != text {
		t.Error("another token")
	}
	for _, audience := range []string{"https://nobody.example", "https://page.example"} {
		other, err := NewIDTokens(audience)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := other.Token(t.Context()); err == nil || strings.Contains(err.Error(), "sign in") {
			t.Errorf("%s: %q, %v", audience, text, err)
		}
	}
}

// A token that the metadata server has kept for a while ends when it says, not
// an hour after it was asked for.
func TestKeptTokenEndsWhenItSays(t *testing.T) {
	tokens, err := NewIDTokens("https://kept.example")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := time.Until(tokens.current.Load().expires); left > 20*time.Minute {
		t.Errorf("it is said to end in %s", left)
	}
}
