package cmd

import (
	"context"
	"fmt"

	"cloud.google.com/go/auth"

	"sidegate/proxy/google"
	"sidegate/storage/s3"
)

// The variables by which ECS, and EKS Pod Identity, say where the credentials of
// a task or a pod are.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
var containerVariables = []string{"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"}

const googleCredentials = "GOOGLE_APPLICATION_CREDENTIALS"

// maxGoogleCredentials bounds such a file, in bytes.
const maxGoogleCredentials = 64 << 10

// googleFromAWS are Google credentials that are made of a container's role of AWS;
// nil: Google's libraries find what there is by themselves.
func googleFromAWS(ctx context.Context, env environment) (*auth.Credentials, error) {
	file := env.get(googleCredentials)
	container := false
	for _, name := range containerVariables {
		container = container || env.get(name) != ""
	}
	if file == "" || !container || env.get("AWS_ACCESS_KEY_ID") != "" {
		return nil, nil
	}
	content, err := readBounded(file, maxGoogleCredentials)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", googleCredentials, err)
	}
	keys, err := s3.DefaultKeys(ctx)
	if err != nil {
		return nil, err
	}
	made, err := google.FromAWS(content, func(ctx context.Context) (google.AWSKeys, error) {
		k, err := keys(ctx)
		return google.AWSKeys(k), err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", googleCredentials, err)
	}
	return made, nil
}
