// Command demo runs everything that a gateway stands between, on this machine
// and in one process: an issuer of Firebase-shaped tokens, an S3 store that
// verifies signatures (versitygw), a sample app, and the gateway itself
// through the same cmd.Run that the sidegate program calls. It prints tokens
// and curl lines that work as pasted. It is no place for real users: its
// issuer gives a token to whoever asks.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal does not wait
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// errUsage says that the flag package has already told what is wrong.
var errUsage = errors.New("usage")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	data := flags.String("data", "", "keep everything in this `folder` (default: a temporary one, removed at the end)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "demo: unexpected argument %q\n", flags.Arg(0))
		return errUsage
	}
	dir, remove, err := dataFolder(*data)
	if err != nil {
		return err
	}
	defer remove()
	d, err := start(ctx, dir)
	if err != nil {
		return err
	}
	err = d.printLines(stdout)
	if err == nil {
		err = d.wait(ctx)
	}
	return errors.Join(err, d.stop())
}
