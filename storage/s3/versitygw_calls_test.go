package s3

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"sidegate/storage/upload"
)

// post sends a form as a browser does: the fields, then the file.
func post(t *testing.T, s upload.Signed, body string, edit func(map[string]string)) (int, string) {
	t.Helper()
	fields := maps.Clone(s.Fields)
	if edit != nil {
		edit(fields)
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if err := w.WriteField(name, fields[name]); err != nil {
			t.Fatal(err)
		}
	}
	file, err := w.CreateFormFile("file", "evil/../name.html")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(file, body)
	w.Close()
	answer, err := http.Post(s.URL, w.FormDataContentType(), &form)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func TestFormAgainstARealStore(t *testing.T) {
	b := open(t, Options{Endpoint: serve(t), Store: "versitygw", Now: time.Now, Metadata: map[string]string{"origin": "sidegate"}, Tags: map[string]string{"team": "photos"}})
	form := func(t *testing.T, p upload.Put) upload.Signed {
		t.Helper()
		p.ContentType, p.Form, p.Expires = "image/jpeg", true, time.Minute
		s, err := b.SignPut(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for i, key := range awkwardKeys {
		key = fmt.Sprintf("awkward/%d/%s", i, key)
		s := form(t, upload.Put{Key: key, Size: 5, Checksum: sumOf("hello"), Metadata: map[string]string{"name": "Zoë.jpg"}})
		if status, text := post(t, s, "hello", nil); status != http.StatusCreated {
			t.Errorf("%q: %d %s", key, status, text)
			continue
		}
		o, err := b.Head(t.Context(), key)
		if err != nil || o.Size != 5 || o.ContentType != "image/jpeg" || o.Checksum != sumOf("hello") {
			t.Errorf("%q: %+v, %v", key, o, err)
		}
	}
	if got := metadataOf(t, b, "awkward/0/"+awkwardKeys[0]); got["X-Amz-Meta-Origin"] != "sidegate" || got["X-Amz-Meta-Name"] != encodeMeta("Zoë.jpg") {
		t.Errorf("metadata: %v", got)
	}

	b.now = func() time.Time { return time.Now().Add(-10 * time.Minute) }
	expired := form(t, upload.Put{Key: "attacked", Size: 5})
	b.now = time.Now
	valid := form(t, upload.Put{Key: "attacked", Size: -1, MaxSize: 8, Metadata: map[string]string{"name": "a"}})
	bound := form(t, upload.Put{Key: "attacked", Size: 5, Checksum64: crcOf("hello")})
	other := form(t, upload.Put{Key: "attacked2", Size: -1, MaxSize: 8000})
	for name, attack := range map[string]struct {
		form upload.Signed
		body string
		edit func(map[string]string)
	}{
		"longer than the range":   {valid, "123456789", nil},
		"shorter than the range":  {bound, "hell", nil},
		"another body":            {bound, "jello", nil},
		"another checksum":        {bound, "jello", func(f map[string]string) { f["x-amz-checksum-crc64nvme"] = crcOf("jello") }},
		"no checksum":             {bound, "jello", func(f map[string]string) { delete(f, "x-amz-checksum-crc64nvme") }},
		"another key":             {valid, "hello", func(f map[string]string) { f["key"] = "attacked2" }},
		"a key with the filename": {valid, "hello", func(f map[string]string) { f["key"] = "${filename}" }},
		"another content type":    {valid, "hello", func(f map[string]string) { f["Content-Type"] = "text/html" }},
		"no content type":         {valid, "hello", func(f map[string]string) { delete(f, "Content-Type") }},
		"another status":          {valid, "hello", func(f map[string]string) { f["success_action_status"] = "200" }},
		"a redirect":              {valid, "hello", func(f map[string]string) { f["success_action_redirect"] = "https://evil.test" }},
		"an ACL":                  {valid, "hello", func(f map[string]string) { f["acl"] = "public-read" }},
		"more metadata":           {valid, "hello", func(f map[string]string) { f["x-amz-meta-more"] = "x" }},
		"other metadata":          {valid, "hello", func(f map[string]string) { f["x-amz-meta-name"] = "x" }},
		"the gateway's metadata":  {valid, "hello", func(f map[string]string) { f["x-amz-meta-origin"] = "x" }},
		"no metadata":             {valid, "hello", func(f map[string]string) { delete(f, "x-amz-meta-origin") }},
		"other tags":              {valid, "hello", func(f map[string]string) { f["tagging"] = "<Tagging><TagSet></TagSet></Tagging>" }},
		"no tags":                 {valid, "hello", func(f map[string]string) { delete(f, "tagging") }},
		"another user": {valid, "hello", func(f map[string]string) {
			f["X-Amz-Credential"] = strings.Replace(f["X-Amz-Credential"], "AKID", "ROOT", 1)
		}},
		"another date":          {valid, "hello", func(f map[string]string) { f["X-Amz-Date"] = "20200101T000000Z" }},
		"another form's policy": {valid, "123456789", func(f map[string]string) { f["policy"] = other.Fields["policy"] }},
		"another form's signature": {valid, "123456789", func(f map[string]string) {
			f["policy"], f["X-Amz-Signature"] = other.Fields["policy"], other.Fields["X-Amz-Signature"]
		}},
		"no policy":       {valid, "hello", func(f map[string]string) { delete(f, "policy") }},
		"no signature":    {valid, "hello", func(f map[string]string) { delete(f, "X-Amz-Signature") }},
		"an expired form": {expired, "hello", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if status, text := post(t, attack.form, attack.body, attack.edit); status/100 != 4 {
				t.Errorf("the store answered %d %s", status, text)
			}
			for _, key := range []string{"attacked", "attacked2", "evil/../name.html", "name.html"} {
				if o, err := b.Head(t.Context(), key); !errors.Is(err, upload.ErrNoObject) {
					t.Errorf("%s: %+v, %v", key, o, err)
				}
			}
		})
	}
	// What no field can say: a form overwrites, as often as it is sent.
	for range 2 {
		if status, text := post(t, bound, "hello", nil); status != http.StatusCreated {
			t.Errorf("unchanged: %d %s", status, text)
		}
	}
	if status, text := post(t, valid, "jello", nil); status != http.StatusCreated {
		t.Errorf("unchanged: %d %s", status, text)
	}
}

func metadataOf(t *testing.T, b *Bucket, key string) map[string]string {
	t.Helper()
	s, err := b.SignGet(t.Context(), upload.Get{Key: key, Head: true, Expires: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	_, header, _ := send(t, s, "", nil)
	out := map[string]string{}
	for name := range header {
		if strings.HasPrefix(name, "X-Amz-Meta-") {
			out[name] = header.Get(name)
		}
	}
	return out
}

func TestPutFieldsAgainstARealStore(t *testing.T) {
	b := open(t, Options{Endpoint: serve(t), Store: "versitygw", Now: time.Now, Metadata: map[string]string{"origin": "sidegate"}, Tags: map[string]string{"team": "photos"}})
	put := func(p upload.Put) upload.Signed {
		p.ContentType, p.Expires = "image/jpeg", time.Minute
		s, err := b.SignPut(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	valid := put(upload.Put{Key: "k", Size: 5, Checksum64: crcOf("hello"), Metadata: map[string]string{"name": "Zoë.jpg"}})
	for name, attack := range map[string]struct {
		body string
		edit func(*http.Request)
	}{
		"another body":           {"jello", nil},
		"another checksum":       {"jello", func(r *http.Request) { r.Header.Set("X-Amz-Checksum-Crc64nvme", crcOf("jello")) }},
		"no checksum":            {"jello", func(r *http.Request) { r.Header.Del("X-Amz-Checksum-Crc64nvme") }},
		"other metadata":         {"hello", func(r *http.Request) { r.Header.Set("X-Amz-Meta-Name", "x") }},
		"the gateway's metadata": {"hello", func(r *http.Request) { r.Header.Set("X-Amz-Meta-Origin", "x") }},
		"no metadata":            {"hello", func(r *http.Request) { r.Header.Del("X-Amz-Meta-Origin") }},
		"more metadata":          {"hello", func(r *http.Request) { r.Header.Set("X-Amz-Meta-More", "x") }},
		"other tags":             {"hello", func(r *http.Request) { r.Header.Set("X-Amz-Tagging", "team=x") }},
		"no tags":                {"hello", func(r *http.Request) { r.Header.Del("X-Amz-Tagging") }},
		"a grant":                {"hello", func(r *http.Request) { r.Header.Set("X-Amz-Grant-Read", "x") }},
	} {
		t.Run(name, func(t *testing.T) {
			if status, _, text := send(t, valid, attack.body, attack.edit); status/100 != 4 {
				t.Errorf("the store answered %d %s", status, text)
			}
			if o, err := b.Head(t.Context(), "k"); !errors.Is(err, upload.ErrNoObject) {
				t.Errorf("%+v, %v", o, err)
			}
		})
	}
	if status, _, text := send(t, valid, "hello", nil); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	if o, err := b.Head(t.Context(), "k"); err != nil || o.Checksum64 != crcOf("hello") {
		t.Errorf("%+v, %v", o, err)
	}
	if got := metadataOf(t, b, "k"); got["X-Amz-Meta-Origin"] != "sidegate" || got["X-Amz-Meta-Name"] != encodeMeta("Zoë.jpg") {
		t.Errorf("metadata: %v", got)
	}
	get, err := b.SignGet(t.Context(), upload.Get{Key: "k", ContentType: "application/octet-stream", Disposition: "attachment", Expires: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, header, text := send(t, get, "", nil); header.Get("Content-Type") != "application/octet-stream" || text != "hello" {
		t.Errorf("%v %s", header, text)
	}
	if status, _, text := send(t, get, "", func(r *http.Request) { r.Header.Set("Range", "bytes=1-2") }); status != http.StatusPartialContent || text != "el" {
		t.Errorf("a range: %d %s", status, text)
	}
	if status, _, _ := send(t, get, "", func(r *http.Request) { replaceQuery(r, "application%2Foctet-stream", "text%2Fhtml") }); status/100 != 4 {
		t.Errorf("another type of the answer: %d", status)
	}
}

func TestMultipartAgainstARealStore(t *testing.T) {
	b := open(t, Options{Endpoint: serve(t), Store: "versitygw", Now: time.Now, Metadata: map[string]string{"origin": "sidegate"}})
	ctx := t.Context()
	big, tail := strings.Repeat("x", 5<<20), "the end"
	whole := upload.Put{Key: "users/u1/a b+é.mp4", ContentType: "video/mp4", Size: int64(len(big) + len(tail)), Checksum64: crcOf(big + tail), Expires: time.Minute}
	id, err := b.CreateMultipart(ctx, whole)
	if err != nil {
		t.Fatal(err)
	}
	otherID, err := b.CreateMultipart(ctx, upload.Put{Key: whole.Key + "2", ContentType: "video/mp4"})
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.CreateMultipart(ctx, whole)
	if err != nil {
		t.Fatal(err)
	}
	if open, err := b.OpenMultiparts(ctx, whole.Key); err != nil || len(open) != 2 || !isOpen(open, id) || !isOpen(open, again) {
		t.Errorf("open: %v, %v; want %s and %s", open, err, id, again)
	}
	if err := b.AbortMultipart(ctx, whole.Key, again); err != nil {
		t.Error(err)
	}
	part := func(key, id string, n int, body string, sum string) upload.Signed {
		t.Helper()
		got, err := b.SignMultipart(ctx, []upload.MultipartCall{{Op: upload.UploadPart, UploadID: id, Part: n,
			Put: upload.Put{Key: key, Size: int64(len(body)), Checksum: sum, Expires: time.Minute}}})
		if err != nil {
			t.Fatal(err)
		}
		return got[0]
	}
	first := part(whole.Key, id, 1, tail, "")
	b.now = func() time.Time { return time.Now().Add(-10 * time.Minute) }
	expired := part(whole.Key, id, 1, tail, "")
	b.now = time.Now
	if status, _, text := send(t, expired, tail, nil); status/100 != 4 {
		t.Errorf("an expired part: the store answered %d %s", status, text)
	}
	for name, attack := range map[string]struct {
		body string
		edit func(*http.Request)
	}{
		"longer":              {tail + "!", nil},
		"shorter":             {tail[1:], nil},
		"another part number": {tail, func(r *http.Request) { replaceQuery(r, "partNumber=1&", "partNumber=3&") }},
		"another's upload id": {tail, func(r *http.Request) { replaceQuery(r, id, otherID) }},
		"another key":         {tail, func(r *http.Request) { r.URL.Path += "2"; r.URL.RawPath = "" }},
		"another method":      {"", func(r *http.Request) { r.Method = http.MethodDelete }},
		"a query appended":    {tail, func(r *http.Request) { r.URL.RawQuery += "&tagging" }},
		"a header more":       {tail, func(r *http.Request) { r.Header.Set("X-Amz-Copy-Source", "/photos/secret") }},
		"a longer life":       {tail, func(r *http.Request) { replaceQuery(r, "X-Amz-Expires=60", "X-Amz-Expires=6000") }},
	} {
		t.Run(name, func(t *testing.T) {
			if status, _, text := send(t, first, attack.body, attack.edit); status/100 != 4 {
				t.Errorf("the store answered %d %s", status, text)
			}
			for key, id := range map[string]string{whole.Key: id, whole.Key + "2": otherID} {
				if parts, err := b.ListParts(ctx, key, id); err != nil || len(parts) != 0 {
					t.Errorf("%s: %v, %v", key, parts, err)
				}
			}
		})
	}
	for n, body := range map[int]string{2: tail, 1: big} {
		if status, _, text := send(t, part(whole.Key, id, n, body, ""), body, nil); status != http.StatusOK {
			t.Fatalf("part %d: %d %s", n, status, text)
		}
	}
	parts, err := b.ListParts(ctx, whole.Key, id)
	if err != nil || len(parts) != 2 || parts[0].Number != 1 || parts[0].Size != 5<<20 || parts[1].Size != int64(len(tail)) || parts[1].ETag == "" {
		t.Fatalf("%+v, %v", parts, err)
	}

	wrong := slices.Clone(parts)
	wrong[1].ETag = `"00000000000000000000000000000000"`
	for name, c := range map[string]struct {
		put   upload.Put
		id    string
		parts []upload.Part
		want  error
	}{
		"another ETag":   {whole, id, wrong, upload.ErrParts},
		"a part missing": {whole, id, []upload.Part{{Number: 3, ETag: parts[0].ETag}}, upload.ErrParts},
		"out of order":   {whole, id, []upload.Part{parts[1], parts[0]}, upload.ErrParts},
		"no parts":       {whole, id, nil, upload.ErrParts},
		"another's id":   {whole, otherID, parts, upload.ErrNoUpload},
		"no such id":     {whole, "2b0d2b8f-0000-0000-0000-000000000000", parts, upload.ErrNoUpload},
		"an aborted one": {whole, again, parts, upload.ErrNoUpload},
		"another object": {upload.Put{Key: whole.Key + "2"}, id, parts, upload.ErrNoUpload},
	} {
		if err := b.CompleteMultipart(ctx, c.put, c.id, c.parts); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := b.Head(ctx, whole.Key); !errors.Is(err, upload.ErrNoObject) {
		t.Fatalf("something is there already: %v", err)
	}
	if err := b.CompleteMultipart(ctx, whole, id, parts); err != nil {
		t.Fatal(err)
	}
	o, err := b.Head(ctx, whole.Key)
	if err != nil || o.Size != whole.Size || o.ContentType != "video/mp4" || o.Checksum64 != whole.Checksum64 {
		t.Errorf("%+v, %v", o, err)
	}
	if got := metadataOf(t, b, whole.Key); got["X-Amz-Meta-Origin"] != "sidegate" {
		t.Errorf("metadata: %v", got)
	}
	// A store may say of what is complete that it is done, or that it is gone.
	if err := b.CompleteMultipart(ctx, whole, id, parts); err != nil && !errors.Is(err, upload.ErrNoUpload) {
		t.Errorf("again: %v", err)
	}
	if err := b.AbortMultipart(ctx, whole.Key, id); err != nil {
		t.Errorf("abort what is complete: %v", err)
	}
	if _, err := b.ListParts(ctx, whole.Key, id); !errors.Is(err, upload.ErrNoUpload) {
		t.Errorf("parts of what is complete: %v", err)
	}
	if open, err := b.OpenMultiparts(ctx, whole.Key); err != nil || len(open) != 0 {
		t.Errorf("open: %v, %v", open, err)
	}

	// A key that is taken stays what it is, and the upload can be aborted.
	second, err := b.CreateMultipart(ctx, upload.Put{Key: whole.Key, ContentType: "video/mp4", PartChecksums: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*http.Request){
		"another checksum": func(r *http.Request) { r.Header.Set("X-Amz-Checksum-Sha256", sumOf("the END")) },
		"no checksum":      func(r *http.Request) { r.Header.Del("X-Amz-Checksum-Sha256") },
	} {
		if status, _, text := send(t, part(whole.Key, second, 1, tail, sumOf(tail)), "the END", edit); status/100 != 4 {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	if status, _, text := send(t, part(whole.Key, second, 1, tail, ""), tail, nil); status/100 != 4 {
		t.Errorf("a part without a checksum: %d %s", status, text)
	}
	if status, _, text := send(t, part(whole.Key, second, 1, tail, sumOf(tail)), tail, nil); status != http.StatusOK {
		t.Fatalf("%d %s", status, text)
	}
	parts, err = b.ListParts(ctx, whole.Key, second)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.CompleteMultipart(ctx, upload.Put{Key: whole.Key}, second, parts); !errors.Is(err, upload.ErrTaken) {
		t.Errorf("taken: %v", err)
	}
	if err := b.CompleteMultipart(ctx, upload.Put{Key: whole.Key, Overwrite: true}, second, parts); err != nil {
		t.Errorf("overwrite: %v", err)
	}
	if o, err := b.Head(ctx, whole.Key); err != nil || o.Size != int64(len(tail)) {
		t.Errorf("%+v, %v", o, err)
	}
	if skew, ok := b.Skew(); !ok || skew.Abs() > 2*time.Second {
		t.Errorf("skew: %v, %v", skew, ok)
	}
}

// The calls that a client makes itself, by signed URLs.
func TestSignedCallsAgainstARealStore(t *testing.T) {
	b := open(t, Options{Endpoint: serve(t), Store: "versitygw", Now: time.Now})
	put := upload.Put{Key: "users/u1/a b.mp4", ContentType: "video/mp4", Size: 5, Expires: time.Minute}
	sign := func(c upload.MultipartCall) upload.Signed {
		t.Helper()
		c.Put = put
		got, err := b.SignMultipart(t.Context(), []upload.MultipartCall{c})
		if err != nil {
			t.Fatal(err)
		}
		return got[0]
	}
	status, _, text := do(t, sign(upload.MultipartCall{Op: upload.CreateUpload}), "", nil)
	var created struct{ UploadId string }
	if err := xml.Unmarshal([]byte(text), &created); err != nil || status != http.StatusOK || created.UploadId == "" {
		t.Fatalf("create: %d %s", status, text)
	}
	id := created.UploadId
	if status, _, _ := do(t, sign(upload.MultipartCall{Op: upload.CreateUpload}), "", func(r *http.Request) { r.Header.Set("Content-Type", "text/html") }); status/100 != 4 {
		t.Errorf("create as another type: %d", status)
	}
	status, header, text := do(t, sign(upload.MultipartCall{Op: upload.UploadPart, UploadID: id, Part: 1}), "hello", nil)
	if status != http.StatusOK {
		t.Fatalf("part: %d %s", status, text)
	}
	if status, _, text := do(t, sign(upload.MultipartCall{Op: upload.ListParts, UploadID: id}), "", nil); status != http.StatusOK || !strings.Contains(text, "<PartNumber>1</PartNumber>") {
		t.Errorf("list: %d %s", status, text)
	}
	complete := sign(upload.MultipartCall{Op: upload.CompleteUpload, UploadID: id})
	body := "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + header.Get("Etag") + "</ETag></Part></CompleteMultipartUpload>"
	for name, edit := range map[string]func(*http.Request){
		"no condition": func(r *http.Request) { r.Header.Del("If-None-Match") },
		"another key":  func(r *http.Request) { r.URL.Path += "2"; r.URL.RawPath = "" },
		"abort by it":  func(r *http.Request) { r.Method = http.MethodDelete },
		"another id":   func(r *http.Request) { replaceQuery(r, id, "2b0d2b8f-0000-0000-0000-000000000000") },
	} {
		if status, _, text := do(t, complete, body, edit); status/100 != 4 {
			t.Errorf("complete, %s: %d %s", name, status, text)
		}
	}
	if status, _, text := do(t, complete, body, nil); status != http.StatusOK {
		t.Errorf("complete: %d %s", status, text)
	}
	if o, err := b.Head(t.Context(), put.Key); err != nil || o.Size != 5 || o.ContentType != "video/mp4" {
		t.Errorf("%+v, %v", o, err)
	}
	status, _, text = do(t, sign(upload.MultipartCall{Op: upload.CreateUpload}), "", nil)
	if err := xml.Unmarshal([]byte(text), &created); err != nil || status != http.StatusOK {
		t.Fatalf("create: %d %s", status, text)
	}
	if status, _, text := do(t, sign(upload.MultipartCall{Op: upload.AbortUpload, UploadID: created.UploadId}), "", nil); status != http.StatusNoContent {
		t.Errorf("abort: %d %s", status, text)
	}
}

// do is send with a body for every method.
func do(t *testing.T, s upload.Signed, body string, edit func(*http.Request)) (int, http.Header, string) {
	t.Helper()
	return send(t, s, body, func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		if edit != nil {
			edit(r)
		}
	})
}

func TestObjectsAgainstARealStore(t *testing.T) {
	b := open(t, Options{Endpoint: serve(t), Store: "versitygw", Now: time.Now})
	ctx := t.Context()
	var keys []string
	for i, key := range append(slices.Clone(awkwardKeys), "&amp;", "a\u00a0b", "+", "%2e%2e") {
		key = fmt.Sprintf("users/u1/%02d/%s", i, key)
		keys = append(keys, key)
	}
	for _, key := range append(keys, "users/u10/x", "users/u", "other") {
		s, err := b.SignPut(ctx, upload.Put{Key: key, ContentType: "a/b", Size: 5, Expires: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if status, _, text := send(t, s, "hello", nil); status != http.StatusOK {
			t.Fatalf("%q: %d %s", key, status, text)
		}
	}
	for _, limit := range []int{1, 3, 5, 1000, 5000, 0} {
		var got []string
		token := ""
		for range 100 {
			page, next, err := b.List(ctx, "users/u1/", token, limit)
			if err != nil || len(page) > max(limit, 1) {
				t.Fatalf("%d: %v, %v", limit, page, err)
			}
			for _, o := range page {
				if o.Size != 5 || o.ETag == "" || o.Modified.IsZero() {
					t.Errorf("%+v", o)
				}
				got = append(got, o.Key)
			}
			if token = next; token == "" {
				break
			}
		}
		slices.Sort(keys)
		slices.Sort(got)
		if !slices.Equal(got, keys) {
			t.Fatalf("%d: listed\n%q, want\n%q", limit, got, keys)
		}
	}
	if page, next, err := b.List(ctx, "users/nobody/", "", 10); err != nil || len(page) != 0 || next != "" {
		t.Errorf("%v, %q, %v", page, next, err)
	}
	for _, key := range keys {
		for range 2 {
			if err := b.Delete(ctx, key, ""); err != nil {
				t.Errorf("%q: %v", key, err)
			}
		}
		if _, err := b.Head(ctx, key); !errors.Is(err, upload.ErrNoObject) {
			t.Errorf("%q: %v", key, err)
		}
	}
	if o, err := b.Head(ctx, "users/u10/x"); err != nil || o.Size != 5 {
		t.Errorf("%v, %v", o, err)
	}
}

// isOpen reports whether a multipart upload is among those that are open, and
// was begun a moment ago.
func isOpen(list []upload.OpenMultipart, id string) bool {
	return slices.ContainsFunc(list, func(o upload.OpenMultipart) bool { return o.ID == id && time.Since(o.Begun).Abs() < time.Minute })
}
