package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sidegate/storage/upload"
)

// answering is a bucket whose store gives that answer to everything.
func answering(t *testing.T, status int, body string) (*Bucket, *atomic.Int32) {
	t.Helper()
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	t.Cleanup(server.Close)
	return open(t, Options{Endpoint: server.URL}), &asked
}

func errorBody(code string) string {
	return "<?xml version=\"1.0\"?><Error><Code>" + code + "</Code><Message>m</Message></Error>"
}

var onePart = []upload.Part{{Number: 1, ETag: `"e"`}}

// calls are all that ask the store, with the permission that a 403 names.
var calls = map[string]struct {
	do   func(context.Context, *Bucket) error
	need string
}{
	"head":           {func(ctx context.Context, b *Bucket) error { _, err := b.Head(ctx, "k"); return err }, "s3:GetObject"},
	"delete":         {func(ctx context.Context, b *Bucket) error { return b.Delete(ctx, "k", "") }, "s3:DeleteObject "},
	"delete version": {func(ctx context.Context, b *Bucket) error { return b.Delete(ctx, "k", "v") }, "s3:DeleteObjectVersion"},
	"list":           {func(ctx context.Context, b *Bucket) error { _, _, err := b.List(ctx, "u/", "", 10); return err }, "s3:ListBucket "},
	"create": {func(ctx context.Context, b *Bucket) error {
		_, err := b.CreateMultipart(ctx, upload.Put{Key: "k", ContentType: "a/b"})
		return err
	}, "s3:PutObject"},
	"complete": {func(ctx context.Context, b *Bucket) error {
		return b.CompleteMultipart(ctx, upload.Put{Key: "k"}, "id", onePart)
	}, "s3:PutObject"},
	"abort":      {func(ctx context.Context, b *Bucket) error { return b.AbortMultipart(ctx, "k", "id") }, "s3:AbortMultipartUpload"},
	"list parts": {func(ctx context.Context, b *Bucket) error { _, err := b.ListParts(ctx, "k", "id"); return err }, "s3:ListMultipartUploadParts"},
	"open":       {func(ctx context.Context, b *Bucket) error { _, err := b.OpenMultiparts(ctx, "k"); return err }, "s3:ListBucketMultipartUploads"},
}

// Whatever a store says that is no answer is "cannot tell", at every call.
func TestFaultsAreUnavailable(t *testing.T) {
	answers := []error{upload.ErrNoObject, upload.ErrNoUpload, upload.ErrTaken, upload.ErrParts, upload.ErrCursor}
	for name, c := range calls {
		for _, fault := range []struct {
			status   int
			body     string
			says     string
			attempts int32
		}{
			{403, errorBody("AccessDenied"), c.need, 1},
			{403, errorBody("RequestTimeTooSkewed"), "", 0},
			{500, errorBody("InternalError"), "", 2},
			{503, errorBody("SlowDown"), "", 2},
			{400, errorBody("MalformedXML"), "", 1},
			{418, "<html>a proxy", "", 1},
			{503, "", "", 2},
		} {
			b, asked := answering(t, fault.status, fault.body)
			err := c.do(t.Context(), b)
			if !errors.Is(err, upload.ErrUnavailable) || !strings.Contains(err.Error(), fault.says) || strings.Contains(err.Error(), secret) {
				t.Errorf("%s: %d %s: %v", name, fault.status, fault.body, err)
			}
			for _, answer := range answers {
				if errors.Is(err, answer) {
					t.Errorf("%s: %d %s: reads as %v", name, fault.status, fault.body, answer)
				}
			}
			if fault.attempts != 0 && asked.Load() != fault.attempts {
				t.Errorf("%s: %d: %d attempts, want %d", name, fault.status, asked.Load(), fault.attempts)
			}
		}
	}
}

func TestNoStore(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	b := open(t, Options{Endpoint: server.URL})
	hanging := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer hanging.Close()
	h := open(t, Options{Endpoint: hanging.URL})
	h.headTimeout, h.callTimeout, h.listTimeout, h.completeTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
	for name, c := range calls {
		for _, b := range []*Bucket{b, h} {
			if err := c.do(t.Context(), b); !errors.Is(err, upload.ErrUnavailable) || errors.Is(err, upload.ErrNoObject) || errors.Is(err, upload.ErrNoUpload) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// S3 begins to answer 200 before it knows: the body says what became of it.
func TestCompleteAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   error
	}{
		{200, "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>", nil},
		{200, errorBody("InternalError"), upload.ErrUnavailable},
		{200, "  \n  " + errorBody("InternalError"), upload.ErrUnavailable},
		{200, errorBody("NoSuchUpload"), upload.ErrNoUpload},
		{200, errorBody("PreconditionFailed"), upload.ErrTaken},
		{200, "", upload.ErrUnavailable},
		{200, "<CompleteMultipartUploadResult></CompleteMultipartUploadResult>", upload.ErrUnavailable},
		{200, "<CompleteMultipartUploadResult><ETag>\"e\"", upload.ErrUnavailable},
		{200, "<html>", upload.ErrUnavailable},
		{404, errorBody("NoSuchUpload"), upload.ErrNoUpload},
		{404, errorBody("NoSuchBucket"), upload.ErrUnavailable},
		{404, "", upload.ErrUnavailable},
		{412, errorBody("PreconditionFailed"), upload.ErrTaken},
		{409, errorBody("ConditionalRequestConflict"), upload.ErrTaken},
		{409, errorBody("OperationAborted"), upload.ErrUnavailable},
		{400, errorBody("InvalidPart"), upload.ErrParts},
		{400, errorBody("InvalidPartOrder"), upload.ErrParts},
		{400, errorBody("EntityTooSmall"), upload.ErrParts},
		{400, errorBody("EntityTooLarge"), upload.ErrParts},
		{400, errorBody("BadDigest"), upload.ErrParts},
	} {
		b, _ := answering(t, c.status, c.body)
		err := b.CompleteMultipart(t.Context(), upload.Put{Key: "k"}, "id", onePart)
		if !errors.Is(err, c.want) || c.want != upload.ErrUnavailable && errors.Is(err, upload.ErrUnavailable) {
			t.Errorf("%d %s: %v, want %v", c.status, c.body, err, c.want)
		}
	}
}

func TestCompleteRefusesParts(t *testing.T) {
	b, asked := answering(t, 200, "")
	for name, parts := range map[string][]upload.Part{
		"none": nil, "no ETag": {{Number: 1}}, "number 0": {{Number: 0, ETag: "e"}}, "number 10001": {{Number: 10001, ETag: "e"}},
		"twice": {{Number: 1, ETag: "e"}, {Number: 1, ETag: "e"}}, "falling": {{Number: 2, ETag: "e"}, {Number: 1, ETag: "e"}},
		"too many": make([]upload.Part, 10001),
	} {
		if err := b.CompleteMultipart(t.Context(), upload.Put{Key: "k"}, "id", parts); !errors.Is(err, upload.ErrParts) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if asked.Load() != 0 {
		t.Error("the store was asked")
	}
}

func TestGoneIsNoError(t *testing.T) {
	b, _ := answering(t, 404, errorBody("NoSuchUpload"))
	if err := b.AbortMultipart(t.Context(), "k", "id"); err != nil {
		t.Error(err)
	}
	if _, err := b.ListParts(t.Context(), "k", "id"); !errors.Is(err, upload.ErrNoUpload) {
		t.Error(err)
	}
	for _, code := range []string{"NoSuchKey", "NoSuchVersion"} {
		b, _ := answering(t, 404, errorBody(code))
		if err := b.Delete(t.Context(), "k", "v"); err != nil {
			t.Error(err)
		}
	}
	b, _ = answering(t, 404, errorBody("NoSuchBucket"))
	if err := b.Delete(t.Context(), "k", ""); !errors.Is(err, upload.ErrUnavailable) || !strings.Contains(err.Error(), "no such bucket") {
		t.Error(err)
	}
}

// A store that lists what it was not asked for, or what no caller may see, is
// not believed.
func TestListOfAHostileStore(t *testing.T) {
	entry := func(key string) string {
		return "<Contents><Key>" + key + "</Key><Size>1</Size><ETag>e</ETag></Contents>"
	}
	page := func(more string, keys ...string) string {
		body := "<ListBucketResult><EncodingType>url</EncodingType>" + more
		for _, k := range keys {
			body += entry(k)
		}
		return body + "</ListBucketResult>"
	}
	b, _ := answering(t, 200, page("", "users/u1/a", "users/u1/a%0Ab", "users/u1/", "users/u1/../u2/x", "users/u1%2F%2Fx", "users/u2/x", "users/u10/x", "users%2Fu1%2Fb+c%2B", "%zz",
		"users/u1/%E2%80%AEgpj.exe", "users/u1/e%CC%81", "", "users/u1/"+strings.Repeat("k", 1024)))
	got, next, err := b.List(t.Context(), "users/u1/", "", 1000)
	if err != nil || next != "" {
		t.Fatal(next, err)
	}
	var keys []string
	for _, o := range got {
		keys = append(keys, o.Key)
	}
	if fmt.Sprintf("%q", keys) != `["users/u1/a" "users/u1/b c+"]` {
		t.Errorf("%q", keys)
	}
	for name, body := range map[string]string{
		"the same token":  page("<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>", "users/u1/a"),
		"a long token":    page("<IsTruncated>true</IsTruncated><NextContinuationToken>" + strings.Repeat("t", 5000) + "</NextContinuationToken>"),
		"XML that is not": "<ListBucketResult><Contents>",
		"a bomb":          "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><ListBucketResult>&a;",
	} {
		b, _ := answering(t, 200, body)
		if _, _, err := b.List(t.Context(), "users/u1/", "t", 10); !errors.Is(err, upload.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, _ = answering(t, 501, errorBody("NotImplemented")) // MinIO, of a token that it did not give for this prefix
	if _, _, err := b.List(t.Context(), "users/u1/", "t", 10); !errors.Is(err, upload.ErrCursor) {
		t.Error(err)
	}
	b, _ = answering(t, 400, errorBody("InvalidArgument"))
	if _, _, err := b.List(t.Context(), "users/u1/", "t", 10); !errors.Is(err, upload.ErrCursor) {
		t.Error(err)
	}
	if _, _, err := b.List(t.Context(), "users/u1/", "", 10); !errors.Is(err, upload.ErrUnavailable) {
		t.Error("without a token it is no bad token:", err)
	}
	if _, _, err := b.List(t.Context(), "users/u1/", strings.Repeat("t", 5000), 10); !errors.Is(err, upload.ErrCursor) {
		t.Error(err)
	}
}

// paged is a store with that many parts and uploads, some on a page.
func paged(t *testing.T, n, size int) *Bucket {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		from := 0
		fmt.Sscan(q.Get("part-number-marker")+q.Get("upload-id-marker"), &from)
		root := "ListPartsResult"
		if q.Has("uploads") {
			root = "ListMultipartUploadsResult"
		}
		fmt.Fprintf(w, "<%s><IsTruncated>%t</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>%d</NextUploadIdMarker>", root, from+size < n, from+size)
		for i := from + 1; i <= min(from+size, n); i++ {
			fmt.Fprintf(w, "<Part><PartNumber>%d</PartNumber><Size>1</Size><ETag>e</ETag></Part><Upload><Key>k</Key><UploadId>%d</UploadId></Upload>", i, i)
		}
		fmt.Fprintf(w, "<Upload><Key>k2</Key><UploadId>other</UploadId></Upload></%s>", root)
	}))
	t.Cleanup(server.Close)
	return open(t, Options{Endpoint: server.URL})
}

func TestEveryPage(t *testing.T) {
	b := paged(t, 10000, 1000)
	parts, err := b.ListParts(t.Context(), "k", "id")
	if err != nil || len(parts) != 10000 || parts[9999].Number != 10000 {
		t.Errorf("%d, %v", len(parts), err)
	}
	if _, err := paged(t, 10001, 1000).ListParts(t.Context(), "k", "id"); !errors.Is(err, upload.ErrUnavailable) {
		t.Errorf("10,001 parts: %v", err)
	}
	if _, err := paged(t, 1000, 1).ListParts(t.Context(), "k", "id"); !errors.Is(err, upload.ErrUnavailable) {
		t.Errorf("1,000 pages: %v", err)
	}
}

func TestOpenMultipartsEveryPage(t *testing.T) {
	page := func(keys string, more bool, marker string) string {
		return fmt.Sprintf("<ListMultipartUploadsResult><EncodingType>url</EncodingType><IsTruncated>%t</IsTruncated><NextKeyMarker>%s</NextKeyMarker><NextUploadIdMarker>%s</NextUploadIdMarker>%s</ListMultipartUploadsResult>",
			more, "a+b", marker, keys)
	}
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("prefix") != "a b" {
			t.Errorf("prefix %q", r.URL.Query().Get("prefix"))
		}
		w.Header().Set("Date", "Mon, 02 Mar 2026 10:00:30 GMT")
		switch asked.Add(1) {
		case 1:
			io.WriteString(w, page("<Upload><Key>a+b</Key><UploadId>1</UploadId><Initiated>2026-03-02T10:00:00.000Z</Initiated></Upload>", true, "1"))
		case 2:
			if q := r.URL.Query(); q.Get("key-marker") != "a b" || q.Get("upload-id-marker") != "1" {
				t.Errorf("%v", q)
			}
			io.WriteString(w, page("<Upload><Key>a+b</Key><UploadId>2</UploadId><Initiated>0001-01-01T00:00:00.000Z</Initiated></Upload><Upload><Key>a+b2</Key><UploadId>3</UploadId></Upload>", true, "3"))
		default:
			t.Error("asked beyond the key")
		}
	}))
	defer server.Close()
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) // of a machine whose clock is another
	bucket := open(t, Options{Endpoint: server.URL})
	bucket.now = func() time.Time { return now }
	got, err := bucket.OpenMultiparts(t.Context(), "a b")
	if want := []upload.OpenMultipart{{ID: "1", Begun: now.Add(-30 * time.Second)}, {ID: "2"}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	b, endless := answering(t, 200, page("<Upload><Key>a+b</Key><UploadId>1</UploadId></Upload>", true, "1"))
	if _, err := b.OpenMultiparts(t.Context(), "a b"); !errors.Is(err, upload.ErrUnavailable) || endless.Load() > 3 {
		t.Errorf("a list without an end: %v, asked %d times", err, endless.Load())
	}
}

// An answer without an end costs bounded memory.
func TestEndlessAnswer(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "<ListBucketResult><Name>")
		chunk := strings.Repeat("x", 1<<20)
		for {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	b := open(t, Options{Endpoint: server.URL})
	if _, _, err := b.List(t.Context(), "u/", "", 10); !errors.Is(err, upload.ErrUnavailable) {
		t.Error(err)
	}
}

func TestSkew(t *testing.T) {
	var header atomic.Pointer[http.Header]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for k, v := range *header.Load() {
			w.Header()[k] = v
		}
		w.WriteHeader(http.StatusForbidden) // an error says the time, too
	}))
	defer server.Close()
	b := open(t, Options{Endpoint: server.URL})
	if _, ok := b.Skew(); ok {
		t.Error("a skew of nothing")
	}
	for _, c := range []struct {
		date time.Duration
		age  string
		want time.Duration
	}{
		{10 * time.Minute, "", 10*time.Minute + time.Second/2},
		{-time.Hour, "", -time.Hour + time.Second/2},
		{5 * time.Minute, "60", -time.Hour + time.Second/2}, // out of a cache
	} {
		h := http.Header{"Date": {clock.Add(c.date).Format(http.TimeFormat)}}
		if c.age != "" {
			h.Set("Age", c.age)
		}
		header.Store(&h)
		_, _ = b.Head(t.Context(), "k")
		if got, ok := b.Skew(); !ok || got != c.want {
			t.Errorf("%v: %v, %v", c.date, got, ok)
		}
	}
}

// Google's front end changes Accept-Encoding: it must not be signed (aws-sdk-go-v2#1816).
func TestGCSSignsNoAcceptEncoding(t *testing.T) {
	for store, want := range map[string]bool{"gcs": false, "other": true} {
		var signed atomic.Value
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			signed.Store(r.Header.Get("Authorization"))
			w.WriteHeader(http.StatusForbidden)
		}))
		b := open(t, Options{Endpoint: server.URL, Store: store, PathStyle: true})
		for name, c := range calls {
			if store == "gcs" && name == "complete" {
				continue // it has no conditions
			}
			_ = c.do(t.Context(), b)
			if got := strings.Contains(signed.Load().(string), "accept-encoding"); got != want {
				t.Errorf("%s: %s: accept-encoding is signed: %t", store, name, got)
			}
		}
		if err := b.CompleteMultipart(t.Context(), upload.Put{Key: "k"}, "id", onePart); store == "gcs" && !strings.Contains(err.Error(), "overwritten") {
			t.Error(err)
		}
		server.Close()
	}
}
