package policy

// A claimMade is what an identity's claims gave for a name, looked for and made
// once for a request: a condition may ask for it at each step of a loop, and a
// token may hold a thousand other names, and lists as long.
type claimMade struct {
	of    *Identity
	name  string
	value any
	there bool

	// typed is a list or a map as the policy declares it, once it was read so.
	typed any
	err   error
	read  bool
}

// claimOnce gives one of the caller's claims, until the next is asked for.
func (in *Input) claimOnce(name string) *claimMade {
	for i := range in.claims {
		if c := &in.claims[i]; c.name == name && c.of == in.Identity {
			return c
		}
	}
	value, there := in.Identity.Claim(name)
	in.claims = append(in.claims, claimMade{of: in.Identity, name: name, value: value, there: there})
	return &in.claims[len(in.claims)-1]
}

// sameCaller reports whether the claims that were made are of this caller. A map's
// are not kept from one decision to the next: they are at hand, and who tries
// policies may change it.
func (in *Input) sameCaller() bool {
	if len(in.claims) == 0 || in.claims[0].of != in.Identity || in.Identity == nil {
		return false
	}
	_, isMap := in.Identity.Claims.(ClaimMap)
	return !isMap
}

// Restore makes it what it was before a decision, but for the claims that were made
// for that one: another decision on the same caller needs them too, and what goes
// on record of either holds them.
func (in *Input) Restore(before Input) {
	before.claims = in.claims
	*in = before
}

// claim is claimOnce for who needs the value as it came: a map has it at hand.
func (in *Input) claim(name string) (value any, there bool) {
	if m, ok := in.Identity.Claims.(ClaimMap); ok {
		return m.Claim(name)
	}
	c := in.claimOnce(name)
	return c.value, c.there
}

// as is the value as the policy declares it.
func (c *claimMade) as(kind claimType) (any, error) {
	if kind.container == "" {
		return kind.typed(c.value)
	}
	if !c.read {
		c.typed, c.err = kind.typed(c.value)
		c.read = true
	}
	return c.typed, c.err
}
