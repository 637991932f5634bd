package proxy

import (
	"fmt"
	"strings"
)

// A sample is one exchange of the corpus that TestTransparency sends directly
// to an app and through the gateway.
type sample struct {
	name    string
	request string // raw, or several in one write
	answers int    // of the gateway, final ones; 0: one
	answer  string // of the app, raw
	hangUp  bool   // the app ends its answer with the connection
	target  string // of the request line that the app gets, where it is not the one that was sent
	host    string // that the app gets, likewise
}

const plainAnswer = "HTTP/1.1 200 OK\r\nDate: Mon, 02 Mar 2026 12:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

// asks is the shape of a request: its first line, lines of header, and a body.
func asks(first, body string, lines ...string) sample {
	s := sample{answer: plainAnswer}
	if strings.HasPrefix(first, "HEAD ") {
		s.answer = strings.TrimSuffix(plainAnswer, "ok")
	}
	if !strings.HasSuffix(first, "HTTP/1.0") {
		first += " HTTP/1.1"
		lines = append([]string{"Host: gateway.test"}, lines...)
	}
	s.request = first + "\r\n" + strings.Join(append(lines, "", ""), "\r\n") + body
	s.name = fmt.Sprintf("%.150q", s.request)
	return s
}

// answers is the shape of an answer: status, lines of header, and what follows them.
func answers(status, body string, lines ...string) sample {
	s := asks("GET /a", "")
	s.answer = "HTTP/1.1 " + status + "\r\n" + strings.Join(append(lines, "", ""), "\r\n") + body
	s.name = fmt.Sprintf("answer %.150q", s.answer)
	return s
}

// corpus is every shape. Requests first, answers then.
func corpus() (all []sample) {
	all = append(all, methodShapes()...)
	all = append(all, targetShapes()...)
	all = append(all, headerShapes()...)
	all = append(all, bodyShapes()...)
	all = append(all, connectionShapes()...)
	all = append(all, statusShapes()...)
	all = append(all, answerHeaderShapes()...)
	all = append(all, answerBodyShapes()...)
	return append(all, interimShapes()...)
}

func methodShapes() (all []sample) {
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} {
		all = append(all,
			asks(m+" /a", ""),
			asks(m+" /a", "", "Content-Length: 0"),
			asks(m+" /a", "body", "Content-Length: 4"),
			asks(m+" /a", "4\r\nbody\r\n0\r\n\r\n", "Transfer-Encoding: chunked"))
	}
	return all
}

func targetShapes() (all []sample) {
	for _, t := range []struct{ sent, got string }{
		{"/", ""}, {"/a", ""}, {"/a/", ""}, {"/a/b/c", ""}, {"/a.b", ""}, {"/a..b", ""}, {"/...", ""}, {"/.well-known/x", ""}, {"/~user", ""}, {"/a-b_c", ""},
		{"/a:b", ""}, {"/a@b", ""}, {"/a!b", ""}, {"/a$b", ""}, {"/a&b=c", ""}, {"/a(b)", ""}, {"/a*", ""}, {"/a+b", ""}, {"/a,b", ""}, {"/a'b", ""},
		{"/%61", "/a"}, {"/a%20b", ""}, {"/a%2Db", "/a-b"}, {"/%7euser", "/~user"}, {"/%C3%BC", ""}, {"/%c3%bc", "/%C3%BC"}, {"/%E2%82%AC/x", ""}, {"/a%22b", ""}, {"/a%3Cb%3E", ""},
		{"/a%5Eb", ""}, {"/a%7Cb", ""}, {"/a%7Bb%7D", ""}, {"/a%60", ""}, {"/a%5Bb%5D", ""}, {"/a%21", "/a!"}, {"/a%3Ab", "/a:b"}, {"/a%40b", "/a@b"}, {"/a%26b", "/a&b"}, {"/a%2Cb", "/a,b"}, {"/a%2Bb", "/a+b"}, {"/a%3Db", "/a=b"}, {"/a%2fb", "/a/b"},
		{"/a?", ""}, {"/a?b", ""}, {"/a?b=", ""}, {"/a?b=c&b=d", ""}, {"/a?=", ""}, {"/a?&&", ""}, {"/a?b=%20+%2B", ""}, {"/a?b=%2F%2f/..//", ""}, {"/a?b=c?d", ""}, {"/a?%C3%bc=%c3%BC", ""},
		{"/a?b[]=1&b[]=2", ""}, {"/a?q=a|b^c`d{e}\"<>", ""}, {"/a?q=\\", ""}, {"/a?%00", ""}, {"/a?u=http://x/y", ""},
		{"http://gateway.test/a?b", "/a?b"}, {"http://GATEWAY.test/a", "/a"},
		{"/" + strings.Repeat("a", 2000), ""}, {"/a?" + strings.Repeat("b=c&", 900), ""},
	} {
		s := asks("GET "+t.sent, "")
		s.target = t.got
		all = append(all, s)
	}
	for sent, got := range map[string]string{"Gateway.TEST": "gateway.test", "gateway.test.": "gateway.test", "gateway.test:8080": "", "127.0.0.1:80": "", "[::1]:8080": "", "a_b.test": ""} {
		s := asks("GET /a", "")
		s.request = strings.Replace(s.request, "Host: gateway.test", "Host: "+sent, 1)
		s.name, s.host = fmt.Sprintf("%q", s.request), got
		all = append(all, s)
	}
	return all
}

func headerShapes() (all []sample) {
	for _, lines := range [][]string{
		// conditions and ranges
		{"If-None-Match: \"a\""}, {"If-None-Match: W/\"a\", \"b\""}, {"If-None-Match: *"}, {"If-Match: \"a\""}, {"If-Match: *"}, {"If-Match: \"a, b\", \"c\""},
		{"If-Modified-Since: Mon, 02 Mar 2026 12:00:00 GMT"}, {"If-Modified-Since: Monday, 02-Mar-26 12:00:00 GMT"}, {"If-Unmodified-Since: Mon Mar  2 12:00:00 2026"}, {"If-Modified-Since: yesterday"},
		{"Range: bytes=0-1"}, {"Range: bytes=-1"}, {"Range: bytes=0-0,2-3, 5-"}, {"Range: bytes=9-1"}, {"Range: lines=1-2"}, {"Range: bytes"}, {"Range: bytes=0-1", "If-Range: \"a\""}, {"Range: bytes=0-1", "If-Range: Mon, 02 Mar 2026 12:00:00 GMT"},
		{"Range: bytes=0-1", "Range: bytes=2-3"},
		// what the answer may be
		{"Accept: */*"}, {"Accept: text/html;q=0.9, */*;q=0.1"}, {"Accept: a/b", "Accept: c/d"}, {"Accept:"}, {"Accept-Encoding: gzip"}, {"Accept-Encoding: gzip, br;q=0.5, zstd"}, {"Accept-Encoding: identity"}, {"Accept-Encoding:"}, {"Accept-Encoding: *;q=0"},
		{"Accept-Language: de-CH, de;q=0.9"}, {"Accept-Charset: utf-8"}, {"Accept-Datetime: x"}, {"Prefer: return=minimal", "Prefer: respond-async"},
		{"Cache-Control: no-cache"}, {"Cache-Control: max-age=0", "Cache-Control: no-store"}, {"Pragma: no-cache"}, {"Max-Forwards: 3"}, {"Via: 1.1 a", "Via: 1.0 b"}, {"Priority: u=1, i"}, {"Upgrade-Insecure-Requests: 1"}, {"Save-Data: on"}, {"DNT: 1"},
		// who asks
		{"User-Agent: curl/8"}, {"User-Agent:"}, {"User-Agent: a (b; c) d/1"}, {"From: a@b"}, {"Referer: http://x/y?z"}, {"Origin: https://x.test"}, {"Origin: null"}, {"Authorization: Basic YTpi"}, {"Authorization: Digest username=\"a\", uri=\"/\""}, {"Authorization: AWS4-HMAC-SHA256 Credential=a/b, Signature=c"},
		{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors"}, {"Sec-CH-UA: \"A\";v=\"1\""}, {"Sec-WebSocket-Protocol: a, b"}, {"X-Requested-With: XMLHttpRequest"}, {"X-Api-Key: k"}, {"X-Goog-Api-Key: k"}, {"X-Amz-Date: 20260302T120000Z"}, {"X-Csrf-Token: t"}, {"Baggage: a=b"}, {"X-B3-TraceId: 1"}, {"X-Cloud-Trace-Context: a/1;o=1"},
		// cookies
		{"Cookie: a=b"}, {"Cookie: a=b; c=d"}, {"Cookie: a=b", "Cookie: c=d"}, {"Cookie: a=\"b c\""}, {"Cookie: a"}, {"Cookie: =a"}, {"Cookie: a=b;c=d;"}, {"Cookie: a=b=c"}, {"Cookie:"}, {"Cookie: \xfc=\xfc"}, {"Cookie: a=" + strings.Repeat("x", 4000)},
		// names and values that are odd and legal
		{"X: 1", "X: 2", "x: 3"}, {"X: 2", "X: 1"}, {"X: 1, 2", "X: 3"}, {"B: 1", "A: 2", "B: 3"}, {"X:"}, {"X: ", "X: a", "X:"}, {"X: \t a \t "}, {"X: a\tb"}, {"X: a  b"}, {"X: \"a\\\"b\""}, {"X: ,"}, {"X: \xfc\x80\xff"}, {"X: ü€"}, {"X: a:b"}, {"X: (a)"}, {"X:a"},
		{"x-lower: 1"}, {"X-UPPER: 1"}, {"ETAG-like: 1"}, {"x-MiXed-cAsE: 1"}, {"a.b: 1"}, {"a_b: 1"}, {"!#$%&'*+-.^_`|~: 1"}, {"1: 1"}, {"-: 1"}, {"X-Long: " + strings.Repeat("a", 8000)}, {strings.Repeat("a", 200) + ": 1"},
		{"Content-Type: text/plain"}, {"Content-Type:"}, {"Content-Disposition: attachment"}, {"Date: Mon, 02 Mar 2026 12:00:00 GMT"}, {"Server: x"}, {"Set-Cookie: a=b"}, {"Location: /x"}, {"Age: 1"}, {"Alt-Used: x"}, {"Link: </x>; rel=y", "Link: </z>"}, {"Warning: 199 - \"x\""},
		// hop by hop
		{"Connection: keep-alive"}, {"Connection: Keep-Alive", "Keep-Alive: timeout=5"}, {"Connection: X-Gone", "X-Gone: 1", "X-Stays: 1"}, {"Connection: a, b", "Connection: c", "A: 1", "B: 2", "C: 3", "D: 4"}, {"Proxy-Connection: keep-alive"}, {"TE: trailers"}, {"TE: gzip;q=0.5, trailers"}, {"TE: gzip"}, {"Proxy-Authorization: Basic YTpi"}, {"Upgrade: h2c", "Connection: Upgrade"},
		// the gateway's own to say
		{"X-Forwarded-For: 1.2.3.4"}, {"x_forwarded_for: 1.2.3.4"}, {"Forwarded: for=1.2.3.4"}, {"X-Real-IP: 1.2.3.4"}, {"X-Sidegate-Uid: root"}, {"X-Request-Id: mine"}, {"Traceparent: 00-00000000000000000000000000000001-0000000000000001-01", "Tracestate: a=b"}, {"X-HTTP-Method-Override: DELETE"}, {"Authorization: Bearer abc"},
	} {
		all = append(all, asks("GET /a", "", lines...))
	}
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprintf("X-%d: %d", i%50, i)
	}
	return append(all, asks("GET /a", "", many...), asks("GET /a", "", "User-Agent: a", "User-Agent: b"))
}

func bodyShapes() []sample {
	large := strings.Repeat("0123456789abcdef", 1<<16)
	binary := "\x00\xff\r\n\r\n\x80HTTP/1.1 200 OK\r\n\r\n"
	return []sample{
		asks("POST /a", "a=b&c=%20", "Content-Type: application/x-www-form-urlencoded", "Content-Length: 9"),
		asks("POST /a", binary, fmt.Sprint("Content-Length: ", len(binary))),
		asks("POST /a", large, fmt.Sprint("Content-Length: ", len(large))),
		asks("PUT /a", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(large), large), "Transfer-Encoding: chunked"),
		asks("POST /a", "1;a=b;c=\"d\"\r\nx\r\n1;e\r\ny\r\n0;f\r\n\r\n", "Transfer-Encoding: chunked"),
		asks("POST /a", "0A\r\n0123456789\r\n0001\r\nx\r\n000\r\n\r\n", "Transfer-Encoding: CHUNKED"),
		asks("POST /a", "1\r\nx\r\n0\r\nX-Trailer: 1\r\n\r\n", "Transfer-Encoding: chunked", "Trailer: X-Trailer"),
		asks("POST /a", "1\r\nx\r\n0\r\nX-Trailer: 1\r\n\r\n", "Transfer-Encoding: chunked"),
		asks("POST /a", "0\r\n\r\n", "Transfer-Encoding: chunked"),
		asks("GET /a", "0\r\n\r\n", "Transfer-Encoding: chunked"),
		asks("POST /a", "body", "Content-Length: 4", "Expect: 100-continue"),
		asks("PUT /a", "4\r\nbody\r\n0\r\n\r\n", "Transfer-Encoding: chunked", "Expect: 100-Continue"),
		asks("POST /a", "", "Content-Length: 0", "Expect: 100-continue"),
		asks("POST /a", "body", "Content-Length: 4", "Content-Encoding: gzip", "Content-MD5: x", "Digest: y", "Content-Language: de", "Content-Location: /b"),
		asks("PATCH /a", "body", "Content-Length: 04"),
		asks("POST /a", "body", "Content-Length: 4", "Content-Type: multipart/form-data; boundary=\"a b\""),
		asks("PUT /a", "body", "Content-Length: 4", "Content-Range: bytes 0-3/10"),
		asks("POST /a", "\x1f\x8b\x08rest", "Content-Length: 7", "Content-Encoding: gzip"),
	}
}

func connectionShapes() []sample {
	get := "GET /%d HTTP/1.1\r\nHost: gateway.test\r\n\r\n"
	post := "POST /%d HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 4\r\n\r\nbody"
	pipelined := func(requests ...string) sample {
		s := sample{answers: len(requests), answer: plainAnswer}
		for i, r := range requests {
			s.request += fmt.Sprintf(r, i)
		}
		s.name = fmt.Sprintf("pipelined %.150q", s.request)
		return s
	}
	return []sample{
		pipelined(get, get), pipelined(get, get, get, get, get, get, get, get), pipelined(post, get, post), pipelined(get, post, post, get),
		asks("GET /a", "", "Connection: close"),
		asks("GET /a", "", "Connection: CLOSE, X-Gone", "X-Gone: 1"),
		asks("POST /a", "body", "Connection: close", "Content-Length: 4"),
		asks("GET /a HTTP/1.0", "", "Host: gateway.test"),
		asks("POST /a HTTP/1.0", "body", "Host: gateway.test", "Content-Length: 4"),
		asks("GET /a HTTP/1.0", "", "Host: gateway.test", "Connection: keep-alive"),
		asks("HEAD /a HTTP/1.0", "", "Host: gateway.test"),
	}
}

const dated = "Date: Mon, 02 Mar 2026 12:00:00 GMT"

func statusShapes() (all []sample) {
	for _, status := range []string{
		"200 OK", "201 Created", "202 Accepted", "203 Non-Authoritative Information", "206 Partial Content", "207 Multi-Status", "226 IM Used", "299 Odd", "300 Multiple Choices",
		"301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect", "400 Bad Request", "401 Unauthorized", "402 Payment Required", "403 Forbidden", "404 Not Found",
		"405 Method Not Allowed", "406 Not Acceptable", "407 Proxy Authentication Required", "408 Request Timeout", "409 Conflict", "410 Gone", "412 Precondition Failed", "413 Content Too Large", "415 Unsupported Media Type", "416 Range Not Satisfiable",
		"417 Expectation Failed", "418 I'm a teapot", "421 Misdirected Request", "422 Unprocessable Content", "423 Locked", "425 Too Early", "426 Upgrade Required", "428 Precondition Required", "429 Too Many Requests", "431 Request Header Fields Too Large", "444 None", "451 Unavailable For Legal Reasons", "499 Odd",
		"500 Internal Server Error", "501 Not Implemented", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "505 HTTP Version Not Supported", "511 Network Authentication Required", "599 Odd", "600 Odd", "999 Odd",
		"200 Alles klar", "200 ", "200", "404 n\xf6",
	} {
		all = append(all, answers(status, "body", dated, "Content-Length: 4", "Content-Type: text/plain"))
	}
	for _, status := range []string{"204 No Content", "304 Not Modified"} {
		all = append(all,
			answers(status, "", dated), answers(status, "", dated, "Content-Length: 0"), answers(status, "", dated, "Content-Length: 1234"),
			answers(status, "", dated, "ETag: \"a\"", "Cache-Control: max-age=1", "Vary: X", "Last-Modified: x", "Content-Location: /b", "Expires: 0"),
			answers(status, "", dated, "Content-Type: text/plain", "Content-Encoding: gzip"))
	}
	return append(all, answers("205 Reset Content", "", dated, "Content-Length: 0"), answers("205 Reset Content", "0\r\n\r\n", dated, "Transfer-Encoding: chunked"))
}

func answerHeaderShapes() (all []sample) {
	for _, lines := range [][]string{
		{}, {dated}, {"Date: never"}, {"Date:"}, {"Server: x/1 (y)"}, {dated, "Server: a", "Server: b"}, {"Content-Type: text/html"}, {"Content-Type:"}, {"Content-Type: a", "Content-Type: b"}, {"X-Content-Type-Options: nosniff"},
		{"Set-Cookie: a=b; Path=/; HttpOnly"}, {"Set-Cookie: a=b", "Set-Cookie: c=d", "Set-Cookie: a=e"}, {"Set-Cookie: a=b, c"}, {"set-cookie: lower=1"}, {"Set-Cookie:"},
		{"Cache-Control: public, max-age=60"}, {"Cache-Control: no-store"}, {"Cache-Control: private", "Cache-Control: no-cache=\"x\""}, {"Cache-Control:"}, {"Expires: 0"}, {"Pragma: no-cache"}, {"Vary: *"}, {"Vary: Origin", "Vary: Accept-Encoding"}, {"Age: 5"}, {"ETag: \"a\""}, {"ETag: W/\"a\""}, {"ETag: a"}, {"Last-Modified: Mon, 02 Mar 2026 12:00:00 GMT"}, {"Surrogate-Control: max-age=1"}, {"CDN-Cache-Control: max-age=1"}, {"Clear-Site-Data: \"*\""},
		{"Location: /b"}, {"Location: http://x/y"}, {"Location: //x/\xfc"}, {"Content-Location: /c"}, {"Refresh: 1; url=/x"}, {"Link: </x>; rel=preload", "Link: </y>"}, {"Retry-After: 5"}, {"Allow: GET, HEAD"}, {"Allow:"}, {"Accept-Ranges: bytes"}, {"Content-Range: bytes 0-3/10"}, {"Content-Range: bytes */10"},
		{"WWW-Authenticate: Basic realm=\"a\"", "WWW-Authenticate: Digest x"}, {"Authentication-Info: x"}, {"Content-Encoding: gzip"}, {"Content-Encoding: br, gzip"}, {"Content-Language: de"}, {"Content-Disposition: attachment; filename*=UTF-8''%C3%BC"}, {"Content-Security-Policy: default-src 'self'", "Content-Security-Policy: img-src *"}, {"Strict-Transport-Security: max-age=1"}, {"X-Frame-Options: DENY"}, {"Access-Control-Allow-Origin: *"}, {"Access-Control-Allow-Origin: https://x", "Access-Control-Allow-Credentials: true"}, {"Via: 1.1 x"}, {"Alt-Svc: h2=\":443\""}, {"Server-Timing: a;dur=1", "Server-Timing: b"}, {"Warning: 110 - \"x\""}, {"X-Request-Id: the-app's"}, {"X-Accel-Redirect: /x"}, {"X-Sendfile: /x"},
		{"X: 1", "X: 2", "x: 3"}, {"X: 2", "X: 1"}, {"X:", "X: a"}, {"X: a\tb"}, {"X: \xfc\xff"}, {"X: \"a\\\"b\""}, {"x-lower: 1"}, {"X-UPPER: 1"}, {"a_b: 1"}, {"a.b: 1"}, {"!#$%&'*+-.^_`|~: 1"}, {"X-Long: " + strings.Repeat("a", 20000)},
		{"Connection: keep-alive", "Keep-Alive: timeout=5"}, {"Connection: X-Gone", "X-Gone: 1", "X-Stays: 1"}, {"Proxy-Authenticate: Basic"}, {"Upgrade: h2c", "Connection: Upgrade"}, {"Proxy-Connection: close"},
		{"X-Sidegate-Uid: root", "X-Sidegate-Response: true"},
	} {
		all = append(all, answers("200 OK", "body", append(lines, "Content-Length: 4")...))
	}
	return all
}

func answerBodyShapes() []sample {
	large := strings.Repeat("0123456789abcdef", 1<<16)
	html := "<html><body>hello</body></html>"
	zipped := "\x1f\x8b\x08\x00\x00\x00\x00\x00"
	closing := func(s sample) sample { s.hangUp = true; return s }
	asked := func(request, s sample) sample { s.request, s.name = request.request, request.name+" "+s.name; return s }
	head, zip, old := asks("HEAD /a", ""), asks("GET /a", "", "Accept-Encoding: gzip"), asks("GET /a HTTP/1.0", "", "Host: gateway.test")
	part := asks("GET /a", "", "Range: bytes=0-3,6-9")
	multipart := "\r\n--x\r\nContent-Range: bytes 0-3/10\r\n\r\n0123\r\n--x--\r\n"
	return []sample{
		answers("200 OK", "", dated, "Content-Length: 0"),
		answers("200 OK", html, dated, fmt.Sprint("Content-Length: ", len(html))), // no type: none is guessed
		answers("200 OK", "1\r\nx\r\n0\r\n\r\n", dated, "Transfer-Encoding: chunked"),
		answers("200 OK", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(html), html), dated, "Transfer-Encoding: chunked"),
		closing(answers("200 OK", html, dated)),
		closing(answers("200 OK", html, dated, "Connection: close")),
		closing(answers("200 OK", "", dated)),
		closing(answers("404 Not Found", html, dated, "Content-Type: text/html", "Connection: close")),
		answers("200 OK", "0\r\n\r\n", dated, "Transfer-Encoding: chunked"),
		answers("200 OK", "1;a=b\r\nx\r\n01;c\r\ny\r\n00;d\r\n\r\n", dated, "Content-Type: text/plain", "Transfer-Encoding: chunked"),
		answers("200 OK", large, dated, "Content-Type: text/plain", fmt.Sprint("Content-Length: ", len(large))),
		answers("200 OK", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(large), large), dated, "Content-Type: text/plain", "Transfer-Encoding: chunked"),
		closing(answers("200 OK", large, dated, "Content-Type: text/plain")),
		answers("200 OK", "1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n", dated, "Trailer: X-Sum", "Transfer-Encoding: chunked"),
		answers("200 OK", "1\r\nx\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n", dated, "Trailer: X-Sum, X-Other", "Transfer-Encoding: chunked"),
		answers("200 OK", "1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n", dated, "Transfer-Encoding: chunked"),
		answers("200 OK", "1\r\nx\r\n0\r\nX-Sum: 1\r\nX-New: 2\r\n\r\n", dated, "Trailer: X-Sum", "Transfer-Encoding: chunked"),
		answers("200 OK", "0\r\nX-Sum: 1\r\n\r\n", dated, "Trailer: X-Sum", "Transfer-Encoding: chunked"),
		answers("200 OK", "0\r\nX-Sum: 1\r\n\r\n", dated, "Transfer-Encoding: chunked"),
		answers("200 OK", "1\r\nx\r\n0\r\n\r\n", dated, "Trailer: X-Never", "Transfer-Encoding: chunked"),
		answers("200 OK", "1\r\nx\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n", dated, "Trailer: X-Sum", "Transfer-Encoding: chunked"),
		answers("200 OK", "2\r\n\x00\xff\r\n0\r\nGrpc-Status: 0\r\nGrpc-Message: %20\r\n\r\n", dated, "Content-Type: application/grpc-web", "Trailer: Grpc-Status, Grpc-Message", "Transfer-Encoding: chunked"),
		asked(zip, answers("200 OK", zipped, dated, "Content-Encoding: gzip", "Content-Type: text/plain", "Vary: Accept-Encoding", fmt.Sprint("Content-Length: ", len(zipped)))),
		answers("200 OK", zipped, dated, "Content-Encoding: gzip", fmt.Sprint("Content-Length: ", len(zipped))), // unasked
		asked(zip, answers("200 OK", fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(zipped), zipped), dated, "Content-Encoding: gzip", "Transfer-Encoding: chunked")),
		asked(part, answers("206 Partial Content", multipart, dated, "Content-Type: multipart/byteranges; boundary=x", fmt.Sprint("Content-Length: ", len(multipart)))),
		asked(part, answers("416 Range Not Satisfiable", "", dated, "Content-Range: bytes */10", "Content-Length: 0")),
		asked(head, answers("200 OK", "", dated, "Content-Length: 1234", "Content-Type: text/plain")),
		asked(head, answers("200 OK", "", dated, "Content-Length: 0")),
		asked(head, answers("200 OK", "", dated)),
		asked(head, answers("200 OK", "", dated, "Transfer-Encoding: chunked")),
		asked(head, answers("404 Not Found", "", dated, "Content-Length: 9", "ETag: \"a\"")),
		asked(head, answers("204 No Content", "", dated)),
		asked(head, answers("304 Not Modified", "", dated, "ETag: \"a\"")),
		asked(head, answers("301 Moved Permanently", "", dated, "Location: /b", "Content-Length: 5")),
		asked(old, answers("200 OK", "1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n", dated, "Trailer: X-Sum", "Transfer-Encoding: chunked")),
		asked(old, closing(answers("200 OK", html, dated))),
		answers("200 OK", "2b\r\nevent: x\r\nid: 1\r\nretry: 5\r\ndata: {\"a\": 1}\n\n\r\n3\r\n:\n\n\r\n0\r\n\r\n", dated, "Content-Type: text/event-stream", "Cache-Control: no-cache", "X-Accel-Buffering: no", "Transfer-Encoding: chunked"),
		asked(asks("POST /a", "body", "Content-Length: 4"), answers("303 See Other", "", dated, "Location: /b", "Content-Length: 0")),
		asked(asks("DELETE /a", ""), answers("204 No Content", "", dated)),
		asked(asks("OPTIONS /a", ""), answers("200 OK", "", dated, "Allow: GET, PUT", "DAV: 1, 2", "Content-Length: 0")),
		asked(asks("PUT /a", "body", "Content-Length: 4"), answers("201 Created", "", dated, "Location: /a", "ETag: \"1\"", "Content-Length: 0")),
		{name: "HTTP/1.0 answer", request: asks("GET /a", "").request, answer: "HTTP/1.0 200 OK\r\n" + dated + "\r\n\r\nbody", hangUp: true},
		{name: "HTTP/1.0 answer with length", request: asks("GET /a", "").request, answer: "HTTP/1.0 200 OK\r\n" + dated + "\r\nContent-Length: 4\r\n\r\nbody", hangUp: true},
		{name: "bare line feeds", request: asks("GET /a", "").request, answer: "HTTP/1.1 200 OK\n" + dated + "\nContent-Length: 4\nX: 1\n\nbody"},
	}
}

func interimShapes() (all []sample) {
	hints := "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.css>; rel=preload\r\n\r\n"
	final := "HTTP/1.1 200 OK\r\n" + dated + "\r\nContent-Length: 2\r\n\r\nok"
	for name, answer := range map[string]string{
		"one 103": hints + final, "three 103": strings.Repeat(hints, 3) + final, "ten 103": strings.Repeat(hints, 10) + final,
		"102": "HTTP/1.1 102 Processing\r\n\r\n" + final, "104": "HTTP/1.1 104 Upload Resumption Supported\r\nLocation: /b\r\n\r\n" + final, "199": "HTTP/1.1 199 Odd\r\nX: 1\r\nx: 2\r\n\r\n" + final,
		"103 and its header again": hints + strings.Replace(final, "\r\n\r\n", "\r\nLink: </a.css>; rel=preload\r\n\r\n", 1),
		"103 with our name":        "HTTP/1.1 103 Early Hints\r\nX-Sidegate-Uid: root\r\nX: 1\r\n\r\n" + final,
		"103 before 404":           hints + "HTTP/1.1 404 Not Found\r\n" + dated + "\r\nContent-Length: 0\r\n\r\n",
		"103 before 304":           hints + "HTTP/1.1 304 Not Modified\r\n" + dated + "\r\nETag: \"a\"\r\n\r\n",
		"103 before chunks":        hints + "HTTP/1.1 200 OK\r\n" + dated + "\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n",
		"102 and 103":              "HTTP/1.1 102 Processing\r\n\r\n" + hints + final,
		"100 unasked":              "HTTP/1.1 100 Continue\r\n\r\n" + final,
	} {
		all = append(all, sample{name: name, request: asks("GET /a", "").request, answer: answer})
		all = append(all, sample{name: name + ", to a POST", request: asks("POST /a", "body", "Content-Length: 4").request, answer: answer})
	}
	return append(all,
		sample{name: "103 to HTTP/1.0", request: asks("GET /a HTTP/1.0", "", "Host: gateway.test").request, answer: hints + final},
		sample{name: "103 to HEAD", request: asks("HEAD /a", "").request, answer: hints + "HTTP/1.1 200 OK\r\n" + dated + "\r\nContent-Length: 2\r\n\r\n"})
}
