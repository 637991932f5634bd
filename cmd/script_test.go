package cmd

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"sidegate": func() {
			os.Exit(ExitStatus(Run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr)))
		},
	})
}

// TestScripts are what an operator types. `exits N command` runs a command that
// must end with that status.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits status command [argument...]")
				}
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got := 0
				var ended *exec.ExitError
				if err := ts.Exec(args[1], args[2:]...); errors.As(err, &ended) {
					got = ended.ExitCode()
				} else {
					ts.Check(err)
				}
				if got != want {
					ts.Fatalf("status %d, want %d", got, want)
				}
			},
		},
	})
}
