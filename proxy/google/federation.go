package google

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

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
		Source           struct {
			EnvironmentID string `json:"environment_id"`
		} `json:"credential_source"`
	}
	if json.Unmarshal(file, &in) != nil {
		return nil, errors.New("it is not JSON, or not of Google credentials")
	}
	if in.Type != "external_account" || in.Source.EnvironmentID != "aws1" {
		return nil, nil
	}
	made, err := externalaccount.NewCredentials(&externalaccount.Options{
		Audience:                       in.Audience,
		SubjectTokenType:               in.SubjectTokenType,
		TokenURL:                       in.TokenURL,
		TokenInfoURL:                   in.TokenInfoURL,
		ServiceAccountImpersonationURL: in.Impersonation,
		QuotaProjectID:                 in.QuotaProject,
		UniverseDomain:                 in.UniverseDomain,
		Scopes:                         []string{scope},
		AwsSecurityCredentialsProvider: awsKeys(keys),
	})
	if err != nil {
		return nil, fmt.Errorf("credentials by workload identity federation: %w", err)
	}
	return made, nil
}

// awsKeys is what Google's library asks.
type awsKeys func(context.Context) (AWSKeys, error)

func (k awsKeys) AwsRegion(ctx context.Context, _ *externalaccount.RequestOptions) (string, error) {
	have, err := k(ctx)
	if err == nil && have.Region == "" {
		err = errors.New("the region of AWS is not known: set AWS_REGION")
	}
	return have.Region, err
}

func (k awsKeys) AwsSecurityCredentials(ctx context.Context, _ *externalaccount.RequestOptions) (*externalaccount.AwsSecurityCredentials, error) {
	have, err := k(ctx)
	if err != nil {
		return nil, err
	}
	return &externalaccount.AwsSecurityCredentials{AccessKeyID: have.AccessKey, SecretAccessKey: have.SecretKey, SessionToken: have.SessionToken}, nil
}
