package proxy

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"sidegate/storage/upload"
)

// bodyOf is a request's body, read as far as the limit.
func bodyOf(text string) func(int64) ([]byte, *problem) {
	return func(limit int64) ([]byte, *problem) { return readBounded(strings.NewReader(text), limit) }
}

// TestUppyCalls reads what the real clients send: the lines are theirs, of
// @uppy/aws-s3 5.1.0 and 6.3.1.
func TestUppyCalls(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef"
	read := func(method, rest, query, body string) uppyCall {
		t.Helper()
		c, pr := readUppy(method, rest, query, bodyOf(body))
		if pr != nil {
			t.Fatalf("%s %s?%s: %v", method, rest, query, pr)
		}
		return c
	}
	c := read("GET", "params", "filename=a+b.png&type=image%2Fpng&metadata%5Bname%5D=a+b.png&metadata%5Btype%5D=image%2Fpng&metadata%5Bcaption%5D=+%C3%BC+", "")
	if c.op != uppyParams || c.upload.ContentType != "image/png" || c.upload.Size != nil || c.upload.Metadata["caption"] != " ü " {
		t.Errorf("%+v", c)
	}
	c.keepMetadata([]string{"caption"})
	if len(c.upload.Metadata) != 1 || c.upload.Metadata["caption"] != "ü" {
		t.Errorf("%v", c.upload.Metadata)
	}
	for _, query := range []string{"key=users/a%20b/c", "key=users%2Fa+b%2Fc"} { // of version 5, of version 6
		if c := read("GET", "multipart/"+id, query, ""); c.op != uppyList || c.key != "users/a b/c" || c.session != id {
			t.Errorf("%+v", c)
		}
	}
	c = read("POST", "multipart", "", `{"filename":"a.bin","metadata":{"name":"a.bin","relativePath":null,"n":1,"o":{"x":[1]},"b":true}}`)
	if c.op != uppyCreate || c.upload.ContentType != "application/octet-stream" || fmt.Sprint(c.upload.Metadata) != "map[b:true n:1 name:a.bin]" {
		t.Errorf("%+v", c)
	}
	c = read("POST", "multipart/"+id+"/complete", "key=k", `{"parts":[{"ETag":"\"e2\"","PartNumber":2},{"PartNumber":1,"ETag":"e1"}]}`)
	if c.op != uppyComplete || len(c.whole) != 2 || c.whole[0].Number != 1 || c.whole[1].ETag != `"e2"` {
		t.Errorf("%+v", c)
	}
	if c = read("GET", "multipart/"+id+"/batch", "key=k&partNumbers=4,6", ""); c.op != uppyBatch || partRanges(c.parts) != "4,6" {
		t.Errorf("%+v", c)
	}
	if c = read("GET", "multipart/"+id+"/10000", "key=k", ""); c.op != uppyPart || c.parts[0].Number != 10_000 {
		t.Errorf("%+v", c)
	}
	if c = read("DELETE", "multipart/"+id, "key=k", ""); c.op != uppyAbort {
		t.Errorf("%+v", c)
	}
	for body, op := range map[string]uppyOp{
		`{"method":"PUT","key":"k","contentType":"image/png"}`:                         uppySignPut,
		`{"method":"POST","key":"k"}`:                                                  uppySignCreate,
		`{"method":"PUT","key":"k","uploadId":"a.b_c-","partNumber":3}`:                uppySignPart,
		`{"method":"POST","key":"k","uploadId":"u"}`:                                   uppySignComplete,
		`{"method":"GET","key":"k","uploadId":"u","expiresIn":900}`:                    uppySignList,
		`{"method":"DELETE","key":"k","uploadId":"u"}`:                                 uppySignAbort,
		`{"method":"POST","key":"k","contentType":"image/png","size":5}`:               uppySignCreate,
		`{"method":"PUT","key":"k","contentType":"image/png","size":5,"expiresIn":60}`: uppySignPut,
	} {
		if c := read("POST", "sign", "", body); c.op != op {
			t.Errorf("%s is %d", body, c.op)
		}
	}
	if c = read("POST", "confirm", "key=k", ""); c.op != uppyConfirm || c.key != "k" {
		t.Errorf("%+v", c)
	}
}

// TestUppyCallsRefused: what no client of Uppy's sends. Companion takes a part's
// number with parseInt and looks at no bound.
func TestUppyCallsRefused(t *testing.T) {
	many := make([]string, 1001)
	for i := range many {
		many[i] = fmt.Sprint(i + 1)
	}
	for _, c := range []struct {
		call, body string // METHOD rest?query
		status     int
	}{
		{"GET ", "", 404},
		{"GET params/", "", 404},
		{"GET other", "", 404},
		{"GET multipart/", "", 404},
		{"GET multipart//", "", 404},
		{"GET multipart/x/1/2", "", 404},
		{"POST params", "", 405},
		{"GET multipart", "", 405},
		{"GET sign", "", 405},
		{"DELETE multipart/x/complete", "", 405},
		{"POST multipart/x/1", "", 405},
		{"GET sts", "", 400},

		{"GET params", "", 422},
		{"GET params?filename=", "", 422},
		{"GET params?filename=" + strings.Repeat("a", 1025), "", 422},
		{"GET params?filename=a&filename=b", "", 422},
		{"GET params?filename=a;b", "", 400},
		{"GET params?filename=%zz", "", 400},
		{"GET params?filename=a&key=users/bob/x", "", 422},
		{"GET params?filename=a&metadata[x=1", "", 422},
		{"GET params?filename=a&size=1e3", "", 422},
		{"GET multipart/x", "", 422},
		{"GET multipart/x?key=", "", 422},
		{"GET multipart/x?key=" + strings.Repeat("k", 1025), "", 422},
		{"GET multipart/x?key=k&acl=public-read", "", 422},

		{"GET multipart/x/0?key=k", "", 422},
		{"GET multipart/x/10001?key=k", "", 422},
		{"GET multipart/x/-1?key=k", "", 422},
		{"GET multipart/x/01?key=k", "", 422},
		{"GET multipart/x/+1?key=k", "", 422},
		{"GET multipart/x/1abc?key=k", "", 422},
		{"GET multipart/x/1e3?key=k", "", 422},
		{"GET multipart/x/99999999999999999999?key=k", "", 422},
		{"GET multipart/x/batch?key=k", "", 422},
		{"GET multipart/x/batch?key=k&partNumbers=", "", 422},
		{"GET multipart/x/batch?key=k&partNumbers=1,", "", 422},
		{"GET multipart/x/batch?key=k&partNumbers=1,1", "", 422},
		{"GET multipart/x/batch?key=k&partNumbers=1,10001", "", 422},
		{"GET multipart/x/batch?key=k&partNumbers=" + strings.Join(many, ","), "", 422},

		{"POST multipart", ``, 400},
		{"POST multipart", `[]`, 400},
		{"POST multipart", `{"filename":"a"} {}`, 400},
		{"POST multipart", `{"filename":"a","filename":"b"}`, 400},
		{"POST multipart", `{"filename":"a","file\u006eame":"b"}`, 400},
		{"POST multipart", `{"filename":"a"`, 400},
		{"POST multipart", `{}`, 422},
		{"POST multipart", `{"filename":1}`, 422},
		{"POST multipart", `{"filename":"a","type":1}`, 422},
		{"POST multipart", `{"filename":"a","key":"users/bob/x"}`, 422},
		{"POST multipart", `{"filename":"a","metadata":[]}`, 400},
		{"POST multipart", `{"filename":"a","metadata":{"x":"1","x":"2"}}`, 400},
		{"POST multipart", `{"filename":"` + strings.Repeat("a", maxRequest) + `"}`, 413},
		{"POST multipart?key=k", `{"filename":"a"}`, 422},

		{"POST multipart/x/complete?key=k", `{}`, 422},
		{"POST multipart/x/complete?key=k", `{"parts":null}`, 422},
		{"POST multipart/x/complete?key=k", `{"parts":[]}`, 422},
		{"POST multipart/x/complete?key=k", `{"parts":[null]}`, 400},
		{"POST multipart/x/complete?key=k", `{"parts":[{"PartNumber":1}]}`, 422},
		{"POST multipart/x/complete?key=k", `{"parts":[{"PartNumber":"1","ETag":"e"}]}`, 422},
		{"POST multipart/x/complete?key=k", `{"parts":[{"PartNumber":10001,"ETag":"e"}]}`, 422},
		{"POST multipart/x/complete?key=k", `{"parts":[{"PartNumber":1,"ETag":1}]}`, 422},
		{"POST multipart/x/complete?key=k", `{"parts":[{"PartNumber":1,"ETag":"e"},{"PartNumber":1,"ETag":"f"}]}`, 422},
		{"POST multipart/x/complete?key=k", `{"parts":[` + strings.Repeat(`{},`, 10_000) + `{}]}`, 422},
		{"POST multipart/x/complete?key=k", strings.Repeat(" ", maxPartsComplete+1), 413},

		{"POST sign", `{"method":"PUT"}`, 422},
		{"POST sign", `{"method":"PUT","key":""}`, 422},
		{"POST sign", `{"method":"DELETE","key":"users/bob/x"}`, 422}, // an object's deletion
		{"POST sign", `{"method":"GET","key":"users/bob/x"}`, 422},    // a download
		{"POST sign", `{"method":"HEAD","key":"k","uploadId":"u"}`, 422},
		{"POST sign", `{"method":"put","key":"k"}`, 422},
		{"POST sign", `{"method":"PUT","key":"k","partNumber":1}`, 422},
		{"POST sign", `{"method":"PUT","key":"k","uploadId":"u"}`, 422},
		{"POST sign", `{"method":"PUT","key":"k","uploadId":"u","partNumber":10001}`, 422},
		{"POST sign", `{"method":"PUT","key":"k","uploadId":"u","partNumber":0}`, 422},
		{"POST sign", `{"method":"POST","key":"k","uploadId":"u","partNumber":1}`, 422},
		{"POST sign", `{"method":"POST","key":"k","uploadId":"u\n"}`, 422},
		{"POST sign", `{"method":"POST","key":"k","uploadId":"` + strings.Repeat("u", 1025) + `"}`, 422},
		{"POST sign", `{"method":"PUT","key":"k","bucket":"other"}`, 422},
		{"POST sign", `{"method":"PUT","key":"k","headers":{"x-amz-acl":"public-read"}}`, 422},
		{"POST sign?key=k", `{"method":"PUT","key":"k"}`, 422},
	} {
		method, target, _ := strings.Cut(c.call, " ")
		rest, query, _ := strings.Cut(target, "?")
		_, pr := readUppy(method, rest, query, bodyOf(c.body))
		if pr == nil || pr.status != c.status || pr.status == 405 && pr.allow == nil {
			t.Errorf("%.80s %.80s: %+v, want %d", c.call, c.body, pr, c.status)
		}
	}
}

// FuzzUppyCall: what is taken is within S3's bounds and says, to whoever reads it
// otherwise, the same.
func FuzzUppyCall(f *testing.F) {
	f.Add("GET", "params", "filename=a&type=image%2Fpng&metadata[name]=a", "")
	f.Add("POST", "multipart", "", `{"filename":"a","type":"b/c","metadata":{"a":1}}`)
	f.Add("POST", "multipart/x/complete", "key=k", `{"parts":[{"PartNumber":1,"ETag":"e"}]}`)
	f.Add("GET", "multipart/x/batch", "key=k&partNumbers=1,2", "")
	f.Add("GET", "multipart/x/7", "key=a+b%20c", "")
	f.Add("POST", "sign", "", `{"method":"PUT","key":"k","uploadId":"u","partNumber":1}`)
	f.Fuzz(func(t *testing.T, method, rest, query, body string) {
		c, pr := readUppy(method, rest, query, bodyOf(body))
		if pr != nil {
			if pr.status < 400 || pr.status > 422 || len(pr.field) > 64 {
				t.Fatalf("%+v", pr)
			}
			return
		}
		if c.op == 0 || c.op == uppySign || c.op == uppySTS {
			t.Fatalf("%+v", c)
		}
		if len(c.key) > maxKeySought || len(c.uploadID) > maxUploadID || len(c.whole) > upload.MaxParts || len(c.parts) > maxSignedParts {
			t.Fatalf("without bounds: %+v", c)
		}
		var numbers []int
		for _, p := range c.parts {
			numbers = append(numbers, p.Number)
		}
		for _, p := range c.whole {
			numbers = append(numbers, p.Number)
		}
		slices.Sort(numbers)
		for i, n := range numbers {
			if n < 1 || n > 10_000 || i > 0 && n == numbers[i-1] {
				t.Fatalf("part %d", n)
			}
		}
		if c.op >= uppySignPut {
			var loose struct{ Key, UploadID, Method string }
			if err := json.Unmarshal([]byte(body), &loose); err != nil {
				t.Fatalf("%q is taken: %v", body, err)
			}
			if strings.Count(strings.ToLower(body), "key") == 1 && loose.Key != c.key {
				t.Fatalf("%q is read as of %q", body, c.key)
			}
			return
		}
		if values, err := url.ParseQuery(query); err != nil || values.Get("key") != c.key {
			t.Fatalf("%q is read as of %q", query, c.key)
		}
	})
}
