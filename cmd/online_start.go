package cmd

import (
	"context"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sidegate/proxy/firebase"
	"sidegate/proxy/transport"
)

// endsSoon is when a certificate that nobody renewed is told of.
const endsSoon = 14 * 24 * time.Hour

// startProbes look at what run opens at its start and no other check does.
func startProbes(s settings) (out []probe) {
	c := s.config
	if c.Listen.TLS.Cert != "" {
		out = append(out, single("listen.tls", "", func(_ context.Context, b probe) check { return checkListenTLS(b, c, time.Now()) }))
	}
	if c.Assertion.Key.IsSet() {
		out = append(out, single("assertion.key", "", func(_ context.Context, b probe) check {
			if _, err := (&gateway{s: s}).openAssertions(); err != nil {
				return b.fails("see docs/configuration.md, assertion, for how a key is made", "the gateway does not start: %v", err)
			}
			return b.pass("who calls is signed for apps")
		}))
	}
	for _, u := range c.Upstreams {
		out = append(out, single("upstream.reach", u.Name, func(ctx context.Context, b probe) check { return checkUpstream(ctx, b, u) }))
	}
	for _, id := range c.Identities {
		if id.Firebase != nil && id.Firebase.Revocation > 0 {
			out = append(out, single("revocation", id.Name, func(ctx context.Context, b probe) check { return checkRevocation(ctx, b, s, id.Firebase) }))
		}
	}
	return out
}

// checkListenTLS reads the files as the gateway does, and then as its callers will.
func checkListenTLS(b probe, c *Config, now time.Time) check {
	in := c.Listen.TLS
	const renew = "renew the certificate, and write the whole chain to the file of listen.tls.cert, the server's own first"
	if _, err := c.listenTLS(func(error) {}); err != nil {
		return b.fails("mend the files: a certificate and the private key that belongs to it, in PEM, which the gateway's user may read", "the gateway does not start: %v", err)
	}
	pair, err := readKeyPair(in.Cert, in.Key)
	if err != nil {
		return b.fails(renew, "listen.tls.cert: %v", err)
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return b.fails(renew, "listen.tls.cert: %v", err)
	}
	names := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	left := leaf.NotAfter.Sub(now)
	switch {
	case left <= 0:
		return b.fails(renew, "listen.tls.cert ended on %s: callers refuse it", leaf.NotAfter.UTC().Format(time.DateOnly))
	case now.Before(leaf.NotBefore):
		return b.fails("set this machine's clock, or wait", "listen.tls.cert begins on %s: callers refuse it until then", leaf.NotBefore.UTC().Format(time.DateTime))
	case len(names) == 0:
		return b.fails(renew, "listen.tls.cert is for no name (subjectAltName): callers refuse it")
	case left < endsSoon:
		return b.warn(renew+"; a gateway that runs takes it up by itself", "listen.tls.cert ends on %s", leaf.NotAfter.UTC().Format(time.DateOnly))
	}
	return b.pass("the certificate is for %s, until %s", strings.Join(names[:min(len(names), 5)], ", "), leaf.NotAfter.UTC().Format(time.DateOnly))
}

// checkUpstream connects to the app as the gateway does, and sends nothing. That
// the app is not there is a warning: it may start later.
func checkUpstream(ctx context.Context, b probe, u UpstreamConfig) check {
	o := transport.Options{Name: u.Name, Addresses: u.Addresses, Socket: u.Socket, H2C: u.H2C}
	if u.URL.Scheme == "https" {
		var err error
		if o.TLS, err = upstreamTLS(u, func(error) {}); err != nil {
			return b.fails(fmt.Sprintf("mend upstreams.%s.tls in sidegate.yaml, or its files", u.Name), "the gateway does not start: %v", err)
		}
	}
	failed := transport.Reach(ctx, o)
	for _, at := range slices.Sorted(maps.Keys(failed)) {
		return b.warn(upstreamAdvice(u, failed[at]), "the app cannot be reached at %s: %v", at, failed[at])
	}
	all := slices.Clone(o.Addresses)
	if o.Socket != "" {
		all = []string{o.Socket}
	}
	return b.pass("the app can be connected to at %s", strings.Join(all, ", "))
}

func upstreamAdvice(u UpstreamConfig, err error) string {
	if u.Socket != "" {
		return "start the app, or see that it listens on that socket and that the gateway's user may open it; if it starts later, nothing is wrong"
	}
	return networkAdvice(err, fmt.Sprintf("upstreams.%s.tls.ca", u.Name)) + "; if the app starts later, nothing is wrong"
}

// checkRevocation asks Firebase for a user who is not there, as the gateway asks for
// each who calls.
func checkRevocation(ctx context.Context, b probe, s settings, f *FirebaseIdentity) check {
	emulator := ""
	if s.insecure.emulator {
		emulator = s.insecure.authEmulator
	}
	made, err := googleFromAWS(ctx, s.env)
	if err != nil {
		return b.skip("without credentials Firebase cannot be asked: see credentials.google")
	}
	const advice = "see credentials.google; let the account read users: roles/firebaseauth.viewer in the project"
	got := make(chan error, 1) // the library does not obey ctx everywhere
	go func() {
		read, err := firebase.AdminUsers(ctx, f.Project, f.Tenant, emulator, made)
		if err == nil {
			_, err = read(ctx, "sidegate-check-"+randomText())
		}
		got <- err
	}()
	select {
	case <-ctx.Done():
		return b.fails(advice, "users cannot be asked for in time: tokens get 503")
	case err := <-got:
		if err != nil {
			return b.fails(advice, "users of project %s cannot be asked for: tokens get 503: %s", f.Project, firebase.AnswerOf(err))
		}
	}
	return b.pass("revoked and disabled users can be asked for")
}
