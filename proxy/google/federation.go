package google

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials/externalaccount"
)

// AWSKeys are temporary credentials of AWS, and the region whose STS is to be
// asked about them.
type AWSKeys struct{ Region, AccessKey, SecretKey, SessionToken string }

// scope is what the credentials may be used for: whatever their account may do.
const scope = "https://www.googleapis.com/auth/cloud-platform"

// FromAWS makes Google credentials of AWS's by workload identity federation, as
// file says, which is one of `gcloud iam workload-identity-pools create-cred-config
// --aws` (https://google.aip.dev/auth/4117). Google's library finds the keys of
// AWS in variables and at EC2 only, so that a task of ECS or a pod with EKS Pod
// Identity has none (github.com/googleapis/google-cloud-go/issues/13479): keys
// gives them instead, each time that Google's are fetched anew. It is called by
// many at once, and keeps what it has.
//
// A file about other credentials gives nil and no error. Errors hold nothing of
// the file's contents.
func FromAWS(file []byte, keys func(context.Context) (AWSKeys, error)) (*auth.Credentials, error) {
	var in struct {
		Type             string `json:"type"`
		Audience         string `json:"audience"`
		SubjectTokenType string `json:"subject_token_type"`
		TokenURL         string `json:"token_url"`
		TokenInfoURL     string `json:"token_info_url"`
		Impersonation    string `json:"service_account_impersonation_url"`
		QuotaProject     string `json:"quota_project_id"`
		UniverseDomain   string `json:"universe_domain"`
		ClientID         string `json:"client_id"`
		ClientSecret     string `json:"client_secret"`
		Lifetime         struct {
			Seconds int `json:"token_lifetime_seconds"`
		} `json:"service_account_impersonation"`
		Source struct {
			EnvironmentID string `json:"environment_id"`
			Verification  string `json:"regional_cred_verification_url"`
		} `json:"credential_source"`
	}
	if json.Unmarshal(file, &in) != nil {
		return nil, errors.New("it is not JSON, or not of Google credentials")
	}
	if in.Type != "external_account" || in.Source.EnvironmentID != "aws1" {
		return nil, nil
	}
	if in.Source.Verification != "" && in.Source.Verification != verification {
		return nil, errors.New("regional_cred_verification_url is another one than " + verification + ", which alone is signed for")
	}
	made, err := externalaccount.NewCredentials(&externalaccount.Options{
		Audience:                       in.Audience,
		SubjectTokenType:               in.SubjectTokenType,
		TokenURL:                       in.TokenURL,
		TokenInfoURL:                   in.TokenInfoURL,
		ServiceAccountImpersonationURL: in.Impersonation,
		ServiceAccountImpersonationLifetimeSeconds: in.Lifetime.Seconds,
		ClientID:                       in.ClientID,
		ClientSecret:                   in.ClientSecret,
		QuotaProjectID:                 in.QuotaProject,
		UniverseDomain:                 in.UniverseDomain,
		Scopes:                         []string{scope},
		AwsSecurityCredentialsProvider: awsKeys(keys),
		Client:                         tokenClient(),
	})
	if err != nil {
		return nil, fmt.Errorf("credentials by workload identity federation: %w", err)
	}
	return auth.NewCredentials(&auth.CredentialsOptions{
		TokenProvider:          &federatedTokens{from: made, now: time.Now},
		UniverseDomainProvider: auth.CredentialsPropertyFunc(made.UniverseDomain),
		QuotaProjectIDProvider: auth.CredentialsPropertyFunc(made.QuotaProjectID),
	}), nil
}

// verification is the question that Google's library signs, and that gcloud writes
// into files.
const verification = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"

// tokenClient asks for tokens. The library's own waits for ever, and would carry
// the signed question to wherever an answer redirects it.
func tokenClient() *http.Client {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if t, ok := http.DefaultTransport.(*http.Transport); ok {
		transport = t.Clone()
	}
	transport.MaxResponseHeaderBytes = 64 << 10
	return &http.Client{
		Transport: transport, Timeout: tokenWait,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// awsKeys is what Google's library asks.
type awsKeys func(context.Context) (AWSKeys, error)

func (k awsKeys) AwsRegion(ctx context.Context, _ *externalaccount.RequestOptions) (string, error) {
	have, err := k(ctx)
	switch {
	case err != nil:
		return "", &keysError{err}
	case !regionName.MatchString(have.Region): // it is made part of a host's name
		return "", &keysError{errors.New("the region of AWS is not known: set AWS_REGION")}
	}
	return have.Region, nil
}

var regionName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

// A keysError is one of what gives the keys of AWS, which may be told.
type keysError struct{ error }

func (e *keysError) Unwrap() error { return e.error }

func (k awsKeys) AwsSecurityCredentials(ctx context.Context, _ *externalaccount.RequestOptions) (*externalaccount.AwsSecurityCredentials, error) {
	have, err := k(ctx)
	if err == nil && (have.AccessKey == "" || have.SecretKey == "") {
		err = errors.New("the keys of AWS are empty")
	}
	if err != nil {
		return nil, &keysError{err}
	}
	return &externalaccount.AwsSecurityCredentials{AccessKeyID: have.AccessKey, SecretAccessKey: have.SecretKey, SessionToken: have.SessionToken}, nil
}
