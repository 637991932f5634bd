package google

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/compute/metadata"
	"golang.org/x/oauth2"
	"google.golang.org/api/option"
	"google.golang.org/api/transport"
)

// Kinds of credentials, as Google's files name them; KindMetadata has no file.
const (
	KindServiceAccount = "service_account" // a key file, which does not end by itself
	KindUser           = "authorized_user" // of gcloud auth application-default login
	KindMetadata       = "metadata"        // of the machine's service account
	KindAWS            = "aws"             // of a container's role of AWS: see FromAWS
)

// An Account is whom Google takes this process for.
type Account struct {
	Kind    string    // a constant above, external_account, impersonated_service_account, or another word of a file
	Email   string    // empty: the credentials do not say it
	Expires time.Time // of the token that was got to try them
}

// FindAccount finds the machine's credentials as Google's libraries do
// (Application Default Credentials), unless they were made by [FromAWS], and gets a
// token by them, which is thrown away. Its error holds nothing that a server wrote
// beside its codes.
// https://cloud.google.com/docs/authentication/application-default-credentials
func FindAccount(ctx context.Context, made *auth.Credentials) (Account, error) {
	if made != nil {
		token, err := made.Token(ctx)
		if err != nil {
			return Account{Kind: KindAWS}, err
		}
		return Account{Kind: KindAWS, Expires: token.Expiry}, nil
	}
	found, err := transport.Creds(ctx, option.WithScopes("https://www.googleapis.com/auth/cloud-platform"))
	if err != nil {
		return Account{}, fmt.Errorf("find Google's credentials: %w", quiet(err))
	}
	a := Account{Kind: KindMetadata}
	if len(found.JSON) > 0 {
		var file struct {
			Type  string `json:"type"`
			Email string `json:"client_email"`
		}
		if json.Unmarshal(found.JSON, &file) != nil || file.Type == "" || len(file.Type) > 64 {
			return Account{}, errors.New("find Google's credentials: their file says no type")
		}
		a.Kind, a.Email = file.Type, file.Email
	}
	token, err := found.TokenSource.Token()
	if err != nil {
		return a, fmt.Errorf("get a token: %w", quiet(err))
	}
	a.Expires = token.Expiry
	if a.Kind == KindMetadata {
		// That it cannot be told is no fault: there is a token.
		a.Email, _ = metadata.EmailWithContext(ctx, "default")
	}
	return a, nil
}

// TryIDToken gets an ID token as [IDTokens] do, which is thrown away. Its error
// holds nothing that a server wrote beside its codes.
func TryIDToken(ctx context.Context, audience string) error {
	_, _, err := askGoogle(ctx, audience)
	return err
}

// noIDToken is an error of Google's library about ID tokens, without what a server
// wrote.
func noIDToken(err error) error {
	if strings.Contains(err.Error(), "unsupported credentials type") {
		return errors.New("credentials of this kind give no ID tokens: only a service account's do, attached to this machine, by a key file, or impersonated")
	}
	return quiet(err)
}

// quiet is an error without what a server wrote, and without URLs.
func quiet(err error) error {
	var answer *oauth2.RetrieveError
	var asked *url.Error
	var file *fs.PathError
	switch {
	case errors.As(err, &answer) && answer.Response != nil:
		return fmt.Errorf("the answer of Google is %d %.64q", answer.Response.StatusCode, answer.ErrorCode)
	case errors.As(err, &asked):
		return noConnection(asked.Err)
	case errors.As(err, &file):
		return file
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return errors.New("no answer in time")
	}
	if m := statusCode.FindStringSubmatch(err.Error()); m != nil { // of who impersonates
		return errors.New("the answer of Google is " + m[1])
	}
	return errors.New("there are none that can be used")
}
