package audit

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxValue bounds one value, in bytes as it came.
const maxValue = 4 << 10

const hexDigits = "0123456789abcdef"

// plain marks the bytes that stand for themselves in a JSON string.
var plain = func() (t [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// appendString appends s as a JSON string that is safe to show on a terminal:
// what steers one, or reorders text, is \u-escaped. JSON cannot hold bytes that
// are not UTF-8, so such a byte becomes the four characters \xHH of the value,
// and a backslash before an x becomes \x5c, so that Unescape is exact.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	from := 0
	for i := plainPrefix(s); i < len(s); {
		c := s[i]
		if plain[c] {
			i++
			continue
		}
		size := 1
		r := rune(c)
		if c >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(s[i:])
			if !unsafeRune(r) && (r != utf8.RuneError || size > 1) {
				i += size
				continue
			}
		}
		b = append(b, s[from:i]...)
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, '\\', '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		case c == '\\' && i+1 < len(s) && s[i+1] == 'x':
			b = append(b, `\\x5c`...)
		case c == '\\' || c == '"':
			b = append(b, '\\', c)
		case r < 0x10000:
			b = appendU(b, r)
		default:
			r -= 0x10000
			b = appendU(appendU(b, 0xd800+r>>10), 0xdc00+r&0x3ff)
		}
		i += size
		from = i
	}
	return append(append(b, s[from:]...), '"')
}

// plainPrefix is how many bytes at the beginning of s stand for themselves, or
// less: most values have no others, so they are looked at eight at a time.
func plainPrefix(s string) (n int) {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for ; len(s)-n >= 8; n += 8 {
		w := uint64(s[n]) | uint64(s[n+1])<<8 | uint64(s[n+2])<<16 | uint64(s[n+3])<<24 |
			uint64(s[n+4])<<32 | uint64(s[n+5])<<40 | uint64(s[n+6])<<48 | uint64(s[n+7])<<56
		// The top bit of a byte of x-ones&^x is set where that byte of x is zero,
		// and perhaps above one that is; of w-0x20... where it is less.
		quote, backslash, del := w^'"'*ones, w^'\\'*ones, w^0x7f*ones
		odd := w | (w-' '*ones)&^w | (quote-ones)&^quote | (backslash-ones)&^backslash | (del-ones)&^del
		if odd&tops != 0 {
			return n
		}
	}
	return n
}

func appendU(b []byte, r rune) []byte {
	return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// unsafeRune says whether r is invisible to a reader or changes how the rest
// is shown: C1 controls, line and paragraph separators, format characters (the
// bidirectional controls are among them).
func unsafeRune(r rune) bool {
	return r < 0xa0 || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}

// cutAt is how much of s is kept where limit bytes are allowed: whole runes.
func cutAt(s string, limit int) int {
	if len(s) <= limit {
		return len(s)
	}
	for n := limit; n > limit-utf8.UTFMax && n > 0; n-- {
		if utf8.RuneStart(s[n]) {
			return n
		}
	}
	return limit
}

// Unescape gives back the bytes of a value as it came: \xHH becomes that byte.
// The values of an Event from Line.Event are unescaped already; those that
// another JSON parser read from a line are not.
func Unescape(s string) string {
	i := strings.Index(s, `\x`)
	if i < 0 {
		return s
	}
	var b strings.Builder
	for ; i >= 0; i = strings.Index(s, `\x`) {
		if i+4 > len(s) || unhex(s[i+2]) < 0 || unhex(s[i+3]) < 0 {
			b.WriteString(s[:i+2])
			s = s[i+2:]
			continue
		}
		b.WriteString(s[:i])
		b.WriteByte(byte(unhex(s[i+2])<<4 | unhex(s[i+3])))
		s = s[i+4:]
	}
	b.WriteString(s)
	return b.String()
}

func unhex(c byte) int { return strings.IndexByte(hexDigits, c) }

// Printable is s as one line that is safe to show on a terminal: the inside
// of what a line of the ledger holds for it.
func Printable(s string) string {
	n := plainPrefix(s)
	for n < len(s) && plain[s[n]] {
		n++
	}
	if n == len(s) {
		return s
	}
	b := appendString(nil, s)
	return string(b[1 : len(b)-1])
}
