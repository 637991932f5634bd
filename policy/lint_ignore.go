package policy

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"sidegate/policy/document"
)

// An ignore is a comment `lint:ignore SG105, SG106 reason`.
type ignore struct {
	document.Comment
	ids  []string
	used []bool // by id: there was something to ignore
}

var ignoreForm = regexp.MustCompile(`^lint:ignore\s+(SG\d+(?:\s*,\s*SG\d+)*)\b(.*)$`)

// ignore takes away what comments say is meant so, and adds SG118 for comments
// that say it wrongly: one that does nothing would look as if it did.
func (t *linter) ignore() {
	var all []*ignore
	for _, c := range t.l.root.Comments() {
		if strings.HasPrefix(c.Text, "lint:") {
			if i := t.readIgnore(c); i != nil {
				all = append(all, i)
			}
		}
	}
	t.found = slices.DeleteFunc(t.found, func(f Finding) bool {
		ignored := false
		for _, i := range all {
			if n := slices.Index(i.ids, f.ID); n >= 0 && i.First <= f.Line && f.Line <= i.Last {
				i.used[n], ignored = true, true
			}
		}
		return ignored
	})
	for _, i := range all {
		for n, id := range i.ids {
			if !i.used[n] && t.asked(id) {
				t.warnAt(i.Line, i.Column, "SG118", "there is no %s to ignore here: remove it, or put the comment above what it is about or at the end of its line", id)
			}
		}
	}
}

// asked reports whether a finding of this number could have been made.
func (t *linter) asked(id string) bool {
	switch id {
	case "SG110":
		return t.o.Untested != nil
	case "SG111":
		return !t.o.Now.IsZero()
	}
	return true
}

// readIgnore reads a comment that speaks to lint; nil where it ignores nothing.
func (t *linter) readIgnore(c document.Comment) *ignore {
	wrong := func(format string, args ...any) *ignore {
		t.warnAt(c.Line, c.Column, "SG118", format, args...)
		return nil
	}
	m := ignoreForm.FindStringSubmatch(c.Text)
	if m == nil {
		return wrong("a comment for lint is written `# lint:ignore SG105 reason in words`")
	}
	if !strings.ContainsFunc(m[2], unicode.IsLetter) {
		return wrong("say why: `# lint:ignore %s reason in words`; without a reason nothing is ignored", m[1])
	}
	out := &ignore{Comment: c}
	for id := range strings.SplitSeq(m[1], ",") {
		id = strings.TrimSpace(id)
		switch {
		case id < "SG100":
			wrong("%s is an error, and errors cannot be ignored", id)
		case id == "SG118" || !slices.Contains(lintIDs, id):
			wrong("there is no %s that could be ignored in a policy", id)
		default:
			out.ids = append(out.ids, id)
		}
	}
	out.used = make([]bool, len(out.ids))
	return out
}
