// Command sidegate is an identity-aware gateway; see package cmd.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"sidegate/cmd"
)

func main() {
	// A standard error or output that nobody reads any more must not end the
	// gateway: with SIGPIPE ignored, writing to it is an error like any other.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// From the first signal on nobody listens: a second one ends the process.
	context.AfterFunc(ctx, stop)
	os.Exit(cmd.ExitStatus(cmd.Run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)))
}
