package upload

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxKey is the longest object key, in bytes of UTF-8.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
const maxKey = 1024

// CheckKey says with an [InvalidError] why a key must not be signed, or nil.
//
// An object store takes nearly any bytes as a key, but between it and the
// gateway are browsers and proxies that rewrite paths (WHATWG URL, RFC 3986
// section 5.2.4). A key passes only if all of them keep it as it is, and if it
// looks to a reader like what it is: 1 to 1024 bytes of UTF-8 in form NFC; no
// empty, "." or ".." segment, so no slash at either end; no backslash; no
// control, line separator or bidirectional control character.
func CheckKey(key string) error {
	if reason := badKey(key); reason != "" {
		return &InvalidError{Field: "key", Reason: reason}
	}
	return nil
}

func badKey(key string) string {
	switch {
	case key == "":
		return "is empty"
	case len(key) > maxKey:
		return "is longer than " + strconv.Itoa(maxKey) + " bytes"
	case !utf8.ValidString(key):
		return "is not UTF-8"
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch segment {
		case "":
			return "has an empty segment"
		case ".", "..":
			return "has a segment that is . or .."
		}
	}
	for _, r := range key {
		if r == '\\' {
			return "has a backslash"
		}
		if misleading(r) {
			return "has a control character"
		}
	}
	if !norm.NFC.IsNormalString(key) {
		return "is not in Unicode form NFC"
	}
	return ""
}

// misleading tells runes that are invisible and change how text is read: C0,
// C1 and DEL, the line and paragraph separators, the bidirectional controls.
func misleading(r rune) bool {
	return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
}
