package upload

import (
	"testing"
	"time"
)

func TestCursorComesBack(t *testing.T) {
	s := &Session{ID: NewID(), CreatedAt: time.Date(2026, 3, 2, 10, 0, 0, 123456000, time.UTC)}
	at, id, err := ParseCursor(CursorOf(s))
	if err != nil || id != s.ID || !at.Equal(s.CreatedAt) {
		t.Errorf("%v, %q, %v", at, id, err)
	}
	for _, c := range []string{"", ".", "1", "1.", ".x", "+1.x", "01.x", "-0.x", "1.a/b", "1.a.b", "1.é", "9223372036854775807.x", "1e3.x", "1. x"} {
		if _, _, err := ParseCursor(c); err != ErrCursor {
			t.Errorf("%q: %v", c, err)
		}
	}
}

// What is taken has one spelling, and names one document and no path.
func FuzzCursor(f *testing.F) {
	f.Add("1767225600000000.0123456789abcdef0123456789abcdef")
	f.Add("-1.a")
	f.Fuzz(func(t *testing.T, c string) {
		at, id, err := ParseCursor(c)
		if err != nil {
			if err != ErrCursor {
				t.Errorf("%q: %v", c, err)
			}
			return
		}
		if got := CursorOf(&Session{ID: id, CreatedAt: at}); got != c {
			t.Errorf("%q came back as %q", c, got)
		}
	})
}
