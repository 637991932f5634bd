package proxy

import (
	"strings"
	"testing"
)

// unbounded is a policy whose uploads may have any size.
func unbounded() []string {
	return []string{
		"      max_bytes: 25MiB\n", "", "      max_bytes: 10GiB\n", "",
		"quota: {bytes: 2GiB, objects: 1000, window: 24h}", "", "quota: {bytes: 100GiB, objects: 100, window: 24h}", "",
	}
}

// TestMoreThanAnyStoreTakes: a size that no object can have is the caller's
// mistake, also where the policy has no bound, or one that is above what comes in
// one piece.
func TestMoreThanAnyStoreTakes(t *testing.T) {
	s := newServed(t, unbounded()...)
	const piece, whole = "5368709120", "53687091200000"
	for _, c := range []struct{ method, target, body, most string }{
		{"POST", "/v1/uploads/presign", `{"contentType": "image/png", "size": %s}`, piece},
		{"POST", "/v1/uploads/form", `{"contentType": "image/png", "size": %s}`, piece},
		{"POST", "/v1/multipart", `{"contentType": "image/png", "size": %s}`, whole},
		{"GET", "/uppy/s3/params?filename=a.png&type=image/png&size=%s", "", piece},
		{"POST", "/uppy/s3/multipart", `{"filename": "a.png", "type": "image/png", "size": %s}`, whole},
		{"POST", "/uppy/s3/sign", `{"method": "PUT", "key": "a", "contentType": "image/png", "size": %s}`, piece},
		{"POST", "/uppy/s3/sign", `{"method": "POST", "key": "a", "contentType": "image/png", "size": %s}`, whole},
	} {
		with := func(size string) (string, string) {
			return strings.Replace(c.target, "%s", size, 1), strings.Replace(c.body, "%s", size, 1)
		}
		target, body := with(c.most)
		s.ok(nil, c.method, target, "alice", body)
		target, body = with(c.most + "1")
		if a := s.refused(413, codeTooLarge, c.method, target, "alice", body); fieldOf(a) != "size" {
			t.Errorf("%s %s: %s", c.method, target, a.body)
		}
	}
	if p := s.uploads("alice", `{"uploads": [{"contentType": "image/png", "size": 5368709121}]}`); p[0].Status != 413 || p[0].Code != codeTooLarge {
		t.Errorf("%+v", p)
	}
	// The example's own bound is of what comes in parts.
	newServed(t).refused(413, codeTooLarge, "GET", "/uppy/s3/params?filename=a.png&type=image/png&size=6000000000", "alice", "")
}

// TestUnknownQuery: a name in the query that nobody reads is told, as one in the
// body is.
func TestUnknownQuery(t *testing.T) {
	s := newServed(t)
	session := s.begin("alice")
	for _, c := range [][3]string{
		{"POST", "/v1/uploads/presign", onePNG},
		{"POST", "/v1/uploads/form", onePNG},
		{"POST", "/v1/uploads/batch", `{"uploads": [` + onePNG + `]}`},
		{"POST", "/v1/downloads", `{"downloads": [{"key": "users/alice/a"}]}`},
		{"POST", "/v1/multipart", onePNG},
		{"POST", "/v1/multipart/" + session + "/parts", `{"parts": [{"partNumber": 1}]}`},
		{"POST", "/v1/multipart/" + session + "/complete", ""},
		{"POST", "/v1/uploads/" + session + "/confirm", ""},
	} {
		before := len(s.store.sessions)
		if a := s.refused(422, codeInvalidField, c[0], c[1]+"?overwrite=1", "alice", c[2]); fieldOf(a) != "overwrite" || len(s.store.sessions) != before {
			t.Errorf("%s %s: %s", c[0], c[1], a.body)
		}
	}
}
