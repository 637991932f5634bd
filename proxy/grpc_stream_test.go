package proxy

import (
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func recv(s interface{ RecvMsg(any) error }) (string, error) {
	m := new(wrapperspb.StringValue)
	err := s.RecvMsg(m)
	return m.Value, err
}

// TestGRPCThroughTheGateway: a real client and a real server, with each kind of
// call, the caller's identity, headers, trailers and errors.
func TestGRPCThroughTheGateway(t *testing.T) {
	app := grpcApp(t, func(s grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(s.Context())
		s.SetHeader(metadata.Pairs("from", "app", "uid", strings.Join(md["x-sidegate-uid"], "|"), "x-sidegate-uid", "app", "data-bin", "\x00\xff"))
		s.SetTrailer(metadata.Pairs("count", "1", "count", "2", "x-sidegate-response", "true"))
		for {
			m := new(wrapperspb.StringValue)
			if err := s.RecvMsg(m); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			switch {
			case m.Value == "fail":
				return status.Error(codes.DataLoss, "lost: ü%")
			case m.Value == "many":
				for range 1000 {
					if err := s.SendMsg(wrapperspb.String(strings.Repeat("x", 1000))); err != nil {
						return err
					}
				}
			default:
				if err := s.SendMsg(m); err != nil {
					return err
				}
			}
		}
	})
	g, client, connections := grpcGate(t, app, overHTTP2)
	var header, trailer metadata.MD
	back := new(wrapperspb.StringValue)
	spoof := metadata.AppendToOutgoingContext(as(t, "alice"), "x-sidegate-uid", "root", "x_sidegate_uid", "root")
	if err := client.Invoke(spoof, "/t.T/Private", wrapperspb.String("a"), back, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil || back.Value != "a" {
		t.Fatalf("unary: %q %v", back.Value, err)
	}
	if header["from"][0] != "app" || header["uid"][0] != "alice" || header["data-bin"][0] != "\x00\xff" || header["x-sidegate-uid"] != nil {
		t.Errorf("the header is %v", header)
	}
	if len(trailer["count"]) != 2 || trailer["x-sidegate-response"] != nil {
		t.Errorf("the trailer is %v", trailer)
	}
	err := client.Invoke(as(t, "alice"), "/t.T/Private", wrapperspb.String("fail"), back)
	if s := status.Convert(err); s.Code() != codes.DataLoss || s.Message() != "lost: ü%" {
		t.Errorf("a failure: %v", err)
	}

	both, err := client.NewStream(as(t, "alice"), allStreams, "/t.T/Private")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one", "two", strings.Repeat("3", 200_000)} { // each answered before the next
		if err := both.SendMsg(wrapperspb.String(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := recv(both); got != text || err != nil {
			t.Fatalf("%d bytes came back, %v", len(got), err)
		}
	}
	both.SendMsg(wrapperspb.String("many"))
	both.CloseSend()
	n := 0
	for ; ; n++ {
		if _, err := recv(both); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if n != 1000 || len(both.Trailer()["count"]) != 2 {
		t.Errorf("%d messages, trailer %v", n, both.Trailer())
	}
	if connections.Load() != 1 {
		t.Errorf("%d connections", connections.Load())
	}
	for range 3 {
		if o := g.outcome().Outcome; o.Status != 200 || o.Error != "" || o.Truncated {
			t.Errorf("%+v", o)
		}
	}
}

// TestGRPCCancelAndDeadline: the app hears of both at once.
func TestGRPCCancelAndDeadline(t *testing.T) {
	done := make(chan error, 1)
	app := grpcApp(t, func(s grpc.ServerStream) error {
		s.SendHeader(nil)
		<-s.Context().Done()
		done <- s.Context().Err()
		return s.Context().Err()
	})
	g, client, _ := grpcGate(t, app, overHTTP2)
	ctx, cancel := context.WithCancel(as(t, "alice"))
	s, err := client.NewStream(ctx, allStreams, "/t.T/Private")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Header(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := recv(s); status.Code(err) != codes.Canceled {
		t.Error(err)
	}
	<-done
	if o := g.outcome().Outcome; o.Error != "client_gone" || !o.Truncated {
		t.Errorf("%+v", o)
	}
	ctx, cancel = context.WithTimeout(as(t, "alice"), 200*time.Millisecond)
	defer cancel()
	s, err = client.NewStream(ctx, allStreams, "/t.T/Private")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := recv(s); status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
	<-done
	g.outcome() // the app may have seen the deadline first, and ended the stream whole
	g.noStreams()
}

// TestGRPCMessageTooLarge: max_body bounds a message and not the stream.
func TestGRPCMessageTooLarge(t *testing.T) {
	g, client, _ := grpcGate(t, grpcApp(t, echo), overHTTP2)
	s, err := client.NewStream(as(t, ""), allStreams, "/t.T/Small")
	if err != nil {
		t.Fatal(err)
	}
	for range 10 { // ten times the bound in all
		text := strings.Repeat("m", 1000)
		if err := s.SendMsg(wrapperspb.String(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := recv(s); got != text || err != nil {
			t.Fatal(got, err)
		}
	}
	s.SendMsg(wrapperspb.String(strings.Repeat("m", 1100)))
	if _, err := recv(s); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the eleventh: %v", err)
	}
	if o := g.outcome().Outcome; o.Error != "too_large" || !o.Truncated {
		t.Errorf("%+v", o)
	}
	err = client.Invoke(as(t, ""), "/t.T/Small", wrapperspb.String(strings.Repeat("m", 1100)), new(wrapperspb.StringValue))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("at once: %v", err)
	}
	if o := g.outcome().Outcome; o.Status != 413 {
		t.Errorf("%+v", o)
	}
}

// TestGRPCWebPasses: its trailers are a frame of the body (PROTOCOL-WEB.md of
// gRPC), or of its base64, and the body is no gRPC stream of ours to look into.
func TestGRPCWebPasses(t *testing.T) {
	message := "\x00\x00\x00\x00\x05\x0a\x03abc"
	end := "grpc-status:0\r\ngrpc-message:all%20well\r\nx-sidegate-response:true\r\n"
	web := message + strings.Repeat(message, 1000) + "\x80\x00\x00\x00" + string(rune(len(end))) + end
	text := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for kind, c := range map[string]struct{ ask, answer string }{
		"application/grpc-web+proto":      {message, web},
		"application/grpc-web":            {message, web},
		"application/grpc-web-text+proto": {text(message), text(message) + text(web)}, // padded in between, as is allowed
		"application/grpc-web-text":       {text(message), text(web)},
	} {
		app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
			ask, err := io.ReadAll(r.Body)
			if err != nil || string(ask) != c.ask || r.Header.Get("Content-Type") != kind || r.Header.Get("X-Grpc-Web") != "1" || r.Header.Get("X-Sidegate-Uid") != "alice" {
				t.Errorf("%s: the app is asked %q, %v, %v", kind, ask, r.Header, err)
			}
			w.Header().Set("Content-Type", kind)
			for i := range len(c.answer)/1000 + 1 { // not all at once
				io.WriteString(w, c.answer[i*1000:min(len(c.answer), (i+1)*1000)])
				w.(http.Flusher).Flush()
			}
		})
		g, _, clients := bothGate(t, app)
		for proto, client := range clients {
			r, err := http.NewRequest("POST", g.url+"/private/t.T/Echo", strings.NewReader(c.ask))
			if err != nil {
				t.Fatal(err)
			}
			r.Header = http.Header{"Content-Type": {kind}, "X-Grpc-Web": {"1"}, "Authorization": {"Bearer alice"}}
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(body) != c.answer || res.StatusCode != 200 || res.Proto != proto || res.Header.Get("Content-Type") != kind || len(res.Trailer) != 0 {
				t.Errorf("%s over %s: %v, %d bytes, %v", kind, proto, res, len(body), err)
			}
			if o := g.outcome().Outcome; o.Error != "" || o.Truncated || o.BytesOut != int64(len(c.answer)) {
				t.Errorf("%s over %s: %+v", kind, proto, o)
			}
		}
	}
}

// TestGRPCTypeOverHTTP1: a content type alone does not lift the bound of a body.
func TestGRPCTypeOverHTTP1(t *testing.T) {
	g := newGate(t, lenientApp(t), overHTTP2)
	a := g.raw(request("POST", "/small", "", "Content-Type: application/grpc", "Content-Length: 1025") + strings.Repeat("x", 1025))
	if a.Header.Get("Grpc-Status") != "8" {
		t.Errorf("%+v", a)
	}
}

// TestGRPCQuietStream: the two sides of a stream share their time: while one of
// them moves, the other does not stall; when none does, it ends.
func TestGRPCQuietStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const idle, turns = 10 * time.Minute, 8
		g, client := grpcInProcess(t, func(s grpc.ServerStream) error {
			if _, err := recv(s); err != nil {
				return err
			}
			for range turns { // twice as long as anybody may be silent
				time.Sleep(idle / 4)
				if err := s.SendMsg(wrapperspb.String("tick")); err != nil {
					return err
				}
			}
			for { // and now it is the caller who speaks
				if text, err := recv(s); err != nil {
					return err
				} else if text == "end" {
					return s.SendMsg(wrapperspb.String(text))
				}
			}
		}, func(o *Options) { o.IdleTimeout = idle / 3 }, upstream(func(u *Upstream) { u.IdleTimeout = idle }))
		alice := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer alice")
		s, err := client.NewStream(alice, allStreams, "/t.T/Private")
		if err != nil {
			t.Fatal(err)
		}
		s.SendMsg(wrapperspb.String("go"))
		for i := range turns {
			if got, err := recv(s); got != "tick" || err != nil {
				t.Fatalf("tick %d: %q %v", i, got, err)
			}
		}
		for range turns {
			time.Sleep(idle / 4)
			if err := s.SendMsg(wrapperspb.String("tock")); err != nil {
				t.Fatal(err)
			}
		}
		s.SendMsg(wrapperspb.String("end"))
		if got, err := recv(s); got != "end" || err != nil {
			t.Fatal(got, err)
		}
		if _, err := recv(s); err != io.EOF {
			t.Error(err)
		}
		if o := g.outcome().Outcome; o.Error != "" || o.Truncated {
			t.Errorf("%+v", o)
		}
		silent, err := client.NewStream(alice, allStreams, "/t.T/Private")
		if err != nil {
			t.Fatal(err)
		}
		silent.SendMsg(wrapperspb.String("go"))
		begin := time.Now()
		for err = nil; err == nil; {
			_, err = recv(silent)
		}
		if took := time.Since(begin).Round(time.Second); took != turns*idle/4+idle {
			t.Errorf("it ends after %v", took)
		}
		if o := g.outcome().Outcome; !o.Truncated || o.Error != "client_stalled" && o.Error != "upstream_timeout" {
			t.Errorf("%v; %+v", err, o)
		}
	})
}

// grpcInProcess is a gate between a client and a server of gRPC, for bubbles of
// testing/synctest.
func grpcInProcess(t testing.TB, handle func(grpc.ServerStream) error, change ...func(*Options)) (*gate, *grpc.ClientConn) {
	t.Helper()
	app := newInProcess()
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error { return handle(s) }))
	go server.Serve(app)
	t.Cleanup(server.Stop)
	g, _ := gateBefore(t, app, append([]func(*Options){overHTTP2, func(o *Options) { o.Policy = loadPolicy(t, grpcPolicy) }}, change...)...)
	client, err := grpc.NewClient("passthrough:///gateway.test", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return g.connect() }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return g, client
}
