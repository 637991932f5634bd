package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// A Role is an AWS role that this process assumes with an ID token of its own,
// so that it holds no static key.
type Role struct {
	ARN string
	// Token gives an ID token for the audience that the role trusts.
	Token func(context.Context) (string, error)
	// Session names this process in AWS's logs: 2 to 64 of letters, digits and
	// =,.@_-. Empty: sidegate.
	Session string
	// Endpoint is where AWS STS is; empty: the one of the bucket's region.
	Endpoint string
}

// roleTimeout bounds one question to STS.
const roleTimeout = retrieveTimeout / attempts

// maxRoleAnswer bounds what is read of STS's answer: its token stands in every
// URL, and those of AWS are some KiB.
const maxRoleAnswer = 64 << 10

// A roleClient asks STS, and bounds what comes back.
type roleClient struct{ to aws.HTTPClient }

func (c *roleClient) Do(r *http.Request) (*http.Response, error) {
	answer, err := c.to.Do(r)
	if answer != nil {
		bound(answer, maxRoleAnswer)
	}
	return answer, err
}

// roleARN is a role's, in any partition (aws, aws-cn, aws-us-gov).
// Most gateways have none, and its bound takes half a megabyte.
var roleARN = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,576}$`)
})

// An assumedRole gives the credentials of a role: an hour, as STS does unless
// it is asked for another time. The cache before it asks anew in time.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
type assumedRole struct {
	role Role
	sts  *sts.Client
}

func newAssumedRole(r Role, region string, client aws.HTTPClient) *assumedRole {
	if r.Session == "" {
		r.Session = "sidegate"
	}
	if b, ok := client.(*awshttp.BuildableClient); ok {
		client = b.WithTimeout(roleTimeout) // the cache before this passes no deadline on
	}
	if client == nil {
		client = awshttp.NewBuildableClient().WithTimeout(roleTimeout)
	}
	o := sts.Options{Region: region, HTTPClient: &roleClient{client}, RetryMaxAttempts: attempts} // not signed: the token is the proof
	if r.Endpoint != "" {
		o.BaseEndpoint = aws.String(r.Endpoint)
	}
	return &assumedRole{role: r, sts: sts.New(o)}
}

// Retrieve implements aws.CredentialsProvider.
func (a *assumedRole) Retrieve(ctx context.Context) (aws.Credentials, error) {
	token, err := a.role.Token(ctx)
	if err != nil {
		return aws.Credentials{}, fmt.Errorf("assume %s: %w", a.role.ARN, err)
	}
	out, err := a.sts.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn:          aws.String(a.role.ARN),
		RoleSessionName:  aws.String(a.role.Session),
		WebIdentityToken: aws.String(token),
	})
	if err != nil {
		return aws.Credentials{}, a.explain(err, token)
	}
	c := out.Credentials
	if c == nil || aws.ToString(c.AccessKeyId) == "" || aws.ToString(c.SecretAccessKey) == "" || aws.ToString(c.SessionToken) == "" || c.Expiration == nil {
		return aws.Credentials{}, fmt.Errorf("assume %s: STS's answer holds no whole credentials", a.role.ARN)
	}
	return aws.Credentials{
		AccessKeyID:     *c.AccessKeyId,
		SecretAccessKey: *c.SecretAccessKey,
		SessionToken:    *c.SessionToken,
		Source:          "sidegate: " + a.role.ARN,
		CanExpire:       true,
		Expires:         *c.Expiration,
	}, nil
}

// explain is STS's error without STS's words, which may repeat what was sent.
func (a *assumedRole) explain(err error, token string) error {
	var api smithy.APIError
	if !errors.As(err, &api) {
		if strings.Contains(err.Error(), token) {
			err = errors.New("the request failed")
		}
		return fmt.Errorf("assume %s: %w", a.role.ARN, err)
	}
	status := 0
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		status = answer.HTTPStatusCode()
	}
	hint := map[string]string{
		"AccessDenied":          ": the role's trust policy does not name this account and audience",
		"InvalidIdentityToken":  ": AWS does not accept the token: does the account trust accounts.google.com?",
		"ExpiredTokenException": ": AWS takes the token for over: is this machine's clock right?",
	}[api.ErrorCode()]
	return fmt.Errorf("assume %s: STS answered %d %.64q%s", a.role.ARN, status, api.ErrorCode(), hint)
}
