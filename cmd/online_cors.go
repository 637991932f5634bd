package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"sidegate/policy"
	"sidegate/storage/s3"
)

// maxOrigins bounds the origins that a bucket is asked for.
const maxOrigins = 20

// anyOrigin stands for one where all may.
const anyOrigin = "https://sidegate-check.invalid"

// cors asks as the browsers of each page will, before they upload or download.
func (t *bucketTrial) cors(ctx context.Context, key string) {
	if !t.wants("bucket.cors") {
		return
	}
	b := t.b.named("bucket.cors")
	c := t.s.config.CORS
	if c == nil || len(c.Origins) == 0 {
		t.add(b.skip("sidegate.yaml names no cors.origins, so that it is not known which pages upload or download; those of other programs need no CORS"))
		return
	}
	ask := t.out
	if _, err := ask.Unsigned(ctx, key); err != nil && t.split() {
		ask = t.in
	}
	origins := c.Origins
	if slices.Contains(origins, "*") {
		origins = []string{anyOrigin}
	}
	for _, origin := range origins[:min(len(origins), maxOrigins)] {
		for _, method := range t.browserMethods() {
			missing, err := t.preflight(ctx, ask, key, origin, method)
			if err != nil {
				t.add(b.fails(networkAdvice(err, "AWS_CA_BUNDLE"), "a preflight: %v", err))
				return
			}
			if missing != "" {
				t.add(b.fails(t.corsAdvice(c.Origins), "pages of %s may not send %s to the store: %s", origin, method, missing))
				return
			}
		}
	}
	t.add(b.pass("%s may send %s to the store", strings.Join(c.Origins, ", "), strings.Join(t.browserMethods(), " and ")))
}

// browserMethods are those by which pages go to the store.
func (t *bucketTrial) browserMethods() (out []string) {
	if slices.ContainsFunc(t.grants, func(g policy.Grant) bool {
		return g.Does == policy.GrantPut && !g.Form || g.Does == policy.GrantMultipart
	}) {
		out = append(out, http.MethodPut)
	}
	if slices.ContainsFunc(t.grants, func(g policy.Grant) bool { return g.Does == policy.GrantPut && g.Form }) {
		out = append(out, http.MethodPost)
	}
	if t.can(policy.GrantGet) {
		out = append(out, http.MethodGet)
	}
	return out
}

// preflight says what the answer lacks; empty: nothing.
// https://fetch.spec.whatwg.org/#cors-preflight-fetch
func (t *bucketTrial) preflight(ctx context.Context, ask s3.Probe, key, origin, method string) (missing string, err error) {
	var headers []string
	if method == http.MethodPut {
		if headers, err = ask.UploadHeaders(); err != nil {
			return "", err
		}
	}
	a, err := ask.Preflight(ctx, key, origin, method, headers)
	if err != nil {
		return "", err
	}
	allowed := a.Header.Get("Access-Control-Allow-Origin")
	switch {
	case !a.OK():
		return "the preflight gets " + a.String(), nil
	case allowed != "*" && allowed != origin:
		return "Access-Control-Allow-Origin is not that origin", nil
	case method == http.MethodPut && !listed(a.Header, "Access-Control-Allow-Methods", method):
		return "Access-Control-Allow-Methods lacks it", nil
	}
	for _, h := range headers {
		if !listed(a.Header, "Access-Control-Allow-Headers", h) {
			return "Access-Control-Allow-Headers lacks " + h, nil
		}
	}
	if method == http.MethodPut && t.can(policy.GrantMultipart) && !listed(a.Header, "Access-Control-Expose-Headers", "ETag") {
		// Some stores say it with the answer itself only.
		got, err := ask.Get(ctx, key, origin)
		if err != nil {
			return "", err
		}
		if !listed(got.Header, "Access-Control-Expose-Headers", "ETag") {
			return "Access-Control-Expose-Headers lacks ETag, which uploads in parts read", nil
		}
	}
	return "", nil
}

// listed reports whether a list of a header holds the word or `*`.
func listed(h http.Header, name, word string) bool {
	for _, line := range h.Values(name) {
		for item := range strings.SplitSeq(line, ",") {
			if item = strings.TrimSpace(item); item == "*" || strings.EqualFold(item, word) {
				return true
			}
		}
	}
	return false
}

// corsAdvice is a configuration that does, and how to set it.
func (t *bucketTrial) corsAdvice(origins []string) string {
	rule := map[string]any{"AllowedOrigins": origins, "AllowedMethods": t.browserMethods(), "AllowedHeaders": []string{"*"}, "ExposeHeaders": []string{"ETag"}, "MaxAgeSeconds": 600}
	text, err := json.Marshal(map[string]any{"CORSRules": []any{rule}})
	if err != nil {
		panic(err) // strings and a number are always JSON
	}
	switch t.c.Store {
	case "gcs":
		return "set the bucket's CORS by `gcloud storage buckets update --cors-file` with these origins, methods and response headers: " + string(text)
	case "minio":
		return "let the store answer these origins (MinIO: MINIO_API_CORS_ALLOW_ORIGIN, for all buckets): " + strings.Join(origins, ",")
	}
	endpoint := ""
	if t.c.Endpoint != "" {
		endpoint = " --endpoint-url " + t.c.Endpoint
	}
	return fmt.Sprintf("aws s3api put-bucket-cors --bucket %s%s --cors-configuration '%s'", t.c.Bucket, endpoint, text)
}
