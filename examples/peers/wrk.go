package main

import (
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

//go:embed load.lua
var loadScript []byte

// A shot is what wrk says of a slice.
type shot struct {
	requests int
	refused  int // answers of 400 and above
	p50, p99 time.Duration
}

// uploadBody asks for an upload.
const uploadBody = `{"contentType": "image/jpeg", "fileExt": "jpg", "size": 1048576}`

// wrk loads the address with so many connections, by one thread: with two the
// tokens would come twice.
func (l *lab) wrk(ctx context.Context, address string, what load, connections int, long time.Duration) (shot, error) {
	args := []string{"-t1", "-c" + strconv.Itoa(connections), fmt.Sprintf("-d%ds", int(long.Seconds())), "--timeout", "10s", "-s", l.script, "http://" + address, "--", l.tokens[what.tokens]}
	args = append(args, what.request()...)
	out, err := exec.CommandContext(ctx, l.wrkProgram, args...).CombinedOutput()
	if err != nil {
		return shot{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	s, err := parseShot(string(out))
	if err != nil {
		return s, err
	}
	want := 0
	if what.status >= 400 {
		want = s.requests
	}
	if s.refused != want {
		return s, fmt.Errorf("%d of %d answers were 400 or above, and %d should have been", s.refused, s.requests, want)
	}
	return s, nil
}

// request is method, path and body.
func (l load) request() []string {
	if l.presign {
		return []string{"POST", "/v1/uploads/presign", uploadBody}
	}
	return []string{"GET", measuredPath}
}

// parseShot reads the line that load.lua writes at the end. A slice in which a
// connection broke, or nothing was answered, is none.
func parseShot(out string) (shot, error) {
	_, line, found := strings.Cut("\n"+out, "\npeers ")
	line, _, whole := strings.Cut(line, "\n")
	if !found || !whole {
		return shot{}, fmt.Errorf("wrk did not say what it counted: %q", out)
	}
	values := map[string]int{}
	for field := range strings.FieldsSeq(line) {
		name, text, _ := strings.Cut(field, "=")
		n, err := strconv.Atoi(text)
		if _, twice := values[name]; err != nil || twice || n < 0 {
			return shot{}, fmt.Errorf("wrk said %q", line)
		}
		values[name] = n
	}
	for _, name := range []string{"requests", "refused", "broken", "p50", "p99"} {
		if _, there := values[name]; !there {
			return shot{}, fmt.Errorf("wrk did not say %s: %q", name, line)
		}
	}
	if values["requests"] == 0 || values["broken"] > 0 || values["refused"] > values["requests"] || values["p99"] < values["p50"] {
		return shot{}, fmt.Errorf("a slice that is none: %q", line)
	}
	return shot{
		requests: values["requests"], refused: values["refused"],
		p50: time.Duration(values["p50"]) * time.Microsecond, p99: time.Duration(values["p99"]) * time.Microsecond,
	}, nil
}
