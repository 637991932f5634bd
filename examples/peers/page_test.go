package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const (
	docsFolder = "../../docs"
	shortest   = time.Second
)

// rsaTitle begins the last row, which no proxy has.
const rsaTitle = "one check of an RSA-2048 signature, Go's crypto/rsa, without a proxy"

// block is what the page in docs has of it.
func block(t *testing.T, docs, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(docs, pageName))
	if err != nil {
		t.Fatal(err)
	}
	_, within, _, err := cutBlock(string(text), name)
	if err != nil {
		t.Fatal(err)
	}
	return within
}

// firstCells are those of a table's rows, one a line, without its head.
func firstCells(t *testing.T, docs, name string) string {
	t.Helper()
	var out []string
	for i, line := range strings.Split(block(t, docs, name), "\n") {
		cells := strings.Split(line, " | ")
		if i > 1 {
			out = append(out, strings.TrimPrefix(cells[0], "| "))
		}
	}
	return strings.Join(out, "\n")
}

func titles(r report) string {
	var out []string
	for _, x := range r.results {
		out = append(out, x.title)
	}
	return strings.Join(append(out, rsaTitle), "\n")
}

// asMeasured is a report of all rows, with made-up figures, of which those are
// measured that are on the page.
func asMeasured(t *testing.T) report {
	t.Helper()
	table := block(t, docsFolder, "table")
	r := report{machine: "x", rsa: spread{1, 1, 1}}
	for _, row := range rows() {
		x := result{row: row, cpu: spread{1, 1, 1}, each: time.Microsecond}
		if strings.Contains(table, "| "+row.title+" | "+errMissing.Error()) {
			x.missing = errMissing
		}
		r.results = append(r.results, x)
	}
	return r
}

// TestPageHasWhatTheHarnessKnows: a row, a goal or a bar that was added,
// removed or renamed wants `make bench-peers`.
func TestPageHasWhatTheHarnessKnows(t *testing.T) {
	r := asMeasured(t)
	if got, want := firstCells(t, docsFolder, "table"), titles(r); got != want {
		t.Errorf("docs/%s has the rows\n%s\nand not\n%s", pageName, got, want)
	}
	var goals []string
	for _, g := range r.goalList() {
		goals = append(goals, g.what)
	}
	if got, want := firstCells(t, docsFolder, "goals"), strings.Join(goals, "\n"); got != want {
		t.Errorf("docs/%s has the goals\n%s\nand not\n%s", pageName, got, want)
	}
	chart, err := os.ReadFile(filepath.Join(docsFolder, chartName))
	if err != nil {
		t.Fatal(err)
	}
	label := regexp.MustCompile(`text-anchor="end"[^>]*>([^<]*)<`)
	labels := func(svg string) (out []string) {
		for _, m := range label.FindAllStringSubmatch(svg, -1) {
			out = append(out, m[1])
		}
		return out
	}
	if got, want := strings.Join(labels(string(chart)), "\n"), strings.Join(labels(r.chart()), "\n"); got != want {
		t.Errorf("docs/%s has the bars\n%s\nand not\n%s", chartName, got, want)
	}
	if when := regexp.MustCompile(`^Measured on \d{4}-\d\d-\d\d: .+, \d+ cores, Linux `); !when.MatchString(block(t, docsFolder, "machine")) {
		t.Errorf("docs/%s does not say when and where: %s", pageName, block(t, docsFolder, "machine"))
	}
}

// TestChartIsXML: also with what a title could hold.
func TestChartIsXML(t *testing.T) {
	r := asMeasured(t)
	r.results[0].title = `<b> & "c"`
	d := xml.NewDecoder(strings.NewReader(r.chart()))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestQuantiles(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{2, 1}, spread{1.25, 1.5, 1.75}},
		{[]float64{5, 1, 3, 2, 4}, spread{2, 3, 4}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("%v: %v", c.values, got)
		}
	}
}

// TestRatiosAreOfTheSlicesAround: the medians are of ratios, not a ratio of
// medians, since the machine's speed drifts.
func TestRatiosAreOfTheSlicesAround(t *testing.T) {
	p := &proxyRun{row: row{id: "x"}}
	for _, speed := range []time.Duration{1, 5, 2} {
		before, after := slice{cpu: 80 * speed, p99: 8 * speed, lone99: speed}, slice{cpu: 120 * speed, p99: 12 * speed, lone99: 3 * speed}
		p.samples = append(p.samples, sample{slice{cpu: 50 * speed, p99: 20 * speed, lone99: speed}, before.mean(after)})
	}
	r := p.result()
	if r.cpu != (spread{0.5, 0.5, 0.5}) || len(r.rounds) != 3 || r.each != 100 || r.ratio99 != 2 || r.ratioLone99 != 0.5 {
		t.Errorf("%+v", r)
	}
}

// TestGoalsCanBeMissed: a bound says no as well as yes.
func TestGoalsCanBeMissed(t *testing.T) {
	r := asMeasured(t)
	bad := 0
	for _, g := range r.goalList() {
		if !g.met {
			bad++
		}
	}
	if bad == 0 || bad == len(r.goalList()) || !strings.Contains(r.goals(), "| **no** |") || !strings.Contains(r.goals(), "| yes |") {
		t.Errorf("of %d goals %d are missed, at 1.00 each:\n%s", len(r.goalList()), bad, r.goals())
	}
}

func TestComparisons(t *testing.T) {
	all := withOther(rows(), "other")
	r := report{}
	for _, row := range all {
		x := result{row: row, cpu: spread{1, 1, 1}, rounds: []float64{1, 2, 8}}
		if row.other {
			x.cpu.median, x.rounds = 2, []float64{2, 4, 2}
		}
		r.results = append(r.results, x)
	}
	lines := r.comparisons()
	if len(lines) == 0 || len(lines) != len(all)-len(rows()) || lines[0] != "sidegate: 1.000 x-bare, the other program 2.000; beside the other 0.500 (quartiles 0.500-2.250)" {
		t.Errorf("%q", lines)
	}
}
