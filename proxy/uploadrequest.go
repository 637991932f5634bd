package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"

	"sidegate/policy"
)

// maxRequest bounds the body of a served route.
const maxRequest = 16 << 10

// readUploadRequest reads the body of presign_upload: one flat JSON object
// whose keys are known and stand once. What could be read before a mistake is
// returned with it.
func readUploadRequest(body io.Reader) (policy.UploadRequest, *problem) {
	var u policy.UploadRequest
	data, err := io.ReadAll(io.LimitReader(body, maxRequest+1))
	switch {
	case len(data) > maxRequest:
		return u, &problem{status: http.StatusRequestEntityTooLarge, code: codeTooLarge, detail: "the request's body is larger than 16 KiB", hangUp: true}
	case err != nil:
		return u, &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "the request's body is malformed or stalled", hangUp: true, cause: err}
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return u, malformed("the body must be a JSON object")
	}
	seen := map[string]bool{}
	for dec.More() {
		name, value, err := readMember(dec)
		if err != nil || seen[name] {
			return u, malformed("the body is not a flat JSON object with each key once")
		}
		seen[name] = true
		if v := setField(&u, name, value); v != nil {
			return u, violated(v)
		}
	}
	if _, err := dec.Token(); err != nil {
		return u, malformed("the JSON object does not end")
	}
	if _, err := dec.Token(); err != io.EOF {
		return u, malformed("something follows the JSON object")
	}
	return u, nil
}

func malformed(detail string) *problem {
	return &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: detail}
}

// readMember reads one name and its scalar.
func readMember(dec *json.Decoder) (name string, value any, err error) {
	t, err := dec.Token()
	if err != nil {
		return "", nil, err
	}
	name, ok := t.(string)
	if !ok {
		return "", nil, errors.New("a key is no string")
	}
	if value, err = dec.Token(); err != nil {
		return "", nil, err
	}
	if _, nested := value.(json.Delim); nested {
		return "", nil, errors.New("a value is no scalar")
	}
	return name, value, nil
}

func setField(u *policy.UploadRequest, name string, value any) *policy.Violation {
	wrong := func(text string) *policy.Violation {
		return &policy.Violation{Code: codeInvalidField, Status: http.StatusUnprocessableEntity, Field: name, Text: text}
	}
	text := func(to *string) *policy.Violation {
		s, ok := value.(string)
		if !ok {
			return wrong(name + " is a string")
		}
		*to = s
		return nil
	}
	number := func(to **int64) *policy.Violation {
		n, ok := value.(json.Number)
		if !ok {
			return wrong(name + " is a whole number")
		}
		i, err := strconv.ParseInt(n.String(), 10, 64)
		if err != nil {
			return wrong(name + " is a whole number")
		}
		*to = &i
		return nil
	}
	switch name {
	case "contentType":
		return text(&u.ContentType)
	case "fileExt":
		return text(&u.FileExt)
	case "checksumSha256":
		return text(&u.ChecksumSHA256)
	case "size":
		return number(&u.Size)
	case "expiresSeconds":
		return number(&u.Expires)
	}
	if len(name) > 64 {
		name = name[:64]
	}
	return &policy.Violation{Code: codeInvalidField, Status: http.StatusUnprocessableEntity, Field: name, Text: "a field that is not known"}
}
