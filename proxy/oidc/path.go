package oidc

import (
	"errors"
	"slices"
	"strings"
)

// A Path leads to a claim: the names of the objects it lies in and its own.
type Path []string

// ParsePath reads a path whose names are joined by dots, such as
// realm_access.roles. A URL, as some issuers use for names of their own, is one
// name.
func ParsePath(text string) (Path, error) {
	p := Path{text}
	if !strings.Contains(text, "://") {
		p = strings.Split(text, ".")
	}
	return p, p.Check()
}

// Check says what is wrong with a path.
func (p Path) Check() error {
	switch {
	case len(p) == 0 || slices.Contains(p, ""):
		return errors.New("a name in the path to the claim is empty")
	case len(p) > maxDepth:
		return errors.New("the path to the claim is too long")
	}
	return nil
}

func (p Path) String() string { return strings.Join(p, ".") }

// find gives the claim, where it is there.
func (p Path) find(claims Object) (value any, there bool) {
	within, name, ok := p.last(claims)
	if !ok {
		return nil, false
	}
	return within.Claim(name)
}

// text gives the claim where it is text; of something else nothing is made.
func (p Path) text(claims Object) (text string, there, isText bool) {
	within, name, ok := p.last(claims)
	if !ok {
		return "", false, false
	}
	text, isText = within.Text(name)
	return text, isText || within.Has(name), isText
}

// last is the object that the claim would be in, and the claim's name there.
func (p Path) last(claims Object) (within Object, name string, ok bool) {
	if len(p) == 0 {
		return Object{}, "", false
	}
	for _, name := range p[:len(p)-1] {
		if claims, ok = claims.Object(name); !ok {
			return Object{}, "", false
		}
	}
	return claims, p[len(p)-1], true
}
