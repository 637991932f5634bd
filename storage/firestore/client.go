// Package firestore keeps audit events and upload sessions in Firestore, and
// reads the documents of policies' lookups there. Only
// here is Firestore's SDK known. It decides nothing, and it reads no
// environment: whoever connects says where to.
package firestore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"cloud.google.com/go/auth"
	apiv1 "cloud.google.com/go/firestore/apiv1"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Options say which database to talk to.
type Options struct {
	Project  string
	Database string // empty: "(default)"
	// Emulator is the host:port of a Firestore emulator: no TLS, and its own
	// administrator's token instead of credentials. Empty: Google's Firestore
	// with Application Default Credentials.
	Emulator string
	// Credentials take the place of the default ones; nil: they do not.
	Credentials *auth.Credentials

	conn *grpc.ClientConn // tests: a server within the process
	dial grpc.DialOption  // tests: beside what the emulator needs
}

// A Client is a connection to one database, shared by all that this package
// keeps there. It is safe for concurrent use.
type Client struct {
	api      *apiv1.Client
	database string        // projects/P/databases/D
	patience time.Duration // see patience
}

// patience is for how long a query is repeated while Firestore cannot be
// reached.
const patience = 30 * time.Second

// reconnect lets a connection be tried again within seconds of an outage's
// end: gRPC's own back-off grows to two minutes, for which requests would wait.
var reconnect = grpc.WithConnectParams(grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
	MinConnectTimeout: 5 * time.Second,
})

// alive lets a connection that died without a word (a NAT that forgot it, a
// process that was frozen) be noticed by the next call: what is sent and not
// acknowledged within the time-out ends it (TCP_USER_TIMEOUT), and so does a
// call that hears nothing for half a minute and gets no answer to a ping.
var alive = grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 5 * time.Second})

// Connect makes a client. It finds credentials but sends nothing yet: a
// database that is unreachable or missing shows with the first call.
func Connect(ctx context.Context, o Options) (*Client, error) {
	if o.Project == "" {
		return nil, errors.New("firestore: no project is named")
	}
	if o.Database == "" {
		o.Database = "(default)"
	}
	var opts []option.ClientOption
	switch {
	case o.conn != nil:
		opts = append(opts, option.WithGRPCConn(o.conn))
	case o.Emulator != "":
		dial := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(owner{}), reconnect, alive}
		if o.dial != nil {
			dial = append(dial, o.dial)
		}
		conn, err := grpc.NewClient(o.Emulator, dial...)
		if err != nil {
			return nil, fmt.Errorf("firestore emulator %s: %w", o.Emulator, err)
		}
		opts = append(opts, option.WithGRPCConn(conn))
	case o.Credentials != nil:
		opts = append(opts, option.WithAuthCredentials(o.Credentials))
	}
	opts = append(opts, option.WithGRPCDialOption(reconnect), option.WithGRPCDialOption(alive))
	api, err := apiv1.NewClient(ctx, opts...)
	if err != nil {
		return nil, fmt.Errorf("firestore project %s: %w", o.Project, err)
	}
	// Who calls decides what is repeated and for how long.
	api.CallOptions.BatchWrite, api.CallOptions.RunQuery = nil, nil
	return &Client{api: api, database: "projects/" + o.Project + "/databases/" + o.Database, patience: patience}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.api.Close() }

// documents is the root of the database's documents.
func (c *Client) documents() string { return c.database + "/documents" }

// owner is the token with which the emulator passes over security rules.
type owner struct{}

func (owner) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer owner"}, nil
}

func (owner) RequireTransportSecurity() bool { return false }
