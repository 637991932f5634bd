package proxy

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

// slowly is what encoding/json makes of it.
func slowly(t *testing.T, v any, escapeHTML bool) []byte {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(escapeHTML)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// FuzzAnswerJSON: what is written field by field is what encoding/json writes.
func FuzzAnswerJSON(f *testing.F) {
	f.Add("users/a.jpg", "https://store.test/a?x=1&y=<2>", "image/jpeg", int64(900), int64(1e9), int64(5))
	f.Add("", "", "", int64(0), int64(0), int64(0))
	f.Add("\u2028\x00\"\\", "é\xff", "\x7f", int64(-1), int64(-1), int64(999))
	f.Fuzz(func(t *testing.T, a, b, c string, n, seconds, nanos int64) {
		at := time.Unix(seconds%1e11, nanos).UTC()
		texts := map[string]string{a: b, b: c, c: a, "x": a}
		for _, v := range []fast{
			&presigned{Key: a, PutURL: b, PostURL: c, ExpiresSeconds: n, Session: c, Method: b, Headers: texts, Fields: texts, ExpiresAt: at},
			&presigned{Key: c, PutURL: a, Fields: map[string]string{}, ExpiresAt: at},
			&downloadable{a, n, at},
		} {
			got, err := jsonOf(v)
			if at.Year() < 0 || at.Year() > 9999 { // no year of RFC 3339
				if err == nil {
					t.Fatalf("%v is written", at)
				}
				continue
			}
			if want := slowly(t, v, false); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s, %v, want %s", got, err, want)
			}
		}
		body := problemBody{a, b, int(n), c, a, b, c}
		if got, want := append(body.appendJSON(nil), '\n'), slowly(t, body, true); !bytes.Equal(got, want) {
			t.Fatalf("%s, want %s", got, want)
		}
	})
}

// TestAnswersAreWrittenWhole: a field that is added is written, too.
func TestAnswersAreWrittenWhole(t *testing.T) {
	for _, v := range []any{&presigned{}, &downloadable{}, &problemBody{}} {
		at := reflect.ValueOf(v).Elem()
		for i := range at.NumField() {
			switch f := at.Field(i); f.Interface().(type) {
			case string:
				f.SetString("text")
			case int, int64:
				f.SetInt(7)
			case map[string]string:
				f.Set(reflect.ValueOf(map[string]string{"b": "1", "a": "2"}))
			case time.Time:
				f.Set(reflect.ValueOf(time.Unix(1e9, 5).UTC()))
			default:
				t.Fatalf("%s: what kind of field is that?", at.Type().Field(i).Name)
			}
		}
		var got []byte
		if p, ok := v.(*problemBody); ok {
			got = append(p.appendJSON(nil), '\n')
		} else {
			got, _ = jsonOf(v)
		}
		if _, fastly := v.(fast); !fastly && at.Type() != reflect.TypeFor[problemBody]() {
			t.Errorf("%T is written by encoding/json", v)
		}
		if want := slowly(t, v, false); !bytes.Equal(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
