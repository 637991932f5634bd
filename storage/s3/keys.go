package s3

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
)

// Keys are those of AWS's default chain of credentials, and the region that it
// names: empty where it names none.
type Keys struct{ Region, AccessKey, SecretKey, SessionToken string }

// DefaultKeys reads the default chain's configuration, and gives what fetches its
// keys: it keeps them until shortly before their end, and may be called by many at
// once.
func DefaultKeys(ctx context.Context) (func(context.Context) (Keys, error), error) {
	c, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	return keysOf(c), nil
}

func keysOf(c aws.Config) func(context.Context) (Keys, error) {
	return func(ctx context.Context) (Keys, error) {
		k, err := c.Credentials.Retrieve(ctx)
		if err != nil {
			return Keys{}, withoutOutput(err)
		}
		return Keys{Region: c.Region, AccessKey: k.AccessKeyID, SecretKey: k.SecretAccessKey, SessionToken: k.SessionToken}, nil
	}
}
