package cmd

import (
	"regexp"
	"sync"
)

// A textForm is a regular expression that is compiled when it is first needed:
// with a bound such as {1,512} that takes hundreds of kilobytes, and a gateway
// needs few of those that its configuration could.
type textForm func() *regexp.Regexp

func newForm(expression string) textForm {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

func (f textForm) matches(s string) bool { return f().MatchString(s) }
