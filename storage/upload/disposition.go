package upload

import (
	"strings"
	"unicode/utf8"
)

// A Disposition is what a browser does with a download. The zero Disposition
// is Attachment: shown inline, a user's file runs as a page of the store.
type Disposition uint8

const (
	Attachment Disposition = iota // it is saved
	Inline                        // it is shown
)

// maxFilename is the longest name of a file that the usual file systems take,
// in bytes.
const maxFilename = 255

// header is the Content-Disposition (RFC 6266) of a download of key, whose
// last segment names the file: once in ASCII for old readers, once in full
// (filename*, RFC 8187). Whatever the key, the value is one line of printable
// ASCII, and what the key brings in stays inside its parameter.
func (d Disposition) header(key string) string {
	name := filename(key)
	var b strings.Builder
	if d == Inline {
		b.WriteString("inline")
	} else {
		b.WriteString("attachment")
	}
	if name == "" {
		return b.String()
	}
	b.WriteString(`; filename="`)
	for _, r := range name {
		// A % in the plain form is decoded by some browsers and not by others.
		if r < ' ' || r > '~' || r == '"' || r == '\\' || r == '%' {
			r = '_'
		}
		b.WriteByte(byte(r))
	}
	b.WriteString(`"; filename*=UTF-8''`)
	const upperhex = "0123456789ABCDEF"
	for i := range len(name) {
		if c := name[i]; attrChar(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(upperhex[c>>4])
			b.WriteByte(upperhex[c&15])
		}
	}
	return b.String()
}

// filename is the last segment of key without what could mislead or break
// out. One too long loses its beginning: the end says what kind of file it is.
func filename(key string) string {
	name := key[strings.LastIndexAny(key, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || misleading(r) {
			return '_'
		}
		return r
	}, name)
	if over := len(name) - maxFilename; over > 0 {
		for !utf8.RuneStart(name[over]) {
			over++
		}
		name = name[over:]
	}
	return name
}

// attrChar tells the bytes that RFC 8187 lets stand for themselves.
func attrChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("!#$&+-.^_`|~", c) >= 0
}
