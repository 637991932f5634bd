package upload

import (
	"strconv"
	"strings"
	"time"
)

// CursorOf is the cursor of [Index.List] behind s, where s is the last session
// of a page. It is the session's place in its owner's order, newest first and
// then by ID, and holds nothing that the owner does not know.
func CursorOf(s *Session) string {
	return strconv.FormatInt(s.CreatedAt.UnixMicro(), 10) + "." + s.ID
}

// maxCursorID bounds the id of a cursor, in bytes. Ours have 32.
const maxCursorID = 128

// ParseCursor reads what CursorOf wrote: when the session was created, exact to
// the microsecond, and its ID. It is [ErrCursor] for anything else.
func ParseCursor(cursor string) (created time.Time, id string, err error) {
	at, id, ok := strings.Cut(cursor, ".")
	micros, err := strconv.ParseInt(at, 10, 64)
	created = time.UnixMicro(micros).UTC()
	// One place has one spelling, and is a time that stores take (RFC 3339).
	if !ok || err != nil || strconv.FormatInt(micros, 10) != at || created.Year() < 1 || created.Year() > 9999 {
		return time.Time{}, "", ErrCursor
	}
	if id == "" || len(id) > maxCursorID {
		return time.Time{}, "", ErrCursor
	}
	for i := range len(id) {
		c := id[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_' {
			return time.Time{}, "", ErrCursor
		}
	}
	return created, id, nil
}
