package firebase

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	googleauth "cloud.google.com/go/auth"
	sdk "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/auth"
	"firebase.google.com/go/v4/errorutils"
	"google.golang.org/api/option"
)

// emulatorVariable is what the SDK obeys unasked.
const emulatorVariable = "FIREBASE_AUTH_EMULATOR_HOST"

// AdminUsers asks Firebase for users, by the Admin SDK and these Google
// credentials, or without any the machine's
// (https://firebase.google.com/docs/admin/setup); emulator, where it is not
// empty, is the Auth emulator's host:port, which is asked instead and needs none.
func AdminUsers(ctx context.Context, project, tenant, emulator string, credentials *googleauth.Credentials) (UserReader, error) {
	var options []option.ClientOption
	if emulator != "" {
		options = append(options, option.WithHTTPClient(&http.Client{Transport: toEmulator{emulator}}))
	} else if os.Getenv(emulatorVariable) != "" {
		return nil, fmt.Errorf("%s is set: users of the emulator must not decide who a real one is", emulatorVariable)
	}
	if emulator == "" && credentials != nil {
		options = append(options, option.WithAuthCredentials(credentials))
	}
	app, err := sdk.NewApp(ctx, &sdk.Config{ProjectID: project}, options...)
	if err != nil {
		return nil, err
	}
	client, err := app.Auth(ctx)
	if err != nil {
		return nil, err
	}
	get := client.GetUser
	if tenant != "" {
		of, err := client.TenantManager.AuthForTenant(tenant)
		if err != nil {
			return nil, err
		}
		get = of.GetUser
	}
	return func(ctx context.Context, uid string) (user User, err error) {
		defer func() {
			if p := recover(); p != nil { // as the SDK does of a null in the answer
				user, err = User{}, errors.New("the answer made the SDK panic")
			}
		}()
		record, err := get(ctx, uid)
		switch {
		case auth.IsUserNotFound(err):
			return User{}, nil
		case err != nil:
			return User{}, err
		case record.UserInfo == nil || record.UID != uid:
			return User{}, errors.New("the answer of Firebase is about another user")
		}
		return User{Exists: true, Disabled: record.Disabled, ValidSince: time.UnixMilli(record.TokensValidAfterMillis)}, nil
	}, nil
}

// AnswerOf is what an error of a UserReader says of Firebase's answer, without its
// words.
func AnswerOf(err error) string {
	if got := errorutils.HTTPResponse(err); got != nil {
		return fmt.Sprintf("the answer of Firebase is status %d", got.StatusCode)
	}
	return "Firebase gives no answer, or none of its own"
}

// toEmulator sends the SDK's requests to the Auth emulator. (The SDK would find
// it by a variable of the process, which is not ours to set.)
type toEmulator struct{ host string }

func (e toEmulator) RoundTrip(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	if r.URL.Host != e.host {
		out.URL.Path = "/" + r.URL.Host + r.URL.Path
		out.URL.RawPath = ""
	}
	out.URL.Scheme, out.URL.Host, out.Host = "http", e.host, e.host
	out.Header.Set("Authorization", "Bearer owner")
	return http.DefaultTransport.RoundTrip(out)
}
