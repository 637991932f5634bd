package trial

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"sidegate/policy"
)

// targetOf is a canonical path as a request line has it: decoding it gives the
// path again. slash is the index of one that comes as %2F, or 0.
func targetOf(path string, slash int) string {
	escape := func(part string) string { return (&url.URL{Path: part}).EscapedPath() }
	if slash > 0 && slash < len(path) {
		return escape(path[:slash]) + "%2F" + escape(path[slash+1:])
	}
	return escape(path)
}

// A served is what a request asks of a route that the gateway answers itself.
// Which fields count depends on the route.
type served struct {
	upload  *policy.UploadRequest // of an upload that is to begin
	key     string                // that the body names, or that of the session
	prefix  string                // that is to be listed; empty: none is named
	expires *int64                // seconds; nil: none are named
	parts   []int                 // that are to be signed; none: the first
	// operation is the audit log's, of what is asked about a session.
	operation string
}

// put gives the request the body and the query by which a route of that
// operation is asked.
func (s *served) put(q *Request, serve string) {
	switch {
	case serve == policy.PresignDownload && s.expires != nil:
		q.Target += query(url.Values{"expiresSeconds": {strconv.FormatInt(*s.expires, 10)}})
	case serve == policy.PresignDownloads:
		one := map[string]any{"key": s.key}
		if s.expires != nil {
			one["expiresSeconds"] = *s.expires
		}
		q.Body = jsonBody(map[string]any{"downloads": []any{one}})
	case serve == policy.ListObjects && s.prefix != "":
		q.Target += query(url.Values{"prefix": {s.prefix}})
	case serve == policy.Uppy:
		s.putUppy(q)
	case serve == policy.PresignUploads && s.upload != nil:
		q.Body = jsonBody(map[string]any{"uploads": []any{uploadFields(s.upload)}})
	case s.upload != nil:
		q.Body = jsonBody(uploadFields(s.upload))
	case serve == policy.Multipart && q.Method == http.MethodPost && strings.HasSuffix(q.Target, "/parts"):
		q.Body = jsonBody(s.partRequests())
	}
}

func (s *served) partRequests() map[string]any {
	out := []any{}
	for _, n := range s.parts {
		out = append(out, map[string]any{"partNumber": n})
	}
	if len(out) == 0 {
		out = append(out, map[string]any{"partNumber": 1})
	}
	body := map[string]any{"parts": out}
	if s.expires != nil {
		body["expiresSeconds"] = *s.expires
	}
	return body
}

// putUppy asks as Uppy's clients do: of an upload by the name of a file, which
// makes no key, and of a session by its key.
func (s *served) putUppy(q *Request) {
	last := q.Target[strings.LastIndexByte(q.Target, '/')+1:]
	signs := q.Method == http.MethodPost && last == "sign" // by which version 6 asks for anything
	switch {
	case s.upload == nil && signs:
		q.Body = jsonBody(s.uppyCall())
	case s.upload == nil:
		s.putUppySession(q, last)
	case signs:
		q.Body = jsonBody(map[string]any{"method": "PUT", "key": uppyFile, "contentType": s.upload.ContentType})
	case q.Method == http.MethodPost:
		fields := map[string]any{"filename": uppyFile, "type": s.upload.ContentType}
		if s.upload.Size != nil {
			fields["size"] = *s.upload.Size
		}
		q.Body = jsonBody(fields)
	default:
		values := url.Values{"filename": {uppyFile}, "type": {s.upload.ContentType}}
		if s.upload.Size != nil {
			values.Set("size", strconv.FormatInt(*s.upload.Size, 10))
		}
		q.Target += query(values)
	}
}

// uppyFile is the name of a file, and stands for a key that is not known.
const uppyFile = "a"

// putUppySession asks about an upload that has begun.
func (s *served) putUppySession(q *Request, last string) {
	values := url.Values{"key": {cmp.Or(s.key, uppyFile)}}
	switch last {
	case "batch":
		values.Set("partNumbers", strconv.Itoa(s.part()))
	case "complete":
		q.Body = jsonBody(map[string]any{"parts": []any{map[string]any{"PartNumber": 1, "ETag": uppyFile}}})
	}
	q.Target += query(values)
}

// uppyCall is the call of S3 that version 6 has signed for an upload that has
// begun.
func (s *served) uppyCall() map[string]any {
	method := map[string]string{"multipart_list": http.MethodGet, "multipart_complete": http.MethodPost, "multipart_abort": http.MethodDelete}[s.operation]
	call := map[string]any{"method": cmp.Or(method, http.MethodPut), "key": cmp.Or(s.key, uppyFile), "uploadId": uppyFile}
	if method == "" {
		call["partNumber"] = s.part()
	}
	return call
}

// part is the first of those that are to be signed.
func (s *served) part() int {
	if len(s.parts) == 0 {
		return 1
	}
	return s.parts[0]
}

// uploadFields are those that presign_upload reads.
func uploadFields(u *policy.UploadRequest) map[string]any {
	fields := map[string]any{"contentType": u.ContentType}
	if u.FileExt != "" {
		fields["fileExt"] = u.FileExt
	}
	if u.Size != nil {
		fields["size"] = *u.Size
	}
	if u.ChecksumSHA256 != "" {
		fields["checksumSha256"] = u.ChecksumSHA256
	}
	if u.ChecksumCRC64 != "" {
		fields["checksumCrc64nvme"] = u.ChecksumCRC64
	}
	if u.PartChecksums != "" {
		fields["partChecksums"] = u.PartChecksums
	}
	if u.Expires != nil {
		fields["expiresSeconds"] = *u.Expires
	}
	return fields
}

func jsonBody(v map[string]any) []byte {
	body, _ := json.Marshal(v) // strings and numbers: it does not fail
	return body
}

func query(values url.Values) string { return "?" + values.Encode() }

// probeRequest is a probe as a request.
func probeRequest(p *policy.Probe) *Request {
	q := &Request{
		Method: p.Method, Target: targetOf(p.Path, p.EncodedSlash), Host: p.Host, IP: p.IP, Time: p.Time,
		Identity: p.Identity, AppCheck: p.AppCheck, Length: p.Length, Lookups: p,
	}
	asks := served{upload: p.Upload, key: p.Key, prefix: p.Prefix, expires: p.Expires}
	asks.put(q, p.Serve)
	if p.WebSocket {
		q.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	}
	return q
}
