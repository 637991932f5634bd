package cmd

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"sidegate/policy/document"
)

// A usageError is a command line that cannot be meant: exit status 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// reported marks an error whose findings are on standard output already.
type reported struct{ error }

func (e reported) Unwrap() error { return e.error }

// Exit statuses.
const (
	exitFine     = 0
	exitFailed   = 1 // could not be done: input and output, unreachable
	exitUsage    = 2 // the command line
	exitInvalid  = 3 // the config or the policy
	exitTests    = 4 // tests failed, or none ran
	exitFindings = 5 // lint found something, or coverage is below what was asked
	exitChanged  = 6 // diff or replay found decisions that changed
)

// What commands find, as errors: their findings are on standard output.
var (
	errTests    = errors.New("tests failed, or none ran")
	errFindings = errors.New("lint or coverage is below what was asked")
	errChanged  = errors.New("decisions changed")
)

// ExitStatus is the status that the program ends with after Run returned err:
// 0 fine, 1 failed, 2 usage, 3 invalid config or policy, 4 tests failed or none
// ran, 5 findings of lint or coverage, 6 changed decisions.
func ExitStatus(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitFine
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, errInvalid):
		return exitInvalid
	case errors.Is(err, errTests):
		return exitTests
	case errors.Is(err, errFindings):
		return exitFindings
	case errors.Is(err, errChanged):
		return exitChanged
	}
	return exitFailed
}

// exactly takes as many arguments as there are names.
func exactly(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != len(names) {
			return usageError{fmt.Errorf("`%s` takes %s; `%[1]s --help` shows how", c.CommandPath(), strings.Join(names, " and "))}
		}
		return nil
	}
}

// flagError adds the nearest flag to a complaint about an unknown one.
func (p *program) flagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 {
		return err
	}
	var names []string
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	hint := document.DidYouMean(unknown.GetSpecifiedName(), names)
	return errors.New(err.Error() + strings.Replace(hint, `"`, `"--`, 1))
}

// suggestion is the nearest command, where err, which is cobra's, complains about
// an unknown one. Our own errors have theirs, among the commands that fit there.
func (p *program) suggestion(root *cobra.Command, err error) string {
	var own usageError
	quoted, ok := strings.CutPrefix(err.Error(), `unknown command "`)
	if !ok || errors.As(err, &own) {
		return ""
	}
	name, _, _ := strings.Cut(quoted, `"`)
	return didYouMeanCommand(root, name)
}

func didYouMeanCommand(c *cobra.Command, name string) string {
	return document.DidYouMean(name, commandNames(c))
}

func commandNames(c *cobra.Command) []string {
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			names = append(names, sub.Name())
		}
	}
	slices.Sort(names)
	return names
}
