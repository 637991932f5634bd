package audit

import (
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestReferenceNamesEveryField holds docs/audit.md against the Event.
func TestReferenceNamesEveryField(t *testing.T) {
	doc, err := os.ReadFile("../../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	var walk func(reflect.Type, string)
	walk = func(typ reflect.Type, prefix string) {
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "-" { // another field's value as it is written
				continue
			}
			name = prefix + name
			inner := f.Type
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() {
				walk(inner, name+".")
				continue
			}
			names = append(names, name)
		}
	}
	walk(reflect.TypeFor[Event](), "")
	for _, name := range names {
		if !strings.Contains(string(doc), "\n| `"+name+"` | ") {
			t.Errorf("docs/audit.md does not explain %s", name)
		}
	}
	if len(names) < 50 {
		t.Errorf("only %d fields were found", len(names))
	}
}
