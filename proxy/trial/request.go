package trial

import (
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
	switch {
	case s.upload == nil && s.key != "":
		q.Target += query(url.Values{"key": {s.key}})
	case s.upload == nil:
	case q.Method == http.MethodPost && last == "sign": // by which version 6 asks for anything
		q.Body = jsonBody(map[string]any{"method": "PUT", "key": "a", "contentType": s.upload.ContentType})
	case q.Method == http.MethodPost:
		fields := map[string]any{"filename": "a", "type": s.upload.ContentType}
		if s.upload.Size != nil {
			fields["size"] = *s.upload.Size
		}
		q.Body = jsonBody(fields)
	default:
		values := url.Values{"filename": {"a"}, "type": {s.upload.ContentType}}
		if s.upload.Size != nil {
			values.Set("size", strconv.FormatInt(*s.upload.Size, 10))
		}
		q.Target += query(values)
	}
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
