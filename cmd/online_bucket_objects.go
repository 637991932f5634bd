package cmd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"

	"sidegate/policy"
	"sidegate/storage/s3"
)

const (
	// freshAge is until when another check's object is taken for one that is
	// still at work.
	freshAge = time.Minute
	// maxProbePrefixes bounds the prefixes of one bucket that are written to.
	maxProbePrefixes = 8
)

// An objectTrial writes the object of a check below each prefix, looks at it in
// the ways of the gateway, its clients and strangers, and deletes it.
type objectTrial struct {
	*bucketTrial
	prefixes []string
	made     []made
	unsure   []string // keys of uploads without an answer, which may have landed
}

// A made is an object that is there by this check, or by an earlier one.
type made struct {
	key      string
	version  string // empty: the bucket keeps none
	leftover bool   // of an earlier one
}

func (o *objectTrial) run(ctx context.Context) {
	o.puts(ctx)
	if len(o.made) > 0 {
		key := o.made[0].key
		o.head(ctx, key)
		o.conditional(ctx, key)
		o.signature(ctx, key, true)
		o.public(ctx, key)
		o.cors(ctx, key)
	}
	o.multipart(ctx)
	o.scope(ctx)
	o.versioning()
	o.remove(ctx)
}

// puts writes below each prefix; the first refusal is told.
func (o *objectTrial) puts(ctx context.Context) {
	b := o.b.named("bucket.put")
	several := o.prefixes
	if len(several) > maxProbePrefixes {
		several = several[:maxProbePrefixes]
	}
	for _, prefix := range several {
		m, a, err := o.put(ctx, prefix)
		switch {
		case errors.Is(err, errForeign):
			o.add(b.skip("an object that is not a check's lies at %s: nothing was written", o.at(m.key)))
		case errors.Is(err, errBlind):
			do := "ask who runs the store what that means"
			if a.Refused() {
				do = o.permission("s3:GetObject", m.key) + ". Without s3:ListBucket on " + bucketOf(o.c).arn + " a missing object is refused, too"
			}
			o.add(o.b.named("bucket.head").fails(do, "HeadObject %s: %s: what landed cannot be confirmed", o.at(m.key), a))
			o.add(b.skip("not looked at: first mend bucket.head: whether something is at %s cannot be told (%s), and this store may replace it, so that nothing was written", o.at(m.key), a))
		case errors.Is(err, errBusy):
			o.add(b.skip("other checks write to this bucket just now: ask again in a minute"))
		case err != nil:
			o.add(b.fails(networkAdvice(err, "AWS_CA_BUNDLE"), "PutObject %s: %v", o.at(m.key), err))
		case m.leftover || a.OK():
			o.made = append(o.made, m)
			continue
		case a.Refused():
			o.add(b.fails(o.putAdvice(m.key), "PutObject %s: %s", o.at(m.key), a))
		case a.Status == http.StatusNotImplemented:
			o.add(b.fails("name the kind of store by `store`, or use one that knows If-None-Match; a route with overwrite: true does without", "PutObject %s: the store does not know what uploads are signed with: %s", o.at(m.key), a))
		default:
			o.add(b.fails("ask who runs the store what that means", "PutObject %s: %s", o.at(m.key), a))
		}
		return
	}
	var keys []string
	for _, m := range o.made {
		keys = append(keys, o.at(m.key))
	}
	text := "PutObject " + strings.Join(keys, ", ")
	if len(o.prefixes) > len(several) {
		text += fmt.Sprintf(" (the first %d of %d prefixes)", len(several), len(o.prefixes))
	}
	o.add(b.pass("%s", text))
}

// putAdvice says what to allow for an upload as it is signed.
func (o *objectTrial) putAdvice(key string) string {
	action := "s3:PutObject"
	if x := o.c.Objects; x != nil && len(x.Tags) > 0 {
		action += " and s3:PutObjectTagging"
	}
	return o.permission(action, key) + ". Where that is allowed, a bucket policy denies it: look for one that asks for other encryption, tags or headers"
}

// errForeign: the key holds somebody else's object.
var errForeign = errors.New("the key is taken")

// errBlind: what lies at the key is not told, and an upload may replace it.
var errBlind = errors.New("what is there is not told")

// errBusy: all keys are other checks', of the last minute.
var errBusy = errors.New("other checks are at work")

// put writes one object. Names come from a few, so that checks that may not delete
// leave no more than these; one that another check is at work with is left to it.
//
// InternalError is for asking again, at another name: two checks that met at one
// can get it, too.
// https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
func (o *objectTrial) put(ctx context.Context, prefix string) (m made, a s3.Answer, err error) {
	again := false
	for _, m.key = range probeKeys(prefix) {
		there, ours, a, err := o.in.Head(ctx, m.key)
		switch {
		case err != nil:
			return m, a, err
		case a.OK() && !ours:
			return m, a, errForeign
		case a.OK() && age(there) < freshAge:
			continue
		case !a.OK() && a.Status != http.StatusNotFound && !(a.Refused() && o.in.Keeps()):
			return m, a, errBlind
		}
		m.leftover, m.version = a.OK(), keptVersion(there.VersionID)
		// One that an earlier check left could be replaced; that the store refuses
		// to, shows as much: conditions come after permissions. Where conditions
		// are not known, nothing is there, or what a check left.
		a, err = o.in.Put(ctx, m.key, !o.in.Conditional())
		if err == nil && a.Status == http.StatusNotImplemented && !o.wants("bucket.conditional") {
			a, err = o.in.Put(ctx, m.key, true) // as all routes do, and nothing is there
		}
		if err == nil && a.Status == http.StatusInternalServerError && !again {
			again = true
			continue
		}
		if err != nil && !m.leftover {
			o.unsure = append(o.unsure, m.key)
		}
		if a.OK() {
			m.leftover, m.version = false, a.Version
		}
		if err != nil || !taken(a) || m.leftover {
			m.leftover = m.leftover && err == nil && taken(a)
			return m, a, err
		}
	}
	return m, a, errBusy
}

// taken says that a condition kept an object from being replaced.
func taken(a s3.Answer) bool {
	return a.Status == http.StatusPreconditionFailed || a.Status == http.StatusConflict
}

// probeKeys are the names of objects of checks below a prefix: the usual one, and
// those for checks that run at once, from a random one on.
func probeKeys(prefix string) []string {
	const spare = 16
	out := []string{prefix + probeKey}
	first := rand.N(spare)
	for i := range spare {
		out = append(out, fmt.Sprintf("%s%s-%d", prefix, probeKey, (first+i)%spare))
	}
	return out
}

func (o *objectTrial) head(ctx context.Context, key string) {
	b := o.b.named("bucket.head")
	_, ours, a, err := o.in.Head(ctx, key)
	switch {
	case err != nil:
		o.add(b.fails(networkAdvice(err, "AWS_CA_BUNDLE"), "HeadObject %s: %v", o.at(key), err))
	case a.Refused():
		o.add(b.fails(o.permission("s3:GetObject", key), "HeadObject %s: %s: what landed cannot be confirmed", o.at(key), a))
	case !a.OK() || !ours:
		o.add(b.fails("the store forgets content types, or objects: ask who runs it", "HeadObject %s, which was written just now: %s", o.at(key), a))
	case o.missing(ctx, key+"-"+randomText()):
		o.add(b.pass("HeadObject %s, and 404 where nothing is", o.at(key)))
	}
}

// conditional writes to a key where something is.
func (o *objectTrial) conditional(ctx context.Context, key string) {
	if !o.wants("bucket.conditional") {
		return
	}
	b := o.b.named("bucket.conditional")
	a, err := o.in.Put(ctx, key, false)
	switch {
	case err != nil:
		o.add(b.fails(networkAdvice(err, "AWS_CA_BUNDLE"), "PutObject with If-None-Match: %v", err))
	case taken(a):
		o.add(b.pass("If-None-Match keeps an object from being replaced (%s)", a))
	case a.OK():
		if a.Version != "" {
			o.made = append(o.made, made{key: key, version: a.Version})
		}
		o.add(b.fails("use a store that knows If-None-Match on PutObject (MinIO and Ceph: a newer version), or name its kind by `store` and write overwrite: true on the routes where replacing is right",
			"the store ignores If-None-Match: whoever uploads to a key that is taken replaces what is there"))
	default:
		o.add(b.fails("ask who runs the store what that means", "PutObject with If-None-Match to a key that is taken: %s, and not 412", a))
	}
}

// public asks as a stranger, where clients do; where that is not to be reached
// from here, where the gateway does.
func (o *objectTrial) public(ctx context.Context, key string) {
	b := o.b.named("bucket.public")
	const advice = "take that from everybody: at AWS `aws s3api put-public-access-block --bucket %s --public-access-block-configuration " +
		"BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true`; elsewhere remove the anonymous policy or the public access of the bucket"
	for _, q := range []struct{ key, what string }{{key, "read objects"}, {"", "list the names of objects"}} {
		a, err := o.out.Unsigned(ctx, q.key)
		if err != nil && o.split() {
			a, err = o.in.Unsigned(ctx, q.key)
		}
		switch {
		case err != nil:
			o.add(b.fails(networkAdvice(err, "AWS_CA_BUNDLE"), "a request without a signature: %v", err))
			return
		case a.OK():
			o.add(b.fails(fmt.Sprintf(advice, o.c.Bucket), "anybody may %s of %s without a signature, past the gateway", q.what, o.c.Bucket))
			return
		case !a.Refused() && !(a.Status >= 300 && a.Status < 500):
			o.add(b.skip("a request without a signature: %s, which says neither yes nor no", a))
			return
		}
	}
	o.add(b.pass("nobody may read or list without a signature"))
}

// multipart opens an upload in parts, and ends it.
func (o *objectTrial) multipart(ctx context.Context) {
	if !o.wants("bucket.multipart") || len(o.made) == 0 {
		return
	}
	b := o.b.named("bucket.multipart")
	key := ""
	for _, g := range o.grants {
		if g.Does == policy.GrantMultipart && !g.Exact {
			key = g.Prefix + probeKey + "-" + randomText() // so that what is open there is this check's
			break
		}
	}
	if key == "" {
		o.add(b.skip("the policy names the only keys that it writes in parts"))
		return
	}
	id, a, err := o.in.Multipart(ctx, key)
	if err != nil || id == "" {
		c := o.refusedCall(b, "CreateMultipartUpload", "s3:PutObject", key, a, err)
		if err != nil && !o.aborted(ctx, key) {
			c.Text += "; an open upload without parts may stay"
		}
		o.add(c)
		return
	}
	listed, listErr := o.in.Parts(ctx, key, id)
	undo, cancel := clean(ctx)
	defer cancel()
	switch a, err := o.in.Abort(undo, key, id); {
	case err != nil || !a.OK():
		c := o.refusedCall(b, "AbortMultipartUpload", "s3:AbortMultipartUpload", key, a, err)
		c.Text += "; an open upload without parts stays"
		o.add(c)
	case listErr != nil || !listed.OK():
		o.add(o.refusedCall(b, "ListParts", "s3:ListMultipartUploadParts", key, listed, listErr))
	default:
		o.add(b.pass("uploads in parts can be opened, listed and aborted"))
	}
}

// aborted ends what a call without an answer may have opened, and says whether
// that is certain.
func (o *objectTrial) aborted(ctx context.Context, key string) bool {
	ctx, cancel := clean(ctx)
	defer cancel()
	ids, a, err := o.in.Opened(ctx, key)
	for _, id := range ids {
		if a, err := o.in.Abort(ctx, key, id); err != nil || !a.OK() {
			return false
		}
	}
	return err == nil && a.OK()
}

func (o *objectTrial) refusedCall(b probe, call, action, key string, a s3.Answer, err error) check {
	if err != nil {
		return b.fails(networkAdvice(err, "AWS_CA_BUNDLE"), "%s %s: %v", call, o.at(key), err)
	}
	if a.Refused() {
		return b.fails(o.permission(action, key), "%s %s: %s", call, o.at(key), a)
	}
	return b.fails("ask who runs the store what that means", "%s %s: %s", call, o.at(key), a)
}

// scope asks for more than the policy needs: an upload outside all prefixes. See
// [s3.Probe.Overreach] for why nothing is stored by it.
func (o *objectTrial) scope(ctx context.Context) {
	b := o.b.named("bucket.scope")
	if len(o.made) == 0 {
		return // a refusal would say nothing: all are refused
	}
	name := o.outside()
	if name == "" {
		o.add(b.pass("the policy's keys may be anywhere in the bucket: there is nothing outside of them"))
		return
	}
	a, err := o.in.Overreach(ctx, name)
	advice := fmt.Sprintf("narrow them to what `sidegate iam --bucket %s` prints", o.c.Name)
	if o.c.Store == "r2" {
		advice = "R2's tokens are for whole buckets: give the gateway a bucket of its own"
	} else if o.c.Store != "aws" {
		advice = "narrow them to the prefixes that the policy writes to, or give the gateway a bucket of its own"
	}
	switch {
	case err != nil:
		o.unsure = append(o.unsure, name)
		o.add(b.fails(networkAdvice(err, "AWS_CA_BUNDLE"), "PutObject outside the policy's prefixes: %v", err))
	case a.OK():
		o.made = append(o.made, made{key: name, version: a.Version})
		o.add(b.fails(advice+"; and use a store that compares Content-MD5 with what it gets",
			"these credentials may write outside the policy's prefixes, and the store stored an object whose checksums are wrong (%s; it is deleted again)", o.at(name)))
	case a.Refused():
		o.add(b.pass("these credentials may not write outside the policy's prefixes (%s)", a))
	case slices.Contains([]string{"BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "PreconditionFailed", "InvalidRequest"}, a.Code) || a.Status == http.StatusPreconditionFailed:
		o.add(b.warn(advice, "these credentials may write outside the policy's prefixes (%s), as far as %s", strings.Join(quoted(o.prefixes), ", "), o.at(strings.TrimSuffix(name, scopeEnd(name)))+"..."))
	default:
		o.add(b.skip("PutObject outside the policy's prefixes: %s, which says neither yes nor no", a))
	}
}

func quoted(list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = fmt.Sprintf("%q", s)
	}
	return out
}

const scopeKey = "sidegate-check-scope-"

// scopeEnd is the random end of a key of outside.
func scopeEnd(key string) string { return key[strings.Index(key, scopeKey)+len(scopeKey):] }

// outside is a key below none of the policy's prefixes that nothing can be at;
// empty: there is none.
func (o *objectTrial) outside() string {
	for _, begin := range []string{".", "~", ""} {
		key := begin + scopeKey + randomText()
		if !slices.ContainsFunc(o.grants, func(g policy.Grant) bool { return strings.HasPrefix(key, g.Prefix) }) {
			return key
		}
	}
	return ""
}

// versioning says whether what is replaced can be had back.
func (o *objectTrial) versioning() {
	if len(o.made) == 0 || !slices.ContainsFunc(o.grants, func(g policy.Grant) bool { return g.Overwrite }) {
		return
	}
	b := o.b.named("bucket.versioning")
	if slices.ContainsFunc(o.made, func(m made) bool { return m.version != "" }) {
		o.add(b.pass("the bucket keeps the versions that routes with overwrite: true replace"))
		return
	}
	o.add(b.warn("at AWS `aws s3api put-bucket-versioning --bucket "+o.c.Bucket+" --versioning-configuration Status=Enabled`, with a lifecycle rule that ends old versions; or accept the loss",
		"routes with overwrite: true replace objects, and the bucket keeps no versions of them"))
}

// remove deletes what was made, and tells what stays. That the gateway may delete
// is a fault only where the policy has it delete.
func (o *objectTrial) remove(ctx context.Context) {
	if len(o.made)+len(o.unsure) == 0 {
		return
	}
	ctx, cancel := clean(ctx)
	defer cancel()
	b := o.b.named("bucket.delete")
	unknown := o.landed(ctx)
	if len(o.made) == 0 {
		if len(unknown) > 0 {
			o.add(b.warn("delete it where it is there", "whether an upload of this check landed cannot be told: %s", strings.Join(unknown, ", ")))
		}
		return
	}
	var left []string
	var worst check
	for _, m := range o.made {
		stays, c := o.removeOne(ctx, b, m)
		left = append(left, stays...)
		if c.Status != "" && worst.Status == "" {
			worst = c
		}
	}
	if worst.Status == "" {
		worst = b.pass("DeleteObject %s", o.at(o.made[0].key))
		if len(left) > 0 {
			worst = b.pass("no route needs it")
		}
	}
	if len(left) > 0 {
		worst.Text += "; these credentials may not remove what this check wrote, which stays: " + strings.Join(left, ", ")
	}
	if len(unknown) > 0 {
		worst.Text += "; it cannot be told whether these landed: " + strings.Join(unknown, ", ")
	}
	o.add(worst)
}

// landed looks at what became of uploads without an answer, and takes those that
// are there for made. It gives those of which it cannot be told.
func (o *objectTrial) landed(ctx context.Context) (unknown []string) {
	for _, key := range o.unsure {
		there, ours, a, err := o.in.Head(ctx, key)
		switch {
		case err == nil && a.Status == http.StatusNotFound:
		case err == nil && a.OK() && ours:
			o.made = append(o.made, made{key: key, version: keptVersion(there.VersionID)})
		case err == nil && a.OK(): // somebody's, who came between
		default:
			unknown = append(unknown, o.at(key))
		}
	}
	return unknown
}

// keptVersion is empty for the id that stands for none.
func keptVersion(id string) string {
	if id == "null" {
		return ""
	}
	return id
}

// removeOne deletes an object, with its version and the marker that the deletion
// leaves. The check is one that failed, or none.
func (o *objectTrial) removeOne(ctx context.Context, b probe, m made) (left []string, failed check) {
	a, err := o.in.Delete(ctx, m.key, "")
	switch {
	case err != nil:
		return []string{o.at(m.key)}, b.fails(networkAdvice(err, "AWS_CA_BUNDLE"), "DeleteObject %s: %v", o.at(m.key), err)
	case a.Refused() && !o.can(policy.GrantDelete, policy.GrantPurge):
		return []string{o.at(m.key)}, check{}
	case !a.OK() && a.Status != http.StatusNotFound:
		return []string{o.at(m.key)}, o.refusedCall(b, "DeleteObject", "s3:DeleteObject", m.key, a, nil)
	}
	for _, version := range []string{m.version, a.Version} {
		if version == "" {
			continue
		}
		switch a, err := o.in.Delete(ctx, m.key, version); {
		case err == nil && (a.OK() || a.Status == http.StatusNotFound):
			continue
		case err == nil && a.Refused() && !o.can(policy.GrantPurge):
		case failed.Status == "":
			failed = o.refusedCall(b, "DeleteObject of a version of", "s3:DeleteObjectVersion", m.key, a, err)
		}
		left = append(left, o.at(m.key)+" version "+version)
	}
	return left, failed
}
