package cmd

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

const someMaps = `00400000-0130a000 r-xp 00000000 fe:00 10577282                           /bin/x
Size:              15400 kB
Rss:               13340 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
0130a000-0253d000 r--p 00f0a000 fe:00 10577282                           /bin/x
Anonymous:             4 kB
Swap:                  0 kB
0253d000-02601000 rw-p 0213d000 fe:00 10577282                           /bin/x
Anonymous:             0 kB
Swap:                  0 kB
02601000-05651000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
Swap:                  0 kB
7ffd0000-7ffe0000 r-xp 00000000 fe:00 10577283                           /lib/y
Anonymous:             0 kB
Swap:                  0 kB
7fff0000-7fff1000 r--s 00000000 fe:00 10577282                           /bin/x
Anonymous:             0 kB
Swap:                  0 kB
80000000-80001000 r--p 00000000 fe:00 10577282                           /bin/x
Anonymous:             0 kB
Swap:                  4 kB
80001000-80002000 r--p 00000000 fe:00 10577282                           /bin/x
Anonymous:             0 kB
80002000-80003000 r--p 00000000 fe:00 10577282                           /bin/x
Swap:                  0 kB
80003000-80004000 r--p 00000000 fe:00 10577282                           /bin/x
`

// TestUntouchedRanges: what can be written, what has breakpoints (the second), be they
// swapped out, and what is another's or shared stays; nothing is taken for as in
// the file that is not said to be, whether resident or swapped out.
func TestUntouchedRanges(t *testing.T) {
	got, err := untouchedRanges(strings.NewReader(someMaps), "/bin/x")
	if want := []memoryRange{{0x400000, 0x130a000}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%x, %v; want %x", got, err, want)
	}
	for _, bad := range []string{"x r-xp 0 fe:00 1 /bin/x\n", "2-1 r-xp 0 fe:00 1 /bin/x\n", "0-fffffffffffffffff r-xp 0 fe:00 1 /bin/x\n"} {
		if got, err := untouchedRanges(strings.NewReader(bad), "/bin/x"); err == nil {
			t.Errorf("%q: %x", bad, got)
		}
	}
}

// FuzzUntouchedRanges: a range has a line that says that it is the file's and
// cannot be written.
func FuzzUntouchedRanges(f *testing.F) {
	f.Add([]byte(someMaps))
	if here, err := os.ReadFile("/proc/self/smaps"); err == nil {
		f.Add(here)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		ranges, err := untouchedRanges(bytes.NewReader(text), "/bin/x")
		if err != nil {
			return
		}
		for _, r := range ranges {
			found := false
			for line := range strings.Lines(string(text)) {
				var from, to uintptr
				var rights, offset, device, inode, file string
				_, err := fmt.Sscanf(strings.Join(strings.Fields(line), " "), "%x-%x %s %s %s %s %s", &from, &to, &rights, &offset, &device, &inode, &file)
				found = found || err == nil && (memoryRange{from, to}) == r && !strings.ContainsAny(rights, "ws") && file == "/bin/x"
			}
			if !found || r.from >= r.to {
				t.Errorf("%x is no range of the file's", r)
			}
		}
	})
}

// TestReleaseProgram: pages of the program's file go, and the program goes on.
func TestReleaseProgram(t *testing.T) {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	before := residentOf(t, program)
	if err := releaseProgram(); err != nil {
		t.Fatal(err)
	}
	if after := residentOf(t, program); after >= before {
		t.Errorf("%d KiB of the program's file are mapped, and were before %d", after, before)
	}
}

// residentOf is how much of the file is resident in this process, in KiB.
func residentOf(t *testing.T, file string) (sum int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	ours := false
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if !strings.HasSuffix(fields[0], ":") {
			ours = strings.HasSuffix(strings.TrimSpace(line), file)
		} else if ours && fields[0] == "Rss:" {
			var n int
			if _, err := fmt.Sscan(fields[1], &n); err != nil {
				t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}
