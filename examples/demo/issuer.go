package main

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// project is the Firebase project that the demo's tokens are for. Firebase
// never gives a name that starts with "demo-" to a real project.
const project = "demo-sidegate"

// A user is somebody the issuer signs tokens for.
type user struct {
	UID   string
	Email string
	Roles []string // the custom claim roles; none: no such claim
}

// users are the demo's: alice and bob own files, carol has the role admin.
var users = []user{
	{UID: "alice", Email: "alice@example.com", Roles: []string{"viewer"}},
	{UID: "bob", Email: "bob@example.com"},
	{UID: "carol", Email: "carol@example.com", Roles: []string{"admin"}},
}

// An issuer signs ID tokens with the claims of Firebase's
// (https://firebase.google.com/docs/auth/admin/verify-id-tokens) and publishes
// the key that verifies them. It is safe for concurrent use.
type issuer struct {
	signer jose.Signer
	keys   []byte // the JWK set, as served
}

func newIssuer() (*issuer, error) { return newIssuerOf("demo-1") }

// newIssuerOf makes an issuer whose key has this ID.
func newIssuerOf(id string) (*issuer, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make the issuer's key: %w", err)
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: id}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("make the issuer's signer: %w", err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: &key.PublicKey, KeyID: id, Algorithm: string(jose.RS256), Use: "sig"},
	}})
	if err != nil {
		return nil, fmt.Errorf("write the issuer's key set: %w", err)
	}
	return &issuer{signer: signer, keys: keys}, nil
}

// token is an ID token of the user, good for an hour from now.
func (i *issuer) token(u user, now time.Time) (string, error) {
	claims := map[string]any{
		"iss":            "https://securetoken.google.com/" + project,
		"aud":            project,
		"sub":            u.UID,
		"user_id":        u.UID,
		"iat":            now.Unix(),
		"exp":            now.Add(time.Hour).Unix(),
		"auth_time":      now.Unix(),
		"email":          u.Email,
		"email_verified": true,
		"firebase": map[string]any{
			"sign_in_provider": "password",
			"identities":       map[string]any{"email": []string{u.Email}},
		},
	}
	if len(u.Roles) > 0 {
		claims["roles"] = u.Roles
	}
	token, err := jwt.Signed(i.signer).Claims(claims).Serialize()
	if err != nil {
		return "", fmt.Errorf("sign a token for %s: %w", u.UID, err)
	}
	return token, nil
}

// ServeHTTP answers /keys with the JWK set and /token/UID with a fresh token
// of one of the demo's users.
func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "public, max-age=3600, must-revalidate")
		w.Write(i.keys)
	})
	mux.HandleFunc("GET /token/{uid}", func(w http.ResponseWriter, r *http.Request) {
		for _, u := range users {
			if u.UID != r.PathValue("uid") {
				continue
			}
			token, err := i.token(u, time.Now())
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			w.Header().Set("Cache-Control", "no-store")
			fmt.Fprintln(w, token)
			return
		}
		http.NotFound(w, r)
	})
	mux.ServeHTTP(w, r)
}
