package trial

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

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

// uploadBody is the body that presign_upload reads.
func uploadBody(u *policy.UploadRequest) []byte {
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
	if u.Expires != nil {
		fields["expiresSeconds"] = *u.Expires
	}
	body, _ := json.Marshal(fields) // strings and numbers: it does not fail
	return body
}

func expiresQuery(seconds int64) string { return "?expiresSeconds=" + strconv.FormatInt(seconds, 10) }

// probeRequest is a probe as a request.
func probeRequest(p *policy.Probe) *Request {
	q := &Request{
		Method: p.Method, Target: targetOf(p.Path, p.EncodedSlash), Host: p.Host, IP: p.IP, Time: p.Time,
		Identity: p.Identity, AppCheck: p.AppCheck, Length: p.Length, Lookups: p,
	}
	if p.Upload != nil {
		q.Body = uploadBody(p.Upload)
	}
	if p.Expires != nil {
		q.Target += expiresQuery(*p.Expires)
	}
	if p.WebSocket {
		q.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	}
	return q
}
