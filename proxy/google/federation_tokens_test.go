package google

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cloud.google.com/go/auth"
)

// provides is a source of tokens.
type provides func(context.Context) (*auth.Token, error)

func (p provides) Token(ctx context.Context) (*auth.Token, error) { return p(ctx) }

// TestFederatedTokensFailClosed: what is no token is none, and no error repeats
// what a server wrote.
func TestFederatedTokensFailClosed(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		token *auth.Token
		err   error
		panic bool
		want  string
	}{
		"none":      {want: "holds none"},
		"empty":     {token: &auth.Token{Expiry: soon}, want: "holds none"},
		"a line":    {token: &auth.Token{Value: "a\r\nb", Expiry: soon}, want: "holds none"},
		"huge":      {token: &auth.Token{Value: strings.Repeat("a", 1<<20), Expiry: soon}, want: "holds none"},
		"kind":      {token: &auth.Token{Value: "a", Type: "N_A", Expiry: soon}, want: "holds none"},
		"over":      {token: &auth.Token{Value: "a", Expiry: time.Now().Add(-time.Second)}, want: "over"},
		"no expiry": {token: &auth.Token{Value: "a"}, want: "over"},
		"refused":   {err: errors.New("credentials: status code 403: {hunter2}"), want: "403"},
		"odd":       {err: errors.New("credentials: unable to parse hunter2"), want: "makes no sense"},
		"slow":      {err: fmt.Errorf("x: %w", context.DeadlineExceeded), want: "in time"},
		"panic":     {panic: true, want: "panic"},
	} {
		tokens := &federatedTokens{now: time.Now, from: provides(func(context.Context) (*auth.Token, error) {
			if c.panic {
				panic("hunter2")
			}
			return c.token, c.err
		})}
		if token, err := tokens.Token(t.Context()); token != nil || err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, %v", name, token, err)
		}
	}
}

// TestFederatedTokensAreRenewed: one question at a time, before the end; the old
// token serves while it is good, and nobody waits for longer than they may.
func TestFederatedTokensAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, hangs := 0, make(chan struct{})
		close(hangs)
		tokens := &federatedTokens{now: time.Now}
		tokens.from = provides(func(ctx context.Context) (*auth.Token, error) {
			asked++
			n := asked
			select {
			case <-hangs:
				return &auth.Token{Value: fmt.Sprint("t", n), Expiry: time.Now().Add(time.Hour)}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		want := func(values string, questions int) {
			t.Helper()
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if token, err := tokens.Token(t.Context()); err != nil || !strings.Contains(values, token.Value) {
						t.Errorf("%v, %v; want %s", token, err, values)
					}
				})
			}
			all.Wait()
			synctest.Wait()
			if asked != questions {
				t.Errorf("asked %d times, want %d", asked, questions)
			}
		}
		want("t1", 1)
		time.Sleep(56 * time.Minute)
		want("t1", 1)
		time.Sleep(90 * time.Second) // 2m30s are left
		want("t1 t2", 2)             // has a new one asked for, and waits for none
		want("t2", 2)

		hangs = make(chan struct{})
		time.Sleep(58 * time.Minute)
		want("t2", 3)
		time.Sleep(119*time.Second + tokenAsk) // the question is over, and so is the token
		begin := time.Now()
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if token, err := tokens.Token(ctx); err == nil {
					t.Errorf("a token that is over: %v", token)
				}
			})
		}
		all.Wait()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("who may wait for a second waited for %s", took)
		}
		time.Sleep(tokenAsk)
		close(hangs)
		if token, err := tokens.Token(t.Context()); err != nil || token.Expiry.Before(time.Now()) {
			t.Errorf("%v, %v", token, err)
		}
	})
}
