package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const grpcPolicy = `version: sidegate-policy/v1
name: grpc
identities: [users]
routes:
  - {id: chat, path: "/chat.Chat/{method}", methods: [POST], upstream: app, max_body: 1MiB, allow: [{id: user, who: [users]}]}
`

var chat = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// startChat is a gRPC service that sends back what it gets, and in its trailers
// who it was told calls.
func startChat(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(stream.Context())
		stream.SetTrailer(metadata.Pairs("caller", strings.Join(md["x-sidegate-uid"], "|")))
		for {
			m := new(wrapperspb.StringValue)
			switch err := stream.RecvMsg(m); {
			case err == io.EOF:
				return nil
			case err != nil:
				return err
			case m.Value == "fail":
				return status.Error(codes.FailedPrecondition, "not now")
			case m.Value == "wait":
				<-stream.Context().Done()
				return stream.Context().Err()
			}
			if err := stream.SendMsg(m); err != nil {
				return err
			}
		}
	}))
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

// TestGRPC: a real client and a real server with the gateway between, with TLS
// to the caller and without: unary calls, streams, errors, a deadline, a
// message that is too large, and a stop.
func TestGRPC(t *testing.T) {
	app := startChat(t)
	for name, encrypted := range map[string]bool{"h2c": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			s := setup{dir: t.TempDir(), policy: grpcPolicy, appURL: "h2c://" + app}
			creds := insecure.NewCredentials()
			if encrypted {
				s.config = withTLS(t, s.dir)
				creds = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}) // who the gateway is is not what is tested
			}
			g := startGateway(t, s)
			client, err := grpc.NewClient("passthrough:///"+strings.TrimPrefix(g.url, "http://"), grpc.WithTransportCredentials(creds))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			testChat(t, client)

			stream, err := client.NewStream(asUser(t, "alice"), chat, "/chat.Chat/Both")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(stream.SendMsg(wrapperspb.String("a")), stream.RecvMsg(new(wrapperspb.StringValue))); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- stream.RecvMsg(new(wrapperspb.StringValue)) }()
			if exit := g.stop(t); exit != 0 {
				t.Errorf("exit status %d", exit)
			}
			if err := <-ended; status.Code(err) != codes.Unavailable {
				t.Errorf("at the stop the stream ends with %v", err)
			}
		})
	}
}

// asUser is the context of a call with a user's token; "" has none.
func asUser(t *testing.T, uid string) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	if uid == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token(t, uid), "x-sidegate-uid", "root")
}

func testChat(t *testing.T, client *grpc.ClientConn) {
	t.Helper()
	back := new(wrapperspb.StringValue)
	var trailer metadata.MD
	if err := client.Invoke(asUser(t, "alice"), "/chat.Chat/One", wrapperspb.String("hello"), back, grpc.Trailer(&trailer)); err != nil || back.Value != "hello" || trailer["caller"][0] != "alice" {
		t.Errorf("unary: %q, %v, %v", back.Value, trailer, err)
	}
	short, cancel := context.WithTimeout(asUser(t, "alice"), 200*time.Millisecond)
	defer cancel()
	for what, c := range map[string]struct {
		ctx    context.Context
		text   string
		method string
		code   codes.Code
	}{
		"without a token":     {asUser(t, ""), "a", "/chat.Chat/One", codes.Unauthenticated},
		"nowhere":             {asUser(t, "alice"), "a", "/other.Other/One", codes.Unimplemented},
		"the app's error":     {asUser(t, "alice"), "fail", "/chat.Chat/One", codes.FailedPrecondition},
		"a deadline":          {short, "wait", "/chat.Chat/One", codes.DeadlineExceeded},
		"a message too large": {asUser(t, "alice"), strings.Repeat("x", 1<<20), "/chat.Chat/One", codes.ResourceExhausted},
	} {
		if err := client.Invoke(c.ctx, c.method, wrapperspb.String(c.text), back); status.Code(err) != c.code {
			t.Errorf("%s: %v", what, err)
		}
	}
	stream, err := client.NewStream(asUser(t, "bob"), chat, "/chat.Chat/Both")
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // more in all than one message may have
		text := strings.Repeat("y", 100_000)
		if err := errors.Join(stream.SendMsg(wrapperspb.String(text)), stream.RecvMsg(back)); err != nil || back.Value != text {
			t.Fatalf("%d bytes came back, %v", len(back.Value), err)
		}
	}
	stream.CloseSend()
	if err := stream.RecvMsg(back); err != io.EOF || stream.Trailer()["caller"][0] != "bob" {
		t.Errorf("%v, %v", err, stream.Trailer())
	}
}
