package cmd

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"sidegate/policy"
	"sidegate/storage/s3"
	"sidegate/storage/upload"
)

// probeKey ends the key of the object that a check writes, below each prefix that
// the policy's uploads have.
const probeKey = ".sidegate-check"

// bucketProbes are one for each bucket, in the file's order. The checks of a
// bucket build on each other.
func bucketProbes(s settings, pol *policy.Policy) (out []probe) {
	grants := pol.Grants()
	for _, c := range s.config.Buckets {
		own := slices.DeleteFunc(slices.Clone(grants), func(g policy.Grant) bool { return g.Bucket != c.Name })
		b := probe{id: "bucket.reach", subject: c.Name}
		b.run = func(ctx context.Context) []check {
			t := &bucketTrial{b: b, c: c, grants: own, s: s}
			return t.run(ctx)
		}
		out = append(out, b)
	}
	return out
}

// A bucketTrial looks at one bucket.
type bucketTrial struct {
	b      probe
	c      BucketConfig
	s      settings
	grants []policy.Grant
	in     s3.Probe // by the address at which the gateway reaches the store
	out    s3.Probe // by the address at which clients do
	checks []check
}

func (t *bucketTrial) add(c check) { t.checks = append(t.checks, c) }

func (t *bucketTrial) run(ctx context.Context) []check {
	if len(t.grants) == 0 {
		t.add(t.b.skip("no route of the policy uses this bucket"))
		return t.checks
	}
	steps := []func(context.Context) bool{t.open, t.credentials, t.reach, t.objects}
	for _, step := range steps {
		if !step(ctx) {
			break
		}
	}
	t.skipRest()
	return t.checks
}

// bucketChecks are those that need a bucket that answers, in their order.
var bucketChecks = []string{"bucket.reach", "bucket.put", "bucket.head", "bucket.conditional", "bucket.signature", "bucket.public", "bucket.cors", "bucket.delete", "bucket.multipart", "bucket.scope"}

// skipRest says of what was not come to that it was not looked at.
func (t *bucketTrial) skipRest() {
	cause := ""
	for _, c := range t.checks {
		if c.Status == statusFail || cause == "" && c.Status == statusSkip {
			cause = c.ID
		}
		if c.Status == statusFail {
			break
		}
	}
	for _, id := range bucketChecks {
		if !slices.ContainsFunc(t.checks, func(c check) bool { return c.ID == id }) && t.wants(id) {
			t.add(t.b.named(id).skip("not looked at: first mend %s", cause))
		}
	}
}

// wants says whether the policy has that in this bucket which a check is about.
func (t *bucketTrial) wants(id string) bool {
	switch id {
	case "bucket.put", "bucket.scope", "bucket.public":
		return t.can(policy.GrantPut, policy.GrantMultipart)
	case "bucket.conditional":
		return slices.ContainsFunc(t.grants, func(g policy.Grant) bool {
			return (g.Does == policy.GrantPut && !g.Form || g.Does == policy.GrantMultipart) && !g.Overwrite
		})
	case "bucket.multipart":
		return t.can(policy.GrantMultipart)
	case "bucket.delete":
		return t.can(policy.GrantPut, policy.GrantMultipart, policy.GrantDelete, policy.GrantPurge)
	case "bucket.head", "bucket.signature", "bucket.cors":
		return t.can(policy.GrantPut, policy.GrantMultipart, policy.GrantGet)
	}
	return true
}

func (t *bucketTrial) can(does ...string) bool {
	return slices.ContainsFunc(t.grants, func(g policy.Grant) bool { return slices.Contains(does, g.Does) })
}

func (t *bucketTrial) open(ctx context.Context) bool {
	g := &gateway{s: t.s}
	inside := t.c
	inside.PublicEndpoint = inside.Endpoint
	for _, at := range []struct {
		c  BucketConfig
		to *s3.Probe
	}{{inside, &t.in}, {t.c, &t.out}} {
		b, err := g.openBucket(ctx, &at.c, nil)
		if err != nil {
			t.add(t.b.fails("mend the bucket's keys in sidegate.yaml, or the AWS_ variables and files that the environment names", "it cannot be opened: %v", err))
			return false
		}
		*at.to = b.Probe()
	}
	return true
}

// split says that clients reach the store by another address than the gateway.
func (t *bucketTrial) split() bool { return t.in.Public() != t.out.Public() }

func (t *bucketTrial) credentials(ctx context.Context) bool {
	b := t.b.named("credentials.aws")
	source, expires, err := t.in.Credentials(ctx)
	if err != nil {
		t.add(b.fails(t.credentialsAdvice(), "no credentials to sign with: %v", err))
		return false
	}
	left := time.Until(expires).Round(time.Minute)
	where := t.credentialsPlace(source)
	switch {
	case expires.IsZero() && t.c.Store == "aws":
		t.add(b.warn("give this process a role instead (a task's, an instance's, a pod's, or credentials.role in sidegate.yaml), whose keys end by themselves",
			"long-lived keys %s", where))
	case expires.IsZero():
		t.add(b.pass("keys %s", where))
	case left < 5*time.Minute:
		t.add(b.warn("see why what gives these credentials does not renew them: URLs end with them", "%s, which end in %s", where, max(left, 0)))
	default:
		t.add(b.pass("%s, which end in %s and are renewed", where, left))
	}
	return true
}

// credentialsPlace says in words what the SDK's names of sources mean.
func (t *bucketTrial) credentialsPlace(source string) string {
	switch {
	case t.c.Role != nil:
		return "those of the role " + t.c.Role.ARN
	case t.c.AccessKey.IsSet():
		return "from sidegate.yaml"
	case strings.HasPrefix(source, "EnvConfig"):
		return "from the environment (AWS_ACCESS_KEY_ID)"
	case strings.HasPrefix(source, "SharedConfig"):
		return "from AWS's shared files"
	case strings.HasPrefix(source, "WebIdentity"):
		return "of a role by web identity (AWS_WEB_IDENTITY_TOKEN_FILE)"
	case strings.HasPrefix(source, "CredentialsEndpoint"):
		return "of this task's or pod's role"
	case strings.HasPrefix(source, "EC2Role"):
		return "of this instance's role"
	}
	return fmt.Sprintf("from %.64q", source)
}

func (t *bucketTrial) credentialsAdvice() string {
	switch {
	case t.c.Role != nil:
		return "let this machine get Google ID tokens (a service account), and let the role's trust policy name its account and the audience " + t.c.Role.Audience
	case t.c.Store != "aws":
		return "write credentials: {access_key: \"${env:...}\", secret_key: \"${file:...}\"} under buckets." + t.c.Name + " in sidegate.yaml"
	}
	return "give this process a role (a task's, an instance's, a pod's), or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or credentials in sidegate.yaml"
}

// at names an object as people find it.
func (t *bucketTrial) at(key string) string { return "s3://" + t.c.Bucket + "/" + key }

// reach asks what any credentials may, and tells by the answer what is wrong
// before anything else is.
func (t *bucketTrial) reach(ctx context.Context) bool {
	prefix := t.grants[0].Prefix
	for _, g := range t.grants { // a permission to list is for some prefixes
		if g.Does != policy.GrantDelete && g.Does != policy.GrantPurge {
			prefix = g.Prefix
			break
		}
	}
	a, err := t.in.List(ctx, prefix)
	if skew, known := t.in.Skew(); known {
		t.add(checkSkew(t.b.named("clock"), "the store", skew))
	}
	b, creds := t.b, t.b.named("credentials.aws")
	where := t.c.Bucket + " at " + t.in.Public()
	switch {
	case err != nil:
		t.add(b.fails(networkAdvice(err, "AWS_CA_BUNDLE"), "%s does not answer: %v", where, err))
	case a.OK():
		t.add(b.pass("%s answers", where))
		return true
	case a.Code == "NoSuchBucket" || a.Status == http.StatusNotFound:
		t.add(b.fails(fmt.Sprintf("make the bucket, or mend buckets.%s.bucket, endpoint or path_style in sidegate.yaml", t.c.Name), "the store has no bucket %s: %s", t.c.Bucket, a))
	case a.Region != "" && a.Region != t.c.Region || a.Code == "PermanentRedirect" || a.Code == "AuthorizationHeaderMalformed":
		region := a.Region
		if region == "" {
			region = "another one"
		}
		t.add(b.fails(fmt.Sprintf("write region: %s under buckets.%s in sidegate.yaml", region, t.c.Name), "%s is in region %s, and sidegate.yaml says %s: %s", t.c.Bucket, region, t.c.Region, a))
	case a.Code == "RequestTimeTooSkewed":
		t.replace(t.b.named("clock").fails(clockAdvice, "the store refuses what is signed here: %s", a))
	case slices.Contains([]string{"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired"}, a.Code):
		t.replace(creds.fails(keysAdvice[a.Code], "the store does not take these credentials: %s", a))
	case a.Refused():
		t.add(b.pass("%s answers (it lets these credentials list nothing: %s)", where, a))
		if t.can(policy.GrantList) {
			t.add(t.b.named("bucket.list").fails("allow s3:ListBucket on arn:aws:s3:::"+t.c.Bucket+"; `sidegate iam` prints the whole policy", "the policy lists objects, and the store refuses it: %s", a))
		}
		return true
	default:
		t.add(b.fails("ask again later; where it stays, ask who runs the store", "%s answers %s", where, a))
	}
	return false
}

var keysAdvice = map[string]string{
	"InvalidAccessKeyId":    "the store does not know the access key: take one of this store's, of a user who is there",
	"SignatureDoesNotMatch": "the secret key is not that access key's: copy it again, without a space or a line break. Where it is right, a proxy on the way changes the Host header or the path",
	"ExpiredToken":          "the credentials are over: renew what gives them",
	"InvalidToken":          "the session token is not that access key's: set all three AWS_ variables anew",
	"TokenRefreshRequired":  "the credentials are over: renew what gives them",
}

// replace puts a check in the place of the one of its id.
func (t *bucketTrial) replace(c check) {
	t.checks = slices.DeleteFunc(t.checks, func(o check) bool { return o.ID == c.ID })
	t.add(c)
}

// objects tries what the policy does with objects.
func (t *bucketTrial) objects(ctx context.Context) bool {
	prefixes := t.writes()
	if len(prefixes) == 0 {
		t.reads(ctx)
		return true
	}
	o := &objectTrial{bucketTrial: t, prefixes: prefixes}
	o.run(ctx)
	return true
}

// writes are the prefixes of the policy's uploads that a check can write below:
// not those that are whole keys, at which objects are.
func (t *bucketTrial) writes() (out []string) {
	for _, g := range t.grants {
		if (g.Does == policy.GrantPut || g.Does == policy.GrantMultipart) && !g.Exact && !slices.Contains(out, g.Prefix) {
			out = append(out, g.Prefix)
		}
	}
	return out
}

// reads looks at a bucket in which the policy uploads nothing, or only to keys
// that it names whole: by a key that nothing is at.
func (t *bucketTrial) reads(ctx context.Context) {
	if !t.wants("bucket.head") {
		return
	}
	prefix := ""
	for _, g := range t.grants {
		if g.Does == policy.GrantGet && !g.Exact {
			prefix = g.Prefix
			break
		}
	}
	for _, id := range []string{"bucket.put", "bucket.conditional", "bucket.delete", "bucket.multipart", "bucket.scope", "bucket.public"} {
		if t.wants(id) {
			t.add(t.b.named(id).skip("the policy names the only keys that it writes, and a check writes to none that are in use"))
		}
	}
	key := prefix + probeKey + "-" + randomText()
	t.missing(ctx, key)
	t.signature(ctx, key, false)
	t.cors(ctx, key)
}

// missing asks for a key that nothing is at: without a permission to list, the
// store says 403, by which a missing object cannot be told from a forbidden one.
func (t *bucketTrial) missing(ctx context.Context, key string) bool {
	b := t.b.named("bucket.head")
	_, _, a, err := t.in.Head(ctx, key)
	switch {
	case err != nil:
		t.add(b.fails(networkAdvice(err, "AWS_CA_BUNDLE"), "HeadObject %s: %v", t.at(key), err))
	case a.Status == http.StatusNotFound:
		return true
	case a.Refused():
		t.add(b.fails(fmt.Sprintf("allow s3:ListBucket on arn:aws:s3:::%s and s3:GetObject on its objects; `sidegate iam` prints the whole policy", t.c.Bucket),
			"a missing object cannot be told from a forbidden one: HeadObject %s, where nothing is: %s, and not 404", t.at(key), a))
	default:
		t.add(b.fails("ask who runs the store", "HeadObject %s, where nothing is: %s, and not 404", t.at(key), a))
	}
	return false
}

// signature asks by a URL as clients get it, at the address that they have.
func (t *bucketTrial) signature(ctx context.Context, key string, there bool) {
	b := t.b.named("bucket.signature")
	a, err := t.out.Get(ctx, key, "")
	host := t.out.Public()
	switch {
	case err != nil && t.split():
		t.add(b.warn("ask from where clients are: curl -sI "+host+"; if they reach it, nothing is wrong", "public_endpoint %s cannot be reached from here (%v), so that signed URLs were not tried", host, err))
	case err != nil:
		t.add(b.fails(networkAdvice(err, "AWS_CA_BUNDLE"), "a signed URL at %s: %v", host, err))
	case there && a.OK() || !there && a.Status == http.StatusNotFound:
		t.add(b.pass("a signed download works at %s", host))
	case a.Code == "SignatureDoesNotMatch":
		t.add(b.fails(fmt.Sprintf("write as buckets.%s.public_endpoint exactly what clients connect to (scheme, host, port), and let no proxy on the way change the Host header or the path", t.c.Name),
			"the store does not accept the signature of URLs for %s: %s", host, a))
	case a.Refused() && t.failed("bucket.head"): // the same permission
		t.add(b.skip("not looked at: first mend bucket.head"))
	case a.Refused():
		t.add(b.fails(t.permission("s3:GetObject", key), "a signed download of %s at %s: %s", t.at(key), host, a))
	default:
		t.add(b.fails("see what answers there: it should be the bucket's store", "a signed download of %s at %s: %s", t.at(key), host, a))
	}
}

func (t *bucketTrial) failed(id string) bool {
	return slices.ContainsFunc(t.checks, func(c check) bool { return c.ID == id && c.Status == statusFail })
}

// permission says what to allow.
func (t *bucketTrial) permission(action, key string) string {
	arn := bucketOf(t.c).arn
	if i := strings.LastIndexByte(key, '/'); i >= 0 {
		key = key[:i+1] + "*"
	} else {
		key = "*"
	}
	advice := fmt.Sprintf("allow %s on %s/%s; `sidegate iam --bucket %s` prints the whole policy", action, arn, key, t.c.Name)
	if o := t.c.Objects; o != nil && o.KMSKey != "" && (action == "s3:PutObject" || action == "s3:GetObject") {
		advice += ", with what the KMS key needs (kms:GenerateDataKey to write, kms:Decrypt to read)"
	}
	return advice
}

// randomText is long enough that nobody chose it before.
func randomText() string { return rand.Text() }

// clean is a context for undoing what was done, whatever became of ctx. All of a
// probe's undoing ends before nobody waits for the probe any more.
func clean(ctx context.Context) (context.Context, context.CancelFunc) {
	begin := time.Now()
	if over, ok := ctx.Deadline(); ok && over.Before(begin) {
		begin = over
	}
	return context.WithDeadline(context.WithoutCancel(ctx), begin.Add(cleanTime-time.Second))
}

// age is how long ago an object was written; large where that is not known.
func age(o upload.Object) time.Duration {
	if o.Modified.IsZero() {
		return time.Hour
	}
	return time.Since(o.Modified)
}
