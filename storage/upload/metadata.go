package upload

import (
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxMetadata is what S3 takes of an object's own metadata, names and values
// together, in bytes.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
const MaxMetadata = 2048

// EncodeMetadata is a value of metadata as headers can carry it: as it is, or
// where it has anything but printable ASCII with single spaces between, in
// encoded words of UTF-8 (RFC 2047), as S3 itself shows such values.
func EncodeMetadata(value string) string {
	if plainMetadata(value) {
		return value
	}
	// An encoded word has at most 75 characters, and whole ones of the text.
	const open, end, room = "=?UTF-8?B?", "?=", (75 - 12) / 4 * 3
	value = strings.ToValidUTF8(value, "\ufffd")
	var words []string
	for value != "" {
		n := min(room, len(value))
		for n < len(value) && !utf8.RuneStart(value[n]) {
			n--
		}
		words = append(words, open+base64.StdEncoding.EncodeToString([]byte(value[:n]))+end)
		value = value[n:]
	}
	return strings.Join(words, " ")
}

// plainMetadata reports whether a value is the same to whoever signs, sends and
// stores it, and is no encoded word already.
func plainMetadata(v string) bool {
	return headerText(v) && !strings.Contains(v, "=?")
}

// headerText reports whether v passes through signatures and headers as it
// is: they fold spaces, and cannot carry line breaks.
func headerText(v string) bool {
	for i := range len(v) {
		if v[i] < ' ' || v[i] > '~' || v[i] == ' ' && (i == 0 || i == len(v)-1 || v[i-1] == ' ') {
			return false
		}
	}
	return true
}

func checkMetadata(m map[string]string) error {
	total := 0
	for name, value := range m {
		if !metadataName(name) {
			return &InvalidError{"metadata", fmt.Sprintf("has the name %.64q, which is not of a-z, 0-9 and -", name)}
		}
		if !headerText(value) {
			return &InvalidError{"metadata", "has in " + name + " what a header cannot carry"}
		}
		total += len(name) + len(value)
	}
	if total > MaxMetadata {
		return &InvalidError{"metadata", fmt.Sprintf("has more than %d bytes of names and values", MaxMetadata)}
	}
	return nil
}

func metadataName(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return name != "" && len(name) <= 128
}
