package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"

	client "github.com/redis/go-redis/v9"
)

// A Kind says why Redis cannot be asked.
type Kind string

const (
	Timeout  Kind = "timeout"   // it did not answer in time
	Connect  Kind = "connect"   // there is no connection, or it broke
	TLS      Kind = "tls"       // it could not show who it is
	Denied   Kind = "denied"    // it does not know the user, or lets it do too little
	Full     Kind = "full"      // it has no memory left (maxmemory)
	Loading  Kind = "loading"   // it reads its data, or cannot write them
	ReadOnly Kind = "read_only" // it is a replica
	Cluster  Kind = "cluster"   // it is one of a Redis Cluster, which cannot be used
	Answer   Kind = "answer"    // it said what no Redis does
)

var kinds = []Kind{Timeout, Connect, TLS, Denied, Full, Loading, ReadOnly, Cluster, Answer}

// explained says of each kind what it is, and what to do.
var explained = map[Kind]struct{ is, do string }{
	Timeout:  {"it did not answer within redis.timeout", "see whether it is overloaded, or too far away for redis.timeout"},
	Connect:  {"there is no connection to it", "see whether it runs, at the address of redis.url, and whether a firewall or TLS (rediss://) is between"},
	TLS:      {"it did not show that it is who it should be", "name its authority in redis.ca, and in redis.url the host that its certificate is for; without TLS it is redis://"},
	Denied:   {"it refuses the user, the password, or what is asked", "the user needs ~PREFIX* and +hello +auth +select +eval +evalsha +get +set +time"},
	Full:     {"it has no memory left", "give it more, or the maxmemory-policy volatile-ttl"},
	Loading:  {"it reads its data, cannot write them, or is busy with a script", "see its log"},
	ReadOnly: {"it is a replica", "name the primary in redis.url"},
	Cluster:  {"it belongs to a Redis Cluster, which cannot be used", "name a Redis that is none"},
	Answer:   {"it answered what was not understood", "is this a Redis of version 6 or later, or a Valkey?"},
}

// A Failure is an error of Redis, without anything that could be secret: of what
// it said, which may repeat what it was sent, it holds the code alone.
type Failure struct {
	Kind Kind
	Code string // Redis' own word for it, as OOM; empty: it has said none
	// cause is an error of this machine or of TLS, in which nothing of ours stands.
	cause error
}

func (f *Failure) Error() string {
	text := "redis: " + explained[f.Kind].is
	if f.Code != "" {
		text += " (" + f.Code + ")"
	}
	if f.cause != nil {
		said := f.cause.Error()
		text += " (" + said[:min(len(said), 200)] + ")" // a certificate may have very many names
	}
	return text
}

// Do is what to do about it.
func (f *Failure) Do() string { return explained[f.Kind].do }

var errAnswer = &Failure{Kind: Answer}

// codes are Redis' words, of its errors' beginnings.
var codes = map[string]Kind{
	"NOAUTH": Denied, "WRONGPASS": Denied, "NOPERM": Denied,
	"OOM": Full, "LOADING": Loading, "MISCONF": Loading, "BUSY": Loading, "MASTERDOWN": ReadOnly, "READONLY": ReadOnly, "NOREPLICAS": Loading,
	"MOVED": Cluster, "ASK": Cluster, "CROSSSLOT": Cluster, "CLUSTERDOWN": Cluster, "TRYAGAIN": Cluster,
}

// failed makes a Failure of an error; nil of none.
func failed(err error) error {
	var own *Failure
	var said client.Error
	var dial *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own
	case isTLS(err):
		return &Failure{Kind: TLS, cause: err}
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, client.ErrPoolTimeout) || errors.Is(err, client.ErrPoolExhausted) || timedOut(err):
		return &Failure{Kind: Timeout}
	case errors.As(err, &said):
		return ofCode(said.Error())
	case errors.As(err, &dial):
		return &Failure{Kind: Connect, cause: dial.Err}
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, client.ErrClosed):
		return &Failure{Kind: Connect}
	}
	return errAnswer
}

// ofCode reads the first word of what Redis said, where it is a code of its own.
func ofCode(said string) *Failure {
	code, _, _ := strings.Cut(strings.TrimPrefix(said, "ERR "), " ")
	if kind, ok := codes[code]; ok {
		return &Failure{Kind: kind, Code: code}
	}
	// Of its scripts some versions say it within the text.
	for code, kind := range codes {
		if strings.Contains(said, "-"+code+" ") {
			return &Failure{Kind: kind, Code: code}
		}
	}
	return errAnswer
}

func timedOut(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

func isTLS(err error) bool {
	var verify *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	return errors.As(err, &verify) || errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &record) || errors.As(err, &alert)
}
