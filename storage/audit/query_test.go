package audit

import (
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// linesOf are events as a ledger writes them, a second apart.
func linesOf(t testing.TB, events ...*Event) []Line {
	t.Helper()
	dir := t.TempDir()
	l, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range events {
		timed := *e
		if e.Time.IsZero() {
			timed.Time = noon.Add(time.Duration(i) * time.Second)
		}
		if _, err := l.Append(&timed); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	lines, err := Tail(dir, len(events))
	if err != nil || len(lines) != len(events) {
		t.Fatalf("%d lines of %d events, %v", len(lines), len(events), err)
	}
	return lines
}

// each yields lines from one buffer, as readers of files do.
func each(lines []Line) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		var buf []byte
		for _, l := range lines {
			buf = append(buf[:0], l.Raw...)
			l.Raw = buf
			if !yield(l, nil) {
				return
			}
		}
	}
}

func join(t testing.TB, j *Joiner, lines []Line) (out []string) {
	t.Helper()
	if j.Match == nil {
		j.Match = (&Filter{}).Match
	}
	for r, err := range j.Requests(each(lines)) {
		if err != nil {
			t.Fatal(err)
		}
		e, err := r.Event()
		if err != nil {
			t.Fatal(err)
		}
		status := "unknown"
		if e.Outcome != nil {
			status = fmt.Sprint(e.Outcome.Status)
		}
		if r.NotAwaited {
			status += " not awaited"
		}
		out = append(out, r.Record()+" "+status)
	}
	return out
}

func decided(record string) *Event {
	return &Event{Type: TypeDecision, Record: record, Decision: &Decision{Effect: "allow", Route: "r"}}
}

func ended(record string, status int) *Event {
	return &Event{Type: TypeOutcome, Record: record, Outcome: &Outcome{Status: status}}
}

func system(event string) *Event { return &Event{Type: TypeSystem, System: &System{Event: event}} }

func TestJoinerPairs(t *testing.T) {
	for name, c := range map[string]struct {
		events []*Event
		want   string
		max    int
	}{
		"in order":            {[]*Event{decided("a"), ended("a", 200), decided("b"), ended("b", 404)}, "a 200, b 404", 0},
		"crossed":             {[]*Event{decided("a"), decided("b"), ended("b", 204), ended("a", 200)}, "b 204, a 200", 0},
		"killed":              {[]*Event{decided("a"), system("start"), decided("b"), ended("b", 200)}, "a unknown, b 200", 0},
		"other system events": {[]*Event{decided("a"), system("policy_loaded"), ended("a", 200)}, "a 200", 0},
		"the end":             {[]*Event{decided("a"), decided("b"), ended("b", 200)}, "b 200, a unknown", 0},
		"no decision":         {[]*Event{ended("a", 200)}, "", 0},
		"outcome twice":       {[]*Event{decided("a"), ended("a", 200), ended("a", 500)}, "a 200", 0},
		"decision twice":      {[]*Event{decided("a"), decided("a"), ended("a", 200)}, "a unknown, a 200", 0},
		"summaries":           {[]*Event{decided(""), decided("")}, " unknown,  unknown", 0},
		"too many":            {[]*Event{decided("a"), decided("b"), ended("b", 200), ended("a", 200)}, "a unknown not awaited, b 200", 400},
	} {
		t.Run(name, func(t *testing.T) {
			if got := strings.Join(join(t, &Joiner{max: c.max}, linesOf(t, c.events...)), ", "); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// FuzzJoiner: whatever the order of events, every decision comes out once.
func FuzzJoiner(f *testing.F) {
	f.Add(uint64(1), uint8(20), uint16(0))
	f.Add(uint64(2), uint8(200), uint16(2000))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8, limit uint16) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		var events []*Event
		for i := range int(n) {
			record := fmt.Sprintf("%02x", i)
			events = append(events, decided(record))
			if rnd.IntN(4) > 0 {
				events = append(events, ended(record, 200))
			}
			if rnd.IntN(8) == 0 {
				events = append(events, system("start"))
			}
		}
		rnd.Shuffle(len(events), func(i, k int) { events[i], events[k] = events[k], events[i] })
		j := &Joiner{max: int(limit)}
		var got []string
		for _, s := range join(t, j, linesOf(t, events...)) {
			record, _, _ := strings.Cut(s, " ")
			got = append(got, record)
		}
		slices.Sort(got)
		if len(got) != int(n) || len(slices.Compact(got)) != int(n) {
			t.Errorf("%d requests of %d decisions", len(got), n)
		}
		if j.bytes != 0 || len(j.waiting) != 0 || len(j.order) != 0 {
			t.Errorf("kept %d bytes, %d, %d", j.bytes, len(j.waiting), len(j.order))
		}
	})
}

func TestJoinerForgetsWhatIsDone(t *testing.T) {
	j := &Joiner{Match: (&Filter{}).Match, waiting: map[string]*waitingRequest{}}
	lines := linesOf(t, decided("a"), ended("a", 200))
	open := linesOf(t, decided("open"))[0]
	if _, err := j.take(&open); err != nil {
		t.Fatal(err)
	}
	for range 10_000 {
		for i := range lines {
			if _, err := j.take(&lines[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(j.order) > 2000 || j.bytes != len(open.Raw) {
		t.Errorf("%d entries, %d bytes", len(j.order), j.bytes)
	}
}

func TestFilter(t *testing.T) {
	e := &Event{
		Type: TypeDecision, Record: "a", Request: &Request{Method: "GET", Path: "/u2", IP: "192.0.2.7"},
		Identity: &Identity{Namespace: "users", UID: "u1\x1b[2J\xfe", Actor: "bot"},
		Decision: &Decision{Effect: "deny", Route: "files", Code: "no_entry"},
		Object:   &Object{Bucket: "default", Key: `users\x/u1`},
	}
	line := linesOf(t, e)[0]
	one := func(v string) []string { return []string{v} }
	for name, c := range map[string]struct {
		f    Filter
		want bool
	}{
		"nothing asked":       {Filter{}, true},
		"record":              {Filter{Record: one("a")}, true},
		"namespace":           {Filter{Namespace: one("users")}, true},
		"another namespace":   {Filter{Namespace: one("u")}, false},
		"uid":                 {Filter{UID: one("u1\x1b[2J\xfe")}, true},
		"uid as shown":        {Filter{UID: Spellings(Printable("u1\x1b[2J\xfe"))}, true},
		"uid in the path":     {Filter{UID: one("/u2")}, false},
		"actor":               {Filter{Actor: one("bot")}, true},
		"bucket":              {Filter{Bucket: one("default")}, true},
		"key":                 {Filter{Key: one(`users\x/u1`)}, true},
		"key as shown":        {Filter{Key: Spellings(Printable(`users\x/u1`))}, true},
		"route":               {Filter{Route: one("files")}, true},
		"effect":              {Filter{Effect: one("deny")}, true},
		"another effect":      {Filter{Effect: one("allow")}, false},
		"code":                {Filter{Code: one("no_entry")}, true},
		"address":             {Filter{IP: netip.MustParsePrefix("192.0.2.7/32")}, true},
		"network":             {Filter{IP: netip.MustParsePrefix("192.0.0.0/16")}, true},
		"another network":     {Filter{IP: netip.MustParsePrefix("2001:db8::/32")}, false},
		"since then":          {Filter{Since: noon}, true},
		"until then":          {Filter{Until: noon}, false},
		"since later":         {Filter{Since: noon.Add(1)}, false},
		"until later":         {Filter{Until: noon.Add(1)}, true},
		"all, one of them no": {Filter{UID: one("u1\x1b[2J\xfe"), Route: one("x")}, false},
	} {
		if got, err := c.f.Match(&line); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	outcome := linesOf(t, ended("a", 200))[0]
	if got, _ := (&Filter{}).Match(&outcome); got {
		t.Error("an outcome is no request")
	}
}

func TestSpellings(t *testing.T) {
	for word, want := range map[string][]string{
		"plain":       {"plain"},
		`CORP\user`:   {`CORP\user`}, // no JSON escape
		`CORP\nick`:   {`CORP\nick`, "CORP\nick"},
		`a\u001b`:     {`a\u001b`, "a\x1b"},
		`a\\xfe`:      {`a\\xfe`, "a\xfe"},
		`a"\n`:        {`a"\n`},
		`ends in \`:   {`ends in \`},
		`both\\x5cx1`: {`both\\x5cx1`, `both\x1`},
	} {
		if got := Spellings(word); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
}

// FuzzFilterFinds: who asks for a value, as it came or as it is shown, finds it.
func FuzzFilterFinds(f *testing.F) {
	f.Add("u1")
	f.Add("\x1b[2J\xfe\\x41\"\u202e")
	f.Fuzz(func(t *testing.T, uid string) {
		if uid == "" || len(uid) > maxValue {
			return
		}
		l := linesOf(t, &Event{Type: TypeDecision, Record: "a", Identity: &Identity{UID: uid}})[0]
		for _, word := range []string{uid, Printable(uid)} {
			if ok, err := (&Filter{UID: Spellings(word)}).Match(&l); err != nil || !ok {
				t.Errorf("%q does not find %q: %v", word, uid, err)
			}
		}
	})
}

func TestSummaries(t *testing.T) {
	sum := func(routes, codes map[string]int) *Line {
		return &linesOf(t, &Event{Type: TypeDecision, Request: &Request{IP: "2001:db8:1:2::/64"}, Decision: &Decision{Effect: "deny"},
			Summary: &Summary{Repeated: 120, Source: SourceIP, Routes: routes, Codes: codes}})[0]
	}
	one := func(v string) []string { return []string{v} }
	l := sum(map[string]int{"files": 100, "b": 20}, map[string]int{"no_token": 120})
	many := sum(map[string]int{"b": 20, otherNames: 100}, map[string]int{"no_token": 120})
	for i, c := range []struct {
		l    *Line
		f    Filter
		want bool
	}{
		{l, Filter{Route: one("files")}, true},
		{l, Filter{Code: one("no_token"), Effect: one("deny")}, true},
		{l, Filter{Route: one("no_token")}, false},
		{l, Filter{Effect: one("allow")}, false},
		{l, Filter{IP: netip.MustParsePrefix("2001:db8:1:2::7/128")}, true},
		{l, Filter{IP: netip.MustParsePrefix("2001:db8:1:3::/64")}, false},
		{many, Filter{Route: one("files")}, true}, // it may be among the others
		{many, Filter{Route: one("files"), Code: one("rate")}, false},
		{many, Filter{UID: one("u1")}, false},
	} {
		if got, err := c.f.Match(c.l); got != c.want || err != nil {
			t.Errorf("%d: %v, %v", i, got, err)
		}
	}
}

func TestBrokenLinesAreNamedAndPassed(t *testing.T) {
	lines := linesOf(t, decided("a"), decided("b"), ended("a", 200), ended("b", 200))
	lines[1].Raw = append(lines[1].Raw[:len(lines[1].Raw)-2:len(lines[1].Raw)-2], "x}"...)
	j := &Joiner{Match: (&Filter{Effect: []string{"allow"}}).Match}
	errs, got := 0, 0
	for _, err := range j.Requests(each(lines)) {
		if err != nil {
			errs++
		} else {
			got++
		}
	}
	if errs != 1 || got != 1 {
		t.Errorf("%d errors, %d requests", errs, got)
	}
}
