package policy

// unused is SG109. Claims are not asked: upstreams are told of them.
func (t *linter) unused() {
	for _, name := range keysOf(t.l.vars) {
		if x := t.l.vars[name]; !x.used {
			t.warn(x.key, "SG109", "nothing uses the variable `%s`: remove it", name)
		}
	}
	for _, name := range keysOf(t.l.lookups) {
		if x := t.l.lookups[name]; !x.used {
			t.warn(x.key, "SG109", "no condition reads the lookup `%s`: remove it", name)
		}
	}
	for _, e := range t.l.root.Field("identities").List() {
		if name := e.Show(); !t.l.used[name] {
			t.warn(e, "SG109", "no entry lets the identity `%s` in, and no guard names it: remove it", name)
		}
	}
}

// tests is SG110.
func (t *linter) tests() {
	for _, x := range t.rules() {
		rule := x.cond.rule
		switch t.o.Untested[rule] {
		case "":
		case "true":
			t.warn(x.whole, "SG110", "no test saw `%s` true: add a case that meets it", rule)
		case "false":
			t.warn(x.whole, "SG110", "no test saw `%s` false: add a case that does not meet it", rule)
		default:
			t.warn(x.whole, "SG110", "no test reaches `%s`: add cases that meet it and that do not", rule)
		}
	}
}
