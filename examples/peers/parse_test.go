package main

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// What wrk 4.1.0 printed.
const wrkSaid = `Running 1s test @ http://127.0.0.1:40123
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     9.05ms   11.77ms 137.62ms   93.19%
    Req/Sec     9.96k     1.22k   11.42k    70.00%
  9914 requests in 1.01s, 11.20MB read
Requests/sec:   9846.12
Transfer/sec:     11.12MB
peers requests=9914 refused=3 broken=0 p50=6123 p99=57890
`

func TestParseShot(t *testing.T) {
	got, err := parseShot(wrkSaid)
	want := shot{requests: 9914, refused: 3, p50: 6123 * time.Microsecond, p99: 57890 * time.Microsecond}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for what, text := range map[string]string{
		"nothing":                    "",
		"not at the end":             strings.TrimSuffix(wrkSaid, "\n"),
		"a connection that broke":    strings.Replace(wrkSaid, "broken=0", "broken=1", 1),
		"no answer":                  strings.Replace(wrkSaid, "requests=9914 refused=3", "requests=0 refused=0", 1),
		"more refused than answered": strings.Replace(wrkSaid, "refused=3", "refused=9915", 1),
		"a p99 below the median":     strings.Replace(wrkSaid, "p99=57890", "p99=1", 1),
		"a figure twice":             strings.Replace(wrkSaid, "p99=57890", "p99=57890 p99=57890", 1),
		"no figure":                  strings.Replace(wrkSaid, " p99=57890", "", 1),
		"not a number":               strings.Replace(wrkSaid, "p99=57890", "p99=-nan", 1),
	} {
		if got, err := parseShot(text); err == nil {
			t.Errorf("%s is taken: %+v", what, got)
		}
	}
}

func FuzzParseShot(f *testing.F) {
	f.Add(wrkSaid)
	f.Fuzz(func(t *testing.T, out string) {
		s, err := parseShot(out)
		if err != nil {
			return
		}
		if s.requests < 1 || s.refused < 0 || s.refused > s.requests || s.p99 < s.p50 {
			t.Errorf("%q: %+v", out, s)
		}
	})
}

func TestParentIn(t *testing.T) {
	for stat, want := range map[string]int{
		"812 (sidegate) S 700 812 812 0 -1 4194304": 700,
		"9 (a) b (c) R 5 9":                         5, // the name is `a) b (c`
		"1 (init) S 0 1 1 0":                        0,
	} {
		if got, err := parentIn(stat); err != nil || got != want {
			t.Errorf("%q: %d, %v", stat, got, err)
		}
	}
	for _, bad := range []string{"", "812 (sidegate) S", "812 (sidegate S 700 1", "812 (x) S y 1", "812 (x) S -1 1"} {
		if got, err := parentIn(bad); err == nil {
			t.Errorf("%q: %d", bad, got)
		}
	}
	parents, err := parentsOf("/proc")
	if err != nil {
		untested(t, err)
	}
	if parents[os.Getpid()] != os.Getppid() {
		t.Errorf("the parent of this process is %d and not %d", parents[os.Getpid()], os.Getppid())
	}
}

// FuzzParentIn: whatever a program calls itself, its parent is the kernel's
// word.
func FuzzParentIn(f *testing.F) {
	f.Add("a) S 7 (b", uint16(5))
	f.Fuzz(func(t *testing.T, name string, parent uint16) {
		stat := "9 (" + name + ") S " + strconv.Itoa(int(parent)) + " 9 9 0 -1"
		if got, err := parentIn(stat); err != nil || got != int(parent) {
			t.Errorf("%q: %d, %v", stat, got, err)
		}
	})
}

func TestMemoryIn(t *testing.T) {
	anonymous, shared, err := memoryIn("Name:\tx\nVmRSS:\t    1300 kB\nRssAnon:\t    1000 kB\nRssFile:\t     200 kB\nRssShmem:\t     100 kB\nThreads:\t7\n")
	if err != nil || anonymous != 1000<<10 || shared != 300<<10 {
		t.Errorf("%d, %d, %v", anonymous, shared, err)
	}
	for _, bad := range []string{"", "RssAnon:\t1 kB\nRssFile:\t1 kB\n", "RssAnon:\t1 MB\nRssFile:\t1 kB\nRssShmem:\t1 kB\n", "RssAnon:\t-1 kB\nRssFile:\t1 kB\nRssShmem:\t1 kB\n"} {
		if a, s, err := memoryIn(bad); err == nil {
			t.Errorf("%q: %d, %d", bad, a, s)
		}
	}
	if n, err := memoryOf([]int{os.Getpid()}); err == nil && n < 1<<20 {
		t.Errorf("this process has %d bytes", n)
	}
}

func FuzzMemoryIn(f *testing.F) {
	f.Add("RssAnon:\t1 kB\nRssFile:\t1 kB\nRssShmem:\t1 kB\n")
	f.Fuzz(func(t *testing.T, status string) {
		if a, s, err := memoryIn(status); err == nil && (a < 0 || s < 0) {
			t.Errorf("%q: %d, %d", status, a, s)
		}
	})
}

func TestReplaceBlock(t *testing.T) {
	begin, end := marks("table")
	page := "a\n" + begin + "old" + end + "\nb\n"
	got, err := replaceBlock(page, "table", "new\nlines")
	if want := "a\n" + begin + "new\nlines" + end + "\nb\n"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	for what, page := range map[string]string{"none": "a\n", "two": page + page, "no end": "a\n" + begin, "the wrong way round": end + "\n" + begin} {
		if got, err := replaceBlock(page, "table", "new"); err == nil {
			t.Errorf("%s: %q", what, got)
		}
	}
}

// FuzzReplaceBlock: what is outside of the block stays as it is, and a second
// run finds the block again.
func FuzzReplaceBlock(f *testing.F) {
	begin, end := marks("table")
	f.Add("a\n"+begin+"old"+end+"b\n", "new")
	f.Fuzz(func(t *testing.T, page, text string) {
		before, _, after, err := cutBlock(page, "table")
		if err != nil || strings.Contains(text, "bench-peers") || strings.Contains(text, "end of table") {
			return
		}
		got, err := replaceBlock(page, "table", text)
		if err != nil {
			t.Fatal(err)
		}
		nowBefore, within, nowAfter, err := cutBlock(got, "table")
		if err != nil || nowBefore != before || within != text || nowAfter != after {
			t.Errorf("%q became %q: %v", page, got, err)
		}
	})
}

func TestVersionIn(t *testing.T) {
	for text, want := range map[string]string{
		"HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/":             "2.6.12-1+deb12u4",
		"nginx version: nginx/1.22.1\n":                                                  "1.22.1",
		"Server version: Apache/2.4.71 (Debian)\nServer built:   2026-10-02T08:00:00\n":  "2.4.71",
		"wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer\nUsage: wrk <opts": "4.1.0-3+b2",
		"2.6.2\n": "2.6.2",
		"none":    "of an unknown version",
	} {
		if got := versionIn(text); got != want {
			t.Errorf("%q: %s", text, got)
		}
	}
}
