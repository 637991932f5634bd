package firestore

import (
	"context"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"

	"sidegate/storage/audit"
)

// TestDecisionsAreFound holds every way to ask against the same filter over
// the folders that were shipped.
func TestDecisionsAreFound(t *testing.T) {
	log := connect(t, Options{Emulator: emulator(t)}).Audit("auditLog", 0)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	start := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	dirs := []string{t.TempDir(), t.TempDir()}
	for g, dir := range dirs {
		l := open(t, audit.Options{Dir: dir, Sink: log})
		for i := range 120 {
			e := decision(i)
			e.Record, e.Time = fmt.Sprintf("%d-%d", g, i), start.Add(time.Duration(i/3)*time.Second) // some at the same time
			e.Request.IP = fmt.Sprintf("192.0.2.%d", i%5)
			e.Decision.Route, e.Decision.Code = []string{"files", "api"}[i%2], "no_entry"
			if i%4 == 0 {
				e.Decision.Effect = "allow"
			}
			e.Object.Key = fmt.Sprintf("k%d\\x\xff", i%7)
			outcome := &audit.Event{Type: audit.TypeOutcome, Record: e.Record, Outcome: &audit.Outcome{Status: 200 + i}}
			for _, e := range []*audit.Event{e, outcome}[:2-i%10/9] { // some without outcome
				if _, err := l.Append(e); err != nil {
					t.Fatal(err)
				}
			}
		}
		closed(t, l)
	}
	key := audit.Spellings(audit.Printable("k3\\x\xff"))
	for i, f := range []audit.Filter{
		{},
		{UID: []string{"u1\xfe"}},
		{Key: key},
		{Key: key, UID: []string{"u1\xfe", "nobody"}},
		{Route: []string{"api"}},
		{Route: []string{"files"}, Effect: []string{"deny"}},
		{Effect: []string{"allow"}, IP: netip.MustParsePrefix("192.0.2.2/31")},
		{Record: []string{"1-7"}},
		{Bucket: []string{"default"}, Code: []string{"no_entry"}, Namespace: []string{"users"}},
		{UID: []string{"u1"}},
	} {
		for _, span := range [][2]time.Time{{}, {start.Add(5 * time.Second), {}}, {{}, start.Add(30 * time.Second)}, {start.Add(5 * time.Second), start.Add(6 * time.Second)}} {
			f.Since, f.Until = span[0], span[1]
			want := foundIn(t, dirs, &f)
			got := map[string]bool{}
			var records []string
			var last audit.Line
			for l, err := range log.Decisions(ctx, &f, 10) {
				if err != nil {
					t.Fatal(err)
				}
				if len(got) > 0 && l.Time.After(last.Time) {
					t.Errorf("filter %d: not newest first", i)
				}
				last = l
				j := audit.Joined{Decision: l}
				if got[j.Record()] {
					t.Errorf("filter %d: %s twice", i, j.Record())
				}
				got[j.Record()] = true
				records = append(records, j.Record())
			}
			outcomes := map[string]audit.Line{}
			for l, err := range log.Outcomes(ctx, records) {
				if err != nil {
					t.Fatal(err)
				}
				outcomes[(&audit.Joined{Decision: l}).Record()] = l
			}
			for record, outcome := range want {
				if !got[record] || string(outcomes[record].Raw) != outcome {
					t.Errorf("filter %d: %s is there: %v, outcome %s, want %s", i, record, got[record], outcomes[record].Raw, outcome)
				}
			}
			if len(got) != len(want) {
				t.Errorf("filter %d: %d decisions, want %d", i, len(got), len(want))
			}
		}
	}
}

// foundIn are the outcomes, by record, of what the folders hold.
func foundIn(t *testing.T, dirs []string, f *audit.Filter) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range dirs {
		j := &audit.Joiner{Match: f.Match}
		for r, err := range j.Requests(audit.Lines(dir)) {
			if err != nil {
				t.Fatal(err)
			}
			found[r.Record()] = string(r.Outcome.Raw)
		}
	}
	return found
}

// TestLineOfManyLinesIsBroken: JSON may hold line feeds between its tokens, and
// so a document a whole line that would be another event in an export.
func TestLineOfManyLinesIsBroken(t *testing.T) {
	const inner = `{"type":"decision","id":"2","time":"2026-11-23T12:00:00Z","chain":"c","seq":2,"prev":"0000000000000000000000000000000000000000000000000000000000000000"}`
	for _, end := range []string{"", ",\"x\":\n" + inner + "\n"} {
		l, err := audit.ParseLine([]byte(inner[:len(inner)-1] + end + "}"))
		if err != nil {
			t.Fatal(err)
		}
		a := (&Client{}).Audit("auditLog", 0)
		d, err := a.document(&l)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.line(d); audit.IsCorrupt(err) != (end != "") {
			t.Errorf("%q: %v", end, err)
		}
	}
}

// TestSummariesAreFoundByTheirRoutes: a summary is about several routes, and
// still comes with each.
func TestSummariesAreFoundByTheirRoutes(t *testing.T) {
	f := audit.Filter{Route: []string{"files"}}
	if !slices.ContainsFunc(branches(&f), func(b map[string]string) bool { return b["route"] == severalRoutes && b["effect"] == "deny" }) {
		t.Error("summaries are not asked for")
	}
	f.Effect = []string{"allow"}
	if len(branches(&f)) != 1 {
		t.Error("what was allowed is never in a summary")
	}
	l := audit.Line{ID: "1", Raw: []byte(`{"type":"decision","decision":{"effect":"deny"},"summary":{"repeated":2}}`)}
	d, err := (&Client{}).Audit("auditLog", 0).document(&l)
	if err != nil || d.Fields["route"].GetStringValue() != severalRoutes {
		t.Errorf("%v, %v", d, err)
	}
}

// TestTamperedDocumentsHideNoOthers: who can write the collection can make a
// document be named, or be missing; what else is asked for is found.
func TestTamperedDocumentsHideNoOthers(t *testing.T) {
	c := connect(t, Options{Emulator: emulator(t)})
	log := c.Audit("auditLog", 0)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	l := open(t, audit.Options{Dir: t.TempDir(), Sink: log})
	var records []string
	for i := range 64 {
		e := decision(i)
		e.Time = time.Date(2026, 11, 23, 12, 0, i, 0, time.UTC)
		records = append(records, e.Record)
		for _, e := range []*audit.Event{e, {Type: audit.TypeOutcome, Record: e.Record, Time: e.Time, Outcome: &audit.Outcome{Status: 403}}} {
			if _, err := l.Append(e); err != nil {
				t.Fatal(err)
			}
		}
	}
	closed(t, l)
	files := map[string]string{}
	for l, err := range log.Lines(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		files[l.Type+(&audit.Joined{Decision: l}).Record()] = l.File
	}
	set := func(file, field string, v *firestorepb.Value) {
		t.Helper()
		if _, err := c.api.UpdateDocument(ctx, &firestorepb.UpdateDocumentRequest{
			Document:   &firestorepb.Document{Name: c.documents() + "/auditLog/" + file, Fields: map[string]*firestorepb.Value{field: v}},
			UpdateMask: &firestorepb.DocumentMask{FieldPaths: []string{field}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	set(files["decision"+records[0]], "time", text("later than any time"))
	set(files["outcome"+records[61]], "type", text("decision"))
	set(files["outcome"+records[62]], "status", integer(200))

	count := func(lines iter.Seq2[audit.Line, error], most int) (found, broken []string) {
		t.Helper()
		for l, err := range lines {
			switch {
			case err == nil:
				found = append(found, l.Type+(&audit.Joined{Decision: l}).Record())
			case audit.IsCorrupt(err):
				broken = append(broken, l.File)
			default:
				t.Fatal(err)
			}
			if len(found) == most {
				break
			}
		}
		slices.Sort(broken)
		return found, broken
	}
	found, broken := count(log.Decisions(ctx, &audit.Filter{UID: []string{"u0\xfe", "u1\xfe", "u2\xfe"}}, 8), 8)
	for i, r := range found {
		if want := "decision" + records[63-i]; r != want {
			t.Errorf("the newest but %d is %s, want %s", i, r, want)
		}
	}
	if len(found) != 8 || !slices.Equal(broken, []string{files["decision"+records[0]]}) {
		t.Errorf("%d decisions, broken are %v", len(found), broken)
	}
	found, broken = count(log.Outcomes(ctx, records[60:]), -1)
	want := []string{files["outcome"+records[61]], files["outcome"+records[62]]}
	slices.Sort(want)
	if slices.Sort(found); len(found) != 2 || !slices.Contains(found, "outcome"+records[60]) || !slices.Contains(found, "outcome"+records[63]) || !slices.Equal(broken, want) {
		t.Errorf("outcomes %v, broken are %v", found, broken)
	}
	if _, named := tailOf(t, log, 8); len(named) != 3 {
		t.Errorf("the tail names %v", named)
	}
}
