package webhook

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestEveryFieldIsDocumented holds what is told against docs/webhooks.md.
func TestEveryFieldIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, of := range []struct {
		prefix string
		t      reflect.Type
	}{{"", reflect.TypeFor[payload]()}, {"data.", reflect.TypeFor[data]()}} {
		for i := range of.t.NumField() {
			name, _, _ := strings.Cut(of.t.Field(i).Tag.Get("json"), ",")
			if name != "data" {
				names = append(names, of.prefix+name)
			}
		}
	}
	for _, name := range names {
		if !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("docs/webhooks.md does not say what %s is", name)
		}
	}
	documented := 0
	for line := range strings.Lines(string(page)) {
		if field, ok := strings.CutPrefix(line, "| `"); ok {
			documented += strings.Count(strings.SplitN(field, "|", 2)[0], "`")/2 + 1
		}
	}
	if documented != len(names) {
		t.Errorf("docs/webhooks.md documents %d fields, %d are told", documented, len(names))
	}
}

// TestExampleOfTheDocs: the page's example is what is sent, and its signature is
// that of the secret which the page names.
func TestExampleOfTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	var want string
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		want = "POST /hooks/uploads HTTP/1.1\n"
		for _, name := range []string{"content-type", "webhook-id", "webhook-timestamp", "webhook-signature"} {
			want += name + ": " + r.Header.Get(name) + "\n"
		}
		want += "\n" + string(body) + "\n"
	}))
	defer app.Close()
	s := ready()
	s.Key, s.VersionID = "users/u1/a.jpg", ""
	if err := endpoint(t, app.URL+"/hooks/uploads").Notify(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "`"+secret+"`") || !strings.Contains(string(page), "```\n"+want+"```\n") {
		t.Errorf("docs/webhooks.md does not show, for the secret %s:\n%s", secret, want)
	}
}
