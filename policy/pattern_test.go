package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// matches is the meaning of a pattern, written as plainly as can be: the other
// ways of matching are held against it.
func matches(p pattern, parts []string) bool {
	if len(parts) < len(p.prefix)+len(p.suffix) || (!p.rest && len(parts) != len(p.prefix)) {
		return false
	}
	for i, s := range p.prefix {
		if s.name == "" && s.literal != parts[i] {
			return false
		}
	}
	return slices.Equal(parts[len(parts)-len(p.suffix):], p.suffix)
}

// somePatterns are all patterns of up to three prefix segments and up to two
// suffix segments over the literals a and b.
func somePatterns(t testing.TB) []pattern {
	t.Helper()
	texts := []string{""}
	for from, depth := 0, 0; depth < 3; depth++ {
		to := len(texts)
		for _, start := range texts[from:to] {
			texts = append(texts, start+"/a", start+"/b", fmt.Sprintf("%s/{x%d}", start, depth))
		}
		from = to
	}
	var out []pattern
	add := func(text string) {
		p, err := parsePattern(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		out = append(out, p)
	}
	for _, text := range texts {
		add(text + "/")
		for _, end := range []string{"", "/a", "/b", "/a/a", "/a/b", "/b/a", "/b/b"} {
			add(text + "/{rest...}" + end)
		}
	}
	return out
}

// somePaths are all paths of up to five segments a, b and z, which is what a
// capture can hold beside the literals.
func somePaths() [][]string {
	out := [][]string{nil}
	for from, depth := 0, 0; depth < 5; depth++ {
		to := len(out)
		for _, start := range out[from:to] {
			for _, s := range []string{"a", "b", "z"} {
				out = append(out, append(slices.Clone(start), s))
			}
		}
		from = to
	}
	return out
}

func pathOf(parts []string) string { return "/" + strings.Join(parts, "/") }

// a set of paths, one bit each.
type pathSet []uint64

func setOf(p pattern, paths [][]string) pathSet {
	set := make(pathSet, len(paths)/64+1)
	for i, path := range paths {
		if matches(p, path) {
			set[i/64] |= 1 << (i % 64)
		}
	}
	return set
}

func (s pathSet) within(other pathSet) bool {
	for i := range s {
		if s[i]&^other[i] != 0 {
			return false
		}
	}
	return true
}

func (s pathSet) meets(other pathSet) bool {
	for i := range s {
		if s[i]&other[i] != 0 {
			return true
		}
	}
	return false
}

func TestPatternAlgebra(t *testing.T) {
	patterns, paths := somePatterns(t), somePaths()
	sets := make([]pathSet, len(patterns))
	for i, p := range patterns {
		sets[i] = setOf(p, paths)
	}
	for i, p := range patterns {
		for j, q := range patterns {
			if len(p.prefix)+len(p.suffix) > 4 || len(q.prefix)+len(q.suffix) > 4 {
				continue // five segments do not tell these apart
			}
			if got, want := p.within(q), sets[i].within(sets[j]); got != want {
				t.Errorf("%s within %s: %v, want %v", p, q, got, want)
			}
			witness, got := p.meet(q)
			if !got && sets[i].meets(sets[j]) {
				t.Errorf("%s and %s meet, and no witness was found", p, q)
			}
			if got {
				parts, ok := split(nil, witness)
				if !ok || !matches(p, parts) || !matches(q, parts) {
					t.Errorf("%s and %s: the witness %s is not matched by both", p, q, witness)
				}
			}
		}
	}
}

// TestMostSpecificRoute builds random tables without conflicts and looks every
// path up: the group found is the least by inclusion, in any order of the file.
func TestMostSpecificRoute(t *testing.T) {
	patterns, paths := somePatterns(t), somePaths()
	random := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		random.Shuffle(len(patterns), func(i, j int) { patterns[i], patterns[j] = patterns[j], patterns[i] })
		var chosen []pattern
		for _, p := range patterns {
			fits := !slices.ContainsFunc(chosen, func(q pattern) bool {
				_, meet := p.meet(q)
				return (meet && !p.within(q) && !q.within(p)) || p.String() == q.String()
			})
			if fits {
				chosen = append(chosen, p)
			}
			if len(chosen) == 40 {
				break
			}
		}
		checkTable(t, chosen, paths)
		slices.Reverse(chosen)
		checkTable(t, chosen, paths)
	}
}

func checkTable(t *testing.T, chosen []pattern, paths [][]string) {
	t.Helper()
	table := newTable()
	for _, p := range chosen {
		table.place(p)
	}
	table.settle(func(a, b *group, witness string) {
		t.Errorf("%s and %s are said to overlap in %s", a.path, b.path, witness)
	})
	for _, path := range paths {
		got, want := "none", "none"
		if g := table.find(path); g != nil {
			got = g.path.String()
		}
		if p, ok := leastOf(chosen, path); ok {
			want = p.String()
		}
		if got != want {
			t.Fatalf("%s: found %s, want %s, of %v", pathOf(path), got, want, chosen)
		}
	}
}

// leastOf is the brute-force matcher.
func leastOf(all []pattern, path []string) (least pattern, found bool) {
	for _, p := range all {
		if matches(p, path) && (!found || p.within(least)) {
			least, found = p, true
		}
	}
	return least, found
}

// TestEveryConflictIsFound holds settle, which looks only near, against a
// comparison of all pairs.
func TestEveryConflictIsFound(t *testing.T) {
	patterns := somePatterns(t)
	random := rand.New(rand.NewPCG(3, 4))
	for range 40 {
		random.Shuffle(len(patterns), func(i, j int) { patterns[i], patterns[j] = patterns[j], patterns[i] })
		some := patterns[:30]
		want := map[string]bool{}
		table := newTable()
		for _, p := range some {
			table.place(p)
			for _, q := range some {
				if _, meet := p.meet(q); meet && !p.within(q) && !q.within(p) {
					want[p.String()+" "+q.String()] = true
				}
			}
		}
		got := map[string]bool{}
		table.settle(func(a, b *group, _ string) { got[a.path.String()+" "+b.path.String()] = true })
		if len(got) != len(want) {
			t.Fatalf("%d conflicts were found of %d", len(got), len(want))
		}
	}
}

func TestPatternText(t *testing.T) {
	for text, want := range map[string]string{
		"a":                                "a path starts with `/`",
		"/a//b":                            "an empty segment (`//`) matches no request",
		"//":                               "an empty segment (`//`) matches no request",
		"/a/../b":                          "the segment `..` matches no request",
		"/.":                               "the segment `.` matches no request",
		"/a{x}":                            "`a{x}`: a capture is a whole segment, {name} or {name...}",
		"/{x}a":                            "`{x}a` is no capture; write {name} or {name...} as a whole segment",
		"/{}":                              "`{}` is no capture; write {name} or {name...} as a whole segment",
		"/{9}":                             "`{9}` is no capture; write {name} or {name...} as a whole segment",
		"/{x...}/{y...}":                   "only one {x...} can be in a path",
		"/{x...}/{y}":                      "after {x...} only literal segments can follow, not {y}",
		"/{x}/{x}":                         "{x} is there twice",
		"/{x}/{x...}":                      "{x} is there twice",
		"/a%20b":                           "`a%20b`: paths are written decoded, without %",
		"/a;b":                             "`a;b`: the characters \\ ; ? # * cannot stand in a path",
		"/a*":                              "`a*`: the characters \\ ; ? # * cannot stand in a path",
		"/a\x00":                           `"a\x00": control characters cannot stand in a path`,
		"/a\u202eb":                        `"a\u202eb": control characters cannot stand in a path`,
		"/" + strings.Repeat("a", maxPath): "longer than 4096 bytes: no request has such a path",
	} {
		_, err := parsePattern(text)
		if err == nil || err.Error() != want {
			t.Errorf("%.40q: %v, want %s", text, err, want)
		}
	}
}

func TestCaptures(t *testing.T) {
	for _, c := range []struct {
		pattern, path string
		want          map[string]string
	}{
		{"/", "/", map[string]string{}},
		{"/u/{uid}", "/u/bob", map[string]string{"uid": "bob"}},
		{"/u/{uid}", "/u/bob/", map[string]string{"uid": "bob"}},
		{"/u/{uid}/", "/u/bob", map[string]string{"uid": "bob"}},
		{"/f/{key...}", "/f", map[string]string{"key": ""}},
		{"/f/{key...}", "/f/", map[string]string{"key": ""}},
		{"/f/{key...}", "/f/a/b c/d", map[string]string{"key": "a/b c/d"}},
		{"/f/{key...}", "/f/a/b/", map[string]string{"key": "a/b"}},
		{"/f/{key...}/download", "/f/download", map[string]string{"key": ""}},
		{"/f/{key...}/download", "/f/a/download/download/", map[string]string{"key": "a/download"}},
		{"/{a}/{b}/{c}/{d}/{e}/{f...}", "/1/2/3/4/5/6/7", map[string]string{"a": "1", "d": "4", "e": "5", "f": "6/7"}},
	} {
		p, err := parsePattern(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		parts, _ := split(nil, c.path)
		if !matches(p, parts) {
			t.Fatalf("%s does not match %s", c.pattern, c.path)
		}
		params := p.capture(parts, c.path)
		for name, want := range c.want {
			if got, ok := params.Get(name); !ok || got != want {
				t.Errorf("%s of %s: {%s} is %q, %v, want %q", c.pattern, c.path, name, got, ok, want)
			}
		}
		if v, ok := params.Get("other"); ok {
			t.Errorf("%s: there is no {other}, got %q", c.pattern, v)
		}
	}
	var none Params
	if v, ok := none.Get("x"); ok || v != "" {
		t.Errorf("the zero Params have %q", v)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("/a/{x}\n/a/b\n/{r...}", "/a/b")
	f.Add("/f/{key...}/download\n/f/{key...}", "/f/a/download/")
	f.Add("/a/{r...}/b\n/a/b/{r...}", "/a/b/b")
	f.Add("/", "//")
	f.Fuzz(func(t *testing.T, patterns, path string) {
		var all []pattern
		table := newTable()
		for i, text := range strings.Split(patterns, "\n") {
			p, err := parsePattern(text)
			if err != nil || i == 20 {
				return
			}
			all = append(all, p)
			table.place(p)
		}
		conflict := false
		table.settle(func(a, b *group, witness string) {
			conflict = true
			parts, ok := split(nil, witness)
			if !ok || !matches(a.path, parts) || !matches(b.path, parts) {
				t.Fatalf("%s and %s: the witness %s is not matched by both", a.path, b.path, witness)
			}
		})
		parts, ok := split(nil, path)
		if conflict || !ok {
			return
		}
		want, found := leastOf(all, parts)
		g := table.find(parts)
		if (g != nil) != found || (found && !(g.path.within(want) && want.within(g.path))) {
			t.Fatalf("%q: found %v, want %s of %v", path, g, want, all)
		}
		if g == nil {
			return
		}
		params := g.path.capture(parts, path)
		for _, name := range g.path.names() {
			single, _ := g.path.capturesAs(name)
			if v, ok := params.Get(name); !ok || (single && (v == "" || strings.Contains(v, "/"))) {
				t.Fatalf("%q on %s: {%s} is %q, %v", path, g.path, name, v, ok)
			}
		}
	})
}
