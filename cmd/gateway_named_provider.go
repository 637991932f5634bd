package cmd

import (
	"context"

	"sidegate/proxy"
	"sidegate/proxy/oidc"
)

// A namedProvider says of its errors which identity they are of, for metrics.
type namedProvider struct {
	oidc.Provider
	name string
}

func (p namedProvider) Verify(ctx context.Context, t *oidc.Token) (oidc.Verified, error) {
	v, err := p.Provider.Verify(ctx, t)
	if stands := v.Stands; stands != nil {
		v.Stands = func(ctx context.Context) error { return p.of(stands(ctx)) }
	}
	return v, p.of(err)
}

func (p namedProvider) of(err error) error {
	if err == nil {
		return nil
	}
	return &proxy.IdentityError{Identity: p.name, Err: err}
}
