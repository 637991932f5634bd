package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBuriedOnce: the process dies between the dead-letter file and the resume
// point, also while it writes there: the line is in the file once, and its stub
// in the sink.
func TestBuriedOnce(t *testing.T) {
	bad := fmt.Errorf("%w: too large", ErrUnstorable)
	for name, meddle := range map[string]func(data []byte) []byte{
		"as it was":       func(data []byte) []byte { return data },
		"torn":            func(data []byte) []byte { return data[:len(data)-5] },
		"nothing of it":   func([]byte) []byte { return nil },
		"a torn line":     func(data []byte) []byte { return append(data, data[:len(data)/2]...) },
		"somebody's note": func(data []byte) []byte { return append([]byte("seen, ask Firestore's support\n\n"), data...) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			sink := &fakeSink{each: func(l *Line) error {
				if l.Seq == 7 {
					return bad
				}
				return nil
			}}
			l := open(t, Options{Dir: dir, Sink: sinkWithoutStubs{sink}})
			var last Ticket
			for range 12 {
				var err error
				if last, err = l.Append(request()); err != nil {
					t.Fatal(err)
				}
			}
			if err := last.Wait(t.Context(), Machine); !errors.Is(err, ErrOutage) {
				t.Fatalf("no stub is taken: %v", err)
			}
			over, cancel := context.WithCancel(t.Context())
			cancel()
			l.Close(over)

			name := filepath.Join(dir, deadFile)
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(name, meddle(data), 0o600); err != nil {
				t.Fatal(err)
			}
			l = open(t, Options{Dir: dir, Sink: sink})
			closed(t, l)
			if s := l.Stats(); s.Shipped != 12 || s.Unstorable != 1 {
				t.Errorf("%+v", s)
			}
			if note, rest, ok := strings.Cut(string(readFile(t, name)), "\n\n"); ok { // the note is nobody's to remove
				if !strings.HasPrefix(note, "seen") {
					t.Errorf("%q", note)
				}
				if err := os.WriteFile(name, []byte(rest), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			wantBuried(t, dir, sink)
		})
	}
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// sinkWithoutStubs refuses those.
type sinkWithoutStubs struct{ Sink }

func (s sinkWithoutStubs) Store(ctx context.Context, lines []Line) ([]error, error) {
	for i := range lines {
		if lines[i].Stub {
			return nil, errors.New("unavailable")
		}
	}
	return s.Sink.Store(ctx, lines)
}

func TestDeadLettersOfAnotherChain(t *testing.T) {
	dir := t.TempDir()
	fill(t, Options{Dir: dir}, 3)
	lines, err := Tail(dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	d := deadLetters{dir: dir, have: map[uint64]bool{}}
	for i := range lines {
		for range 2 {
			if err := d.add(&lines[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		chain string
		after uint64
		want  string
	}{
		{lines[0].Chain, 0, "map[1:true 2:true 3:true]"},
		{lines[0].Chain, 2, "map[3:true]"},
		{"another", 0, "map[]"},
	} {
		if d, err = openDeadLetters(dir, c.chain, c.after); err != nil || fmt.Sprint(d.have) != c.want {
			t.Errorf("%+v: %v, %v", c, d.have, err)
		}
	}
	d.have = map[uint64]bool{1: true, 2: true, 3: true}
	if d.forget(2); fmt.Sprint(d.have) != "map[3:true]" {
		t.Error(d.have)
	}
	if err := os.WriteFile(filepath.Join(dir, deadFile), append(make([]byte, 2*MaxLine), '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openDeadLetters(dir, "x", 0); err == nil || !strings.Contains(err.Error(), "move it out") {
		t.Errorf("a line of 2 MB: %v", err)
	}
}

// TestDeadLetterFileCannotBeWritten: the line is not given up before it is
// there, and shipping goes on when it can be.
func TestDeadLetterFileCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	sink := &fakeSink{each: func(l *Line) error {
		if l.Seq == 7 {
			return fmt.Errorf("%w: too large", ErrUnstorable)
		}
		return nil
	}}
	l := open(t, Options{Dir: dir, Sink: sink})
	name := filepath.Join(dir, deadFile)
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	var last Ticket
	for range 12 {
		var err error
		if last, err = l.Append(request()); err != nil {
			t.Fatal(err)
		}
	}
	if err := last.Wait(t.Context(), Machine); !errors.Is(err, ErrOutage) || !strings.Contains(err.Error(), "dead-letter") {
		t.Errorf("%v", err)
	}
	if s := l.Stats(); s.Failures["local"] < outageAfter || s.Unstorable != 0 || s.Shipped >= 7 {
		t.Errorf("%+v", s)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	closed(t, l)
	wantBuried(t, dir, sink)
}

// TestRefusalsAreKnownForAWhile, and do not pile up.
func TestRefusalsAreKnownForAWhile(t *testing.T) {
	r := refusals{}
	for seq := uint64(1); seq < 10_000; seq++ {
		r.add(seq)
		if len(r) > refusedKept || !r[seq] || seq > refusedKept/2 && !r[seq-refusedKept/2] {
			t.Fatalf("at %d: %d are known", seq, len(r))
		}
	}
}

// FuzzOpenDeadLetters: whatever the file holds, it is opened within bounds, ends
// with a line feed afterwards, and what was whole in it is still there.
func FuzzOpenDeadLetters(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte("no line feed"))
	f.Add([]byte("a line\nhalf of the n"))
	f.Add([]byte(`{"type":"decision","id":"a","time":"2026-03-02T12:00:00Z","chain":"c","seq":7,"prev":"` + strings.Repeat("0", 64) + "\"}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		name := filepath.Join(dir, deadFile)
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := openDeadLetters(dir, "c", 6)
		if err != nil {
			if len(data) <= MaxLine {
				t.Fatal(err)
			}
			return
		}
		whole := data[:strings.LastIndexByte(string(data), '\n')+1]
		if got := readFile(t, name); string(got) != string(whole) {
			t.Errorf("%q became %q", data, got)
		}
		for seq := range d.have {
			if seq <= 6 || !strings.Contains(string(whole), fmt.Sprintf(`"seq":%d,`, seq)) && !strings.Contains(string(whole), fmt.Sprintf("%d", seq)) {
				t.Errorf("seq %d is not in %q", seq, whole)
			}
		}
	})
}

// TestADeadLetterBehindAHalfOne: the disk that tore a line also refused to cut
// it off. Retention may have left no other copy of the next one.
func TestADeadLetterBehindAHalfOne(t *testing.T) {
	dir := t.TempDir()
	d, err := openDeadLetters(dir, "c", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, deadFile), []byte("whole\nhal"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.add(&Line{Seq: 1, Raw: []byte("next")}); err != nil {
		t.Fatal(err)
	}
	if got := string(readFile(t, filepath.Join(dir, deadFile))); got != "whole\nnext\n" {
		t.Errorf("%q", got)
	}
}
