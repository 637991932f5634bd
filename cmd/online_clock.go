package cmd

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	// Beyond warnSkew something does not keep this clock; beyond failSkew, the
	// leeway of Firebase's tokens, good tokens are refused and bad ones pass.
	warnSkew, failSkew = 5 * time.Second, 60 * time.Second
)

const clockAdvice = "set this machine's clock by NTP: `timedatectl set-ntp true` (systemd), or see chronyc tracking; a container has its host's clock"

// checkSkew judges how far another clock is ahead of this machine's.
func checkSkew(b probe, whose string, ahead time.Duration) check {
	off := ahead.Abs().Round(time.Second)
	side := "behind"
	if ahead < 0 {
		side = "ahead of"
	}
	switch {
	case off > failSkew:
		return b.fails(clockAdvice+". Where several other clocks agree with this one, it is theirs that is wrong", "this machine's clock is %s %s that of %s", off, side, whose)
	case off > warnSkew:
		return b.warn(clockAdvice, "this machine's clock is %s %s that of %s", off, side, whose)
	}
	return b.pass("within %s of %s", warnSkew, whose)
}

// networkAdvice says what to do about an error of the network. authorities is the
// variable that names further ones.
func networkAdvice(err error, authorities string) string {
	var name *net.DNSError
	var unknown x509.UnknownAuthorityError
	text := err.Error()
	switch {
	case errors.As(err, &name) || strings.Contains(text, "no such host") || strings.Contains(text, "lookup "):
		return "mend the host's name, or this machine's name resolution (`getent hosts NAME`)"
	case errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(text, "connection refused"):
		return "see that the server runs and listens there; from a container, localhost is the container itself"
	case errors.As(err, &unknown) || strings.Contains(text, "x509:") || strings.Contains(text, "tls:"):
		return "see whose certificate that is (`openssl s_client -connect HOST:443 </dev/null`). If it is right, name its authority's file by " + authorities + "; if a proxy's on the way, exempt the host by NO_PROXY"
	case strings.Contains(text, "proxyconnect"):
		return "the proxy of HTTPS_PROXY does not answer: mend it, or exempt the host by NO_PROXY"
	}
	return "see what is on the way: name resolution, firewall, the network's rules for outgoing connections, HTTPS_PROXY and NO_PROXY"
}

// plainCause is what is wrong, without what was being done: lines say that.
func plainCause(err error) string {
	var asked *url.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	case errors.As(err, &asked):
		return asked.Err.Error()
	}
	for {
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			if e.Unwrap() == nil {
				return err.Error()
			}
			err = e.Unwrap()
		case interface{ Unwrap() []error }: // what is wrong comes last
			list := e.Unwrap()
			if len(list) == 0 {
				return err.Error()
			}
			err = list[len(list)-1]
		default:
			return err.Error()
		}
	}
}
