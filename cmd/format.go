package cmd

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// formats are those that findings come in.
var formats = []string{"text", "json", "junit", "github"}

func checkFormat(format string) error {
	if !slices.Contains(formats, format) {
		return usageError{fmt.Errorf("--format must be one of %s, not %q", strings.Join(formats, ", "), format)}
	}
	return nil
}

// colour reports whether w is a terminal that wants colours (no-color.org).
func (p *program) colour(w io.Writer) bool {
	return isTerminal(w) && p.env.get("NO_COLOR") == "" && p.env.get("TERM") != "dumb"
}

// paint wraps words in a colour of the terminal (ECMA-48, SGR), or leaves them.
func paint(on bool, code string) func(string) string {
	return func(s string) string {
		if !on {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
}

// githubCommand is an annotation of GitHub Actions ("Workflow commands for
// GitHub Actions", setting an error message).
func githubCommand(severity, file string, line, column int, title, text string) string {
	var props []string
	if file != "" {
		props = append(props, "file="+githubProperty(file))
	}
	if line > 0 {
		props = append(props, fmt.Sprintf("line=%d", line), fmt.Sprintf("col=%d", column))
	}
	props = append(props, "title="+githubProperty(title))
	return "::" + severity + " " + strings.Join(props, ",") + "::" + githubData(text)
}

var (
	githubDataEscapes     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	githubPropertyEscapes = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

func githubData(s string) string     { return githubDataEscapes.Replace(s) }
func githubProperty(s string) string { return githubPropertyEscapes.Replace(s) }

// A junitSuite is a group of cases in JUnit's XML, as CI systems read it.
type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string        `xml:"classname,attr"`
	Name    string        `xml:"name,attr"`
	File    string        `xml:"file,attr,omitempty"`
	Line    int           `xml:"line,attr,omitempty"`
	Failure *junitFailure `xml:"failure"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func (s *junitSuite) add(c junitCase) {
	s.Tests++
	if c.Failure != nil {
		s.Failures++
	}
	s.Cases = append(s.Cases, c)
}

func writeJUnit(w io.Writer, suites []junitSuite) error {
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}{Suites: suites}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// refuse writes what is wrong with the operator's files in the format that was
// asked for, where it is one that programs read; else it is left for standard
// error.
func (p *program) refuse(format, command string, err error) error {
	list := findings(err)
	if !errors.Is(err, errInvalid) || len(list) == 0 {
		return err
	}
	switch format {
	case "github":
		out := printer{w: p.stdout}
		for _, f := range list {
			out.line("%s", githubCommand("error", f.File, f.Line, f.Column, command, f.Text))
		}
		return errors.Join(out.err, reported{invalid{errInvalid}})
	case "junit":
		s := junitSuite{Name: command}
		for _, f := range list {
			s.add(junitCase{Class: f.File, Name: f.String(), File: f.File, Line: f.Line, Failure: &junitFailure{"does not load", f.String()}})
		}
		return errors.Join(writeJUnit(p.stdout, []junitSuite{s}), reported{invalid{errInvalid}})
	}
	return err
}
