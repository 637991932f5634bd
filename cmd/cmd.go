// Package cmd is the sidegate program: its commands, its configuration, and
// the wiring of the gateway's parts. Only here is the environment read and
// only here are implementations chosen.
package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// Run is the whole program: it runs the command that args names (without the
// program's name) with the environment env ("NAME=value", the last one of a
// name counts) and returns when it is done, or soon after ctx is. What is wrong
// is written to stderr, and returned for ExitStatus. Several may run in one
// process.
func Run(ctx context.Context, args, env []string, stdout, stderr io.Writer) error {
	p := &program{env: newEnvironment(env), stdout: stdout, stderr: stderr}
	return p.run(ctx, args)
}

func (p *program) run(ctx context.Context, args []string) error {
	root := p.newRoot()
	root.SetArgs(args)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !p.started {
		err = usageError{fmt.Errorf("%w%s", err, p.suggestion(root, err))}
	}
	p.report(err)
	return err
}

// A program is one call of Run.
type program struct {
	env            environment
	stdout, stderr io.Writer
	// started says that the command line was in order: errors before are of
	// usage.
	started bool
	// everyRefusal is for tests: no refusal is only counted.
	everyRefusal bool
}

func (p *program) newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "sidegate",
		Short: "An identity-aware gateway: who may do what, on record",
		Long: `sidegate stands in front of an app: it verifies who calls, decides by a policy,
puts the decision on record, and then forwards the request or signs a URL.`,
		Example:           "  sidegate init\n  sidegate check\n  sidegate run",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.DisableSuggestions = true // suggestion has them, in the words of all other errors
	root.SetFlagErrorFunc(p.flagError)
	root.AddCommand(p.newRun(), p.newCheck(), p.newIAM(), p.newInit(), p.newHealth(), p.newLogLevel(), p.newVersion(), p.newCompletion(), p.newPolicyCommand(), newAuditCommand(p.env, p.stdout, p.stderr))
	p.prepare(root)
	return root
}

// prepare makes every command note that its command line was in order, and
// those that only hold others refuse to be run alone: cobra would print their
// help and call it success.
func (p *program) prepare(c *cobra.Command) {
	for _, sub := range c.Commands() {
		p.prepare(sub)
	}
	if run := c.RunE; run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			p.started = true
			return run(c, args)
		}
		return
	}
	if c.Run != nil || !c.HasSubCommands() {
		return
	}
	c.FParseErrWhitelist.UnknownFlags = c.HasParent() // they are the mistyped command's
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("unknown command %q for %q%s", args[0], c.CommandPath(), didYouMeanCommand(c, args[0]))}
		}
		return usageError{fmt.Errorf("name a command: %s", strings.Join(commandNames(c), ", "))}
	}
}

// report writes what a command could not do to standard error, once.
func (p *program) report(err error) {
	var usage usageError
	var done reported
	var text string
	switch {
	case err == nil || errors.As(err, &done):
		return
	case errors.As(err, &usage):
		text = fmt.Sprintf("sidegate: %v\nSee `sidegate help`.\n", err)
	case errors.Is(err, errInvalid):
		// Lines of file:line:column, as editors and people find them.
		text = fmt.Sprintln(err)
	default:
		text = fmt.Sprintf("sidegate: %v\n", err)
	}
	text = steerless(text)
	written := make(chan struct{})
	go func() { _, _ = io.WriteString(p.stderr, text); close(written) }()
	select {
	case <-written:
	case <-time.After(time.Second): // nobody reads it; the exit status has to do
	}
}

// steerless is text that steers no terminal. Errors name files, and repeat what
// stands in them: both may be somebody else's.
func steerless(text string) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == utf8.RuneError && !strings.HasPrefix(text[i:], string(r)):
			fmt.Fprintf(&b, `\x%02x`, text[i])
		case r == '\n' || r == '\t' || unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
