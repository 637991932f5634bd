package audit

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// killEnv makes the test binary a writer that is to be killed: its value is
// the folder.
const killEnv = "SIDEGATE_KILL_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killEnv); dir != "" {
		appendUntilKilled(dir)
		return
	}
	if dir := os.Getenv(retireEnv); dir != "" {
		retireAndDie(dir, os.Getenv(retireEnv+"_KEY"))
	}
	os.Exit(m.Run())
}

// appendUntilKilled prints each record's id after Wait said that it is kept.
func appendUntilKilled(dir string) {
	l, err := Open(Options{Dir: dir, Segment: 200_000})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for {
				e := request()
				e.Record = NewID()
				ticket, err := l.Append(e)
				if err == nil {
					err = ticket.Wait(context.Background(), Survive(i%2))
				}
				mu.Lock()
				if err != nil {
					fmt.Println("error", err)
				} else {
					fmt.Println(e.Record)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// TestKilled kills a writer at random moments, SIDEGATE_KILLS times (5): every
// event it reported as kept is there once, and the chain is whole.
func TestKilled(t *testing.T) {
	rounds := 5
	if s := os.Getenv("SIDEGATE_KILLS"); s != "" {
		var err error
		if rounds, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	kept := map[string]bool{}
	for range rounds {
		for id := range strings.SplitSeq(runAndKill(t, dir), "\n") {
			if strings.HasPrefix(id, "error") {
				t.Fatal(id)
			}
			if len(id) == 32 { // the last one may be cut by the kill
				kept[id] = true
			}
		}
	}
	l := open(t, Options{Dir: dir})
	if r := l.Recovered(); r != nil {
		t.Logf("a torn line of %d bytes was cut off", len(r.Text))
	}
	closed(t, l)
	verified(t, dir)
	seen := map[string]int{}
	for _, e := range events(t, dir) {
		if e.Record != "" {
			seen[e.Record]++
		}
	}
	for id := range kept {
		if seen[id] != 1 {
			t.Errorf("event %s was acknowledged and is there %d times", id, seen[id])
		}
	}
	t.Logf("%d kills: %d events acknowledged, %d in the log", rounds, len(kept), len(seen))
	if len(kept) < rounds {
		t.Errorf("only %d events were acknowledged", len(kept))
	}
}

// runAndKill is what a writer printed until it was killed under load.
func runAndKill(t *testing.T, dir string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), killEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	first, err := r.ReadString('\n') // it is at work
	if err != nil {
		t.Errorf("the writer ended: %v", err)
	}
	timer := time.AfterFunc(rand.N(60*time.Millisecond), func() { cmd.Process.Kill() })
	defer timer.Stop()
	rest, _ := io.ReadAll(r)
	cmd.Wait()
	return first + string(rest)
}
