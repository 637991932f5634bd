package policy

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// The route that is chosen, and which routes overlap, is held here against
// another implementation of the same rule: net/http's ServeMux, which also
// lets the more specific path win and refuses what overlaps. Two things differ
// by design, and one translation takes care of both: in ours a final slash
// counts for nothing, and {x...} is any number of segments, none included. So
// ServeMux is given paths that all end in a slash: our /a/{x} is its
// /a/{x}/{$}, our /a/{x...} is its /a/{x...}, and whoever asks us for /a or
// /a/ asks it for /a/. On such paths nothing is set aside and ServeMux never
// redirects: the answers must be equal.
//
// ServeMux has no literals after {x...}. But it can be asked from the end:
// in a mirrored set our /{x...}/a/b is its /b/a/{x...}, our /{x}/a is its
// /a/{x}/{$}, and our path /1/2 is its /2/1/.
//
// Left out are patterns with segments on both sides of {x...}, sets of both
// kinds (TestMostSpecificRoute, TestEveryConflictIsFound and FuzzMatch have
// them), and methods and hosts, for which ServeMux's rules are others.

// A muxSet is some patterns, and the literals they are made of.
type muxSet struct {
	seed     uint64
	random   *rand.Rand
	mirrored bool
	literals []string
	theirs   []muxPattern
	texts    []string // the same as a policy writes them
	ours     []pattern
}

// A muxPattern is a pattern as ServeMux has it: {x...} comes last.
type muxPattern struct {
	stem []segment
	rest bool
}

// muxLiterals have what could go wrong on the way to ServeMux and back: upper
// case, a space, letters beyond ASCII, dots.
var muxLiterals = []string{"a", "b", "A", "a b", "é", "..."}

// newMuxSet makes the set of a seed, always the same one. Its alphabet is
// small, so that patterns meet.
func newMuxSet(t *testing.T, seed uint64) *muxSet {
	t.Helper()
	s := &muxSet{seed: seed, random: rand.New(rand.NewPCG(seed, 1))}
	s.mirrored = s.random.IntN(3) == 0
	s.literals = slices.Clone(muxLiterals)
	s.random.Shuffle(len(s.literals), func(i, j int) { s.literals[i], s.literals[j] = s.literals[j], s.literals[i] })
	s.literals = s.literals[:1+s.random.IntN(3)]
	for range 2 + s.random.IntN(5) {
		p := s.newPattern()
		text := s.write(p)
		parsed, err := parsePattern(text)
		if err != nil {
			t.Fatalf("seed %d: %s: %v", seed, text, err)
		}
		s.theirs, s.texts, s.ours = append(s.theirs, p), append(s.texts, text), append(s.ours, parsed)
	}
	return s
}

func (s *muxSet) oneOf(from []string) string { return from[s.random.IntN(len(from))] }

// newPattern is random; most begin as another of the set does, or more
// broadly, so that they lie within each other more often than by chance.
func (s *muxSet) newPattern() muxPattern {
	p := muxPattern{rest: s.random.IntN(3) == 0}
	put := func(literal string) {
		seg := segment{literal: literal}
		// After our {x...} there are literals only.
		if literal == "" && s.mirrored && p.rest {
			seg.literal = s.oneOf(s.literals)
		} else if literal == "" {
			seg.name = fmt.Sprintf("x%d", len(p.stem))
		}
		p.stem = append(p.stem, seg)
	}
	if len(s.theirs) > 0 && s.random.IntN(4) > 0 {
		stem := s.theirs[s.random.IntN(len(s.theirs))].stem
		for _, seg := range stem[:s.random.IntN(len(stem)+1)] {
			if s.random.IntN(4) == 0 {
				seg.literal = ""
			}
			put(seg.literal)
		}
	}
	for range s.random.IntN(5 - len(p.stem)) {
		if s.random.IntN(3) == 0 {
			put("")
		} else {
			put(s.oneOf(s.literals))
		}
	}
	return p
}

// write is the pattern as a policy has it, now and then with a final slash,
// which changes nothing.
func (s *muxSet) write(p muxPattern) string {
	var parts []string
	for _, seg := range p.stem {
		if seg.captures() {
			parts = append(parts, "{"+seg.name+"}")
		} else {
			parts = append(parts, seg.literal)
		}
	}
	if p.rest {
		parts = append(parts, "{rest...}")
	}
	text := pathOf(s.turn(parts))
	if s.random.IntN(4) == 0 && text != "/" {
		text += "/"
	}
	return text
}

// turn makes ours of ServeMux's order and the other way round.
func (s *muxSet) turn(parts []string) []string {
	parts = slices.Clone(parts)
	if s.mirrored {
		slices.Reverse(parts)
	}
	return parts
}

// newPath is what to ask for, in ServeMux's order: random, or what some
// pattern matches, or nearly does.
func (s *muxSet) newPath() []string {
	values := append(slices.Clone(s.literals), "other")
	var out []string
	more := s.random.IntN(6)
	if s.random.IntN(4) > 0 {
		p := s.theirs[s.random.IntN(len(s.theirs))]
		for _, seg := range p.stem {
			if seg.captures() || s.random.IntN(10) == 0 {
				out = append(out, s.oneOf(values))
			} else {
				out = append(out, seg.literal)
			}
		}
		if more = s.random.IntN(3); !p.rest && more < 2 {
			more = 0
		}
	}
	for range more {
		out = append(out, s.oneOf(values))
	}
	return out
}

// A muxChoice is the handler of the pattern with that index.
type muxChoice int

func (muxChoice) ServeHTTP(http.ResponseWriter, *http.Request) {}

const noChoice muxChoice = -1

// register gives ServeMux the patterns with these indices, and reports whether
// it says that some conflict; any other complaint is a mistake of this test.
// end is what follows a pattern without {x...}.
func (s *muxSet) register(end string, indices ...int) (mux *http.ServeMux, conflict bool) {
	defer func() {
		if e := recover(); e != nil {
			if conflict = strings.Contains(fmt.Sprint(e), "conflicts with pattern"); !conflict {
				panic(e)
			}
		}
	}()
	mux = http.NewServeMux()
	for _, i := range indices {
		var b strings.Builder
		for _, seg := range s.theirs[i].stem {
			if seg.captures() {
				b.WriteString("/{" + seg.name + "}")
			} else {
				b.WriteString("/" + url.PathEscape(seg.literal))
			}
		}
		switch {
		case s.theirs[i].rest:
			b.WriteString("/{rest...}")
		case b.Len() == 0:
			b.WriteString("/{$}") // "/" is every path to ServeMux
		default:
			b.WriteString(end)
		}
		mux.Handle(b.String(), muxChoice(i))
	}
	return mux, false
}

func (s *muxSet) registerAll(end string) (mux *http.ServeMux, conflict bool) {
	indices := make([]int, len(s.theirs))
	for i := range indices {
		indices[i] = i
	}
	return s.register(end, indices...)
}

// askMux is ServeMux's choice; ok is false where it would redirect.
func askMux(mux *http.ServeMux, path string) (choice muxChoice, ok bool) {
	h, pattern := mux.Handler(&http.Request{Method: http.MethodGet, Host: "gateway.test", URL: &url.URL{Path: path}})
	if pattern == "" {
		return noChoice, true
	}
	choice, ok = h.(muxChoice)
	return choice, ok
}

func (s *muxSet) show(c muxChoice) string {
	if c == noChoice {
		return "none"
	}
	return s.texts[c]
}

// A muxTally counts what was compared, so that a test that compares next to
// nothing does not pass.
type muxTally struct {
	sets, conflicting, mirrored int
	pairs, conflictingPairs     int
	asked, found, choices       int // choices: several patterns match
	asWritten, bare             int
}

func (n *muxTally) check(t *testing.T, sets, asked int) {
	t.Helper()
	t.Logf("%+v", *n)
	if n.sets < sets || n.asked < asked {
		t.Errorf("compared %d sets and %d requests; at least %d and %d are wanted", n.sets, n.asked, sets, asked)
	}
	if n.conflicting*100 < n.sets*15 || n.conflicting*100 > n.sets*85 {
		t.Errorf("%d of %d sets conflict: too one-sided to tell much", n.conflicting, n.sets)
	}
	if n.found*2 < n.asked || n.choices*6 < n.asked {
		t.Errorf("of %d requests %d are matched by some pattern, %d by several: too few", n.asked, n.found, n.choices)
	}
}

// ask compares the choices of a set without conflicts.
func (s *muxSet) ask(t *testing.T, n *muxTally, mux *http.ServeMux, ours func(path string) muxChoice) {
	t.Helper()
	for range 14 {
		parts := s.newPath()
		asked := strings.TrimSuffix(pathOf(parts), "/") + "/"
		theirs, ok := askMux(mux, asked)
		if !ok {
			t.Fatalf("seed %d: %q: ServeMux redirects %s", s.seed, s.texts, asked)
		}
		parts = s.turn(parts)
		path := pathOf(parts)
		for _, spelling := range []string{path, strings.TrimSuffix(path, "/") + "/"} {
			n.asked++
			if got := ours(spelling); got != theirs {
				t.Fatalf("seed %d: %q: %s is for %s, ServeMux says %s", s.seed, s.texts, spelling, s.show(got), s.show(theirs))
			}
			if theirs != noChoice {
				n.found++
			}
			if s.matching(parts) > 1 {
				n.choices++
			}
		}
	}
}

func (s *muxSet) matching(parts []string) int {
	count := 0
	for _, p := range s.ours {
		if matches(p, parts) {
			count++
		}
	}
	return count
}

// count puts a set into the tally.
func (n *muxTally) count(s *muxSet, conflict bool) {
	n.sets++
	if conflict {
		n.conflicting++
	}
	if s.mirrored {
		n.mirrored++
	}
}

// TestServeMux compares tables: which patterns conflict, pair by pair, and
// which one a path is for.
func TestServeMux(t *testing.T) {
	var n muxTally
	for seed := range uint64(40_000) {
		s := newMuxSet(t, seed)
		table := newTable()
		groups := make([]*group, len(s.ours))
		first := map[*group]muxChoice{}
		for i, p := range s.ours {
			groups[i] = table.place(p)
			if _, taken := first[groups[i]]; !taken {
				first[groups[i]] = muxChoice(i)
			}
		}
		overlap := map[[2]*group]bool{}
		table.settle(func(a, b *group, _ string) {
			overlap[[2]*group{a, b}], overlap[[2]*group{b, a}] = true, true
		})
		mux, theirs := s.registerAll("/{$}")
		if ours := len(overlap) > 0 || len(first) < len(groups); ours != theirs {
			t.Fatalf("seed %d: %q: a conflict in ours: %v, in ServeMux: %v", seed, s.texts, ours, theirs)
		}
		n.count(s, theirs)
		if theirs {
			s.comparePairs(t, &n, func(i, j int) bool {
				return groups[i] == groups[j] || overlap[[2]*group{groups[i], groups[j]}]
			})
			continue
		}
		find := func(path string) muxChoice {
			parts, ok := split(nil, path)
			g := table.find(parts)
			if !ok || g == nil {
				return noChoice
			}
			return first[g]
		}
		s.ask(t, &n, mux, find)
		if !s.mirrored {
			s.askAsWritten(t, &n, find)
		}
	}
	n.check(t, 40_000, 400_000)
	if n.mirrored*4 < n.sets || n.asWritten < 50_000 || n.bare*4 > n.asWritten || n.conflictingPairs*10 < n.pairs {
		t.Error("too few of some kind were compared")
	}
}

// comparePairs sees to it that a set is not said to conflict for another
// reason than ServeMux has.
func (s *muxSet) comparePairs(t *testing.T, n *muxTally, ours func(i, j int) bool) {
	t.Helper()
	for j := range s.theirs {
		for i := range j {
			_, theirs := s.register("/{$}", i, j)
			if got := ours(i, j); got != theirs {
				t.Fatalf("seed %d: %q: %s and %s conflict in ours: %v, in ServeMux: %v", s.seed, s.texts, s.texts[i], s.texts[j], got, theirs)
			}
			n.pairs++
			if theirs {
				n.conflictingPairs++
			}
		}
	}
}

// askAsWritten shows that the agreement does not come from the translation:
// ServeMux gets the patterns as they stand, but for their final slash (which
// is {x...} to it), and paths without one. What is set aside here is the bare
// prefix, for which some {x...} of ours is empty, and which ServeMux redirects
// or gives to another. What does not conflict in ours must not in ServeMux.
func (s *muxSet) askAsWritten(t *testing.T, n *muxTally, ours func(path string) muxChoice) {
	t.Helper()
	mux, conflict := s.registerAll("")
	if conflict {
		t.Fatalf("seed %d: %q: a conflict in ServeMux as they are written", s.seed, s.texts)
	}
	for range 8 {
		parts := s.newPath()
		path := pathOf(parts)
		bare := func(p pattern) bool { return p.rest && len(parts) == len(p.prefix) && matches(p, parts) }
		if len(parts) > 0 && slices.ContainsFunc(s.ours, bare) {
			n.bare++
			continue
		}
		theirs, ok := askMux(mux, path)
		if got := ours(path); !ok || got != theirs {
			t.Fatalf("seed %d: %q as written: %s is for %s, ServeMux says %s (or redirects: %v)", s.seed, s.texts, path, s.show(got), s.show(theirs), !ok)
		}
		n.asWritten++
	}
}

// TestServeMuxLoad compares whole policies: fewer, since YAML takes its time.
func TestServeMuxLoad(t *testing.T) {
	var n muxTally
	for seed := uint64(1 << 32); seed < 1<<32+2_000; seed++ {
		s := newMuxSet(t, seed)
		var b strings.Builder
		b.WriteString(header)
		for i, text := range s.texts {
			fmt.Fprintf(&b, "  - {id: r%d, path: %q, methods: [GET], upstream: app, allow: public}\n", i, text)
		}
		p, err := Load("policy.yaml", []byte(b.String()), testEnv())
		if err != nil {
			for line := range strings.Lines(err.Error()) {
				if !strings.Contains(line, " SG001 ") {
					t.Fatalf("seed %d: %q: %s", seed, s.texts, line)
				}
			}
		}
		mux, theirs := s.registerAll("/{$}")
		if (err != nil) != theirs {
			t.Fatalf("seed %d: %q: ours: %v, a conflict in ServeMux: %v", seed, s.texts, err, theirs)
		}
		n.count(s, theirs)
		if theirs {
			continue
		}
		s.ask(t, &n, mux, func(path string) muxChoice {
			m := p.Match("gateway.test", path, http.MethodGet)
			return muxChoice(slices.Index(p.Routes, m.Route)) // -1 for none
		})
	}
	n.check(t, 2_000, 20_000)
}
