package s3

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// A signer signs requests in their query (Signature Version 4) and forms. The
// SDK's v4 signer takes a request apart into maps and puts it together again for
// each URL, which is most of what a URL costs; here all that stays the same for a
// day is made once. Tests hold every byte against the SDK's.
// https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
type signer struct {
	region string
	last   atomic.Pointer[derived]
}

// derived is what signatures of one day by one set of credentials share.
type derived struct {
	secret, token, id, day string // that it is made of

	key        []byte
	macs       sync.Pool // of *signing, with the key
	scope      string
	credential string // the id and its scope
	query      string // begins every query, up to the date
	security   string // follows the expiry: the token, if there is one
}

const algorithm = "AWS4-HMAC-SHA256"

func (s *signer) derive(creds aws.Credentials, date []byte) *derived {
	d := s.last.Load()
	if d != nil && d.day == string(date) && d.id == creds.AccessKeyID && d.secret == creds.SecretAccessKey && d.token == creds.SessionToken {
		return d
	}
	day := string(date)
	d = &derived{secret: creds.SecretAccessKey, token: creds.SessionToken, id: creds.AccessKeyID, day: day}
	d.key = []byte("AWS4" + d.secret)
	for _, part := range []string{day, s.region, "s3", "aws4_request"} {
		d.key = mac(d.key, part)
	}
	d.scope = day + "/" + s.region + "/s3/aws4_request"
	d.credential = d.id + "/" + d.scope
	d.query = "X-Amz-Algorithm=" + algorithm + "&X-Amz-Credential=" + escapeQuery(d.credential) + "&X-Amz-Date="
	if d.token != "" {
		d.security = "&X-Amz-Security-Token=" + escapeQuery(d.token)
	}
	s.last.Store(d)
	return d
}

// presign is a signed URL. The request goes to host and path, which is escaped;
// origin stands before the path.
func (s *signer) presign(creds aws.Credentials, begin time.Time, life time.Duration, r request, origin, host, path string) string {
	var room [len(dateFormat)]byte
	date := begin.AppendFormat(room[:0], dateFormat)
	d := s.derive(creds, date[:len(dayFormat)])
	var some [8]header
	headers := r.signed(some[:0], host)

	canonical := make([]byte, 0, 1024)
	canonical = append(canonical, r.method...)
	canonical = append(canonical, '\n')
	canonical = append(canonical, path...)
	canonical = append(canonical, '\n')
	begins := len(canonical)
	canonical = append(canonical, d.query...)
	canonical = append(canonical, date...)
	canonical = append(canonical, "&X-Amz-Expires="...)
	canonical = strconv.AppendInt(canonical, int64(life/time.Second), 10)
	canonical = append(canonical, d.security...)
	canonical = append(canonical, "&X-Amz-SignedHeaders="...)
	canonical = appendNames(canonical, headers, "%3B")
	canonical = append(canonical, r.query...)
	ends := len(canonical)
	canonical = append(canonical, '\n')
	for _, h := range headers {
		canonical = append(canonical, h.name...)
		canonical = append(canonical, ':')
		canonical = append(canonical, h.value...)
		canonical = append(canonical, '\n')
	}
	canonical = append(canonical, '\n')
	canonical = appendNames(canonical, headers, ";")
	canonical = append(canonical, "\n"+unsignedPayload...)

	sum := sha256.Sum256(canonical)
	m := d.take()
	defer d.macs.Put(m)
	text := append(m.text[:0], algorithm+"\n"...)
	text = append(text, date...)
	text = append(text, '\n')
	text = append(text, d.scope...)
	text = append(text, '\n')
	m.text = hex.AppendEncode(text, sum[:])

	const last = "&X-Amz-Signature="
	url := make([]byte, 0, 2048)
	url = append(url, origin...)
	url = append(url, path...)
	url = append(url, '?')
	url = append(url, canonical[begins:ends]...)
	url = append(url, last...)
	return string(m.appendSignature(url))
}

// sign is the signature of a text in hex digits.
func (d *derived) sign(text string) string {
	m := d.take()
	defer d.macs.Put(m)
	m.text = append(m.text[:0], text...)
	return string(m.appendSignature(nil))
}

// A signing is what signs one text after another with the derived key: to make
// it takes as long as to use it.
type signing struct {
	hash hash.Hash
	text []byte // to be signed
	sum  [sha256.Size]byte
}

// take is one that nobody else uses until it is put back.
func (d *derived) take() *signing {
	if m, ok := d.macs.Get().(*signing); ok {
		return m
	}
	return &signing{hash: hmac.New(sha256.New, d.key)}
}

// appendSignature adds the signature of the text, in hex digits.
func (m *signing) appendSignature(to []byte) []byte {
	m.hash.Reset()
	m.hash.Write(m.text)
	return hex.AppendEncode(to, m.hash.Sum(m.sum[:0]))
}

const (
	dateFormat = "20060102T150405Z"
	dayFormat  = "20060102"
)

// A header is one that is signed.
type header struct{ name, value string }

// signed are the headers that the request is sent with, by name, and those that
// it must be sent without, added to none.
func (r *request) signed(none []header, host string) []header {
	headers := append(none, header{"host", folded(host)})
	if r.size > 0 {
		headers = append(headers, header{"content-length", strconv.FormatInt(r.size, 10)})
	}
	for name, values := range r.header {
		headers = append(headers, header{strings.ToLower(name), folded(values[0])})
	}
	for _, name := range r.unsent {
		headers = append(headers, header{name, ""})
	}
	slices.SortFunc(headers, func(a, b header) int { return strings.Compare(a.name, b.name) })
	return headers
}

// appendNames adds the headers' names with a separator between: they are tokens
// of HTTP, all of whose characters that we have stand for themselves in a query.
func appendNames(to []byte, headers []header, between string) []byte {
	for i, h := range headers {
		if i > 0 {
			to = append(to, between...)
		}
		to = append(to, h.name...)
	}
	return to
}

// folded is a header's value as it is signed: several spaces are one, and none
// is at its ends.
func folded(value string) string {
	if strings.Contains(value, "  ") {
		value = strings.Join(strings.FieldsFunc(value, func(r rune) bool { return r == ' ' }), " ")
	}
	return strings.TrimSpace(value)
}

// escapeQuery escapes a value as signatures want it: a space is %20 and no plus.
func escapeQuery(value string) string { return strings.ReplaceAll(url.QueryEscape(value), "+", "%20") }

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
