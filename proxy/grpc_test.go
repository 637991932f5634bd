package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidegate/policy"
)

const grpcPolicy = `version: sidegate-policy/v1
name: grpc
identities: [users]
routes:
  - {id: private, path: /t.T/Private, methods: [POST], upstream: app, allow: [{id: any, who: [users]}]}
  - {id: admin, path: /t.T/Admin, methods: [POST], upstream: app, allow: [{id: admin, who: [users], if: auth.uid == "root"}]}
  - {id: public, path: /t.T/Public, methods: [POST], upstream: app, allow: public}
  - {id: get, path: /t.T/Get, methods: [GET], upstream: app, allow: public}
  - {id: small, path: /t.T/Small, methods: [POST], upstream: app, allow: public, max_body: 1KiB}
  - {id: lost, path: /t.T/Lost, methods: [POST], upstream: lost, allow: public}
  - {id: limited, path: /t.T/Limited, methods: [POST], upstream: app, allow: public, limit: {rate: 1/h, burst: 1, per: route}}
`

// grpcGate is a gateway over HTTP/2 without TLS, and a real client of it.
// connections counts what the client opened.
func grpcGate(t testing.TB, app string, change ...func(*Options)) (g *gate, client *grpc.ClientConn, connections *atomic.Int64) {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte(grpcPolicy), &policy.Environment{
		Identities: map[string]string{"users": "users"}, Upstreams: map[string]policy.Upstream{"app": {}, "lost": {}},
	})
	if err != nil {
		t.Fatal(err)
	}
	g = newGate(t, app, append([]func(*Options){func(o *Options) { o.Policy = p }}, change...)...)
	connections = new(atomic.Int64)
	s := httptest.NewUnstartedServer(g.proxy)
	s.Config.ErrorLog = quietLog
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	client, err = grpc.NewClient("passthrough:///"+s.Listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return g, client, connections
}

// as is the context of a call with a token.
func as(t testing.TB, token string) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	if token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

var allStreams = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// requests is sidegate_requests_total of a route and status.
func (g *gate) requests(route string, code int) float64 {
	g.t.Helper()
	families, err := g.metrics.Gather()
	if err != nil {
		g.t.Fatal(err)
	}
	total := 0.0
	for _, f := range families {
		if f.GetName() != "sidegate_requests_total" {
			continue
		}
		for _, m := range f.Metric {
			labels := map[string]string{}
			for _, l := range m.Label {
				labels[l.GetName()] = l.GetValue()
			}
			if labels["route"] == route && labels["code"] == strconv.Itoa(code) {
				total += m.Counter.GetValue()
			}
		}
	}
	return total
}

// TestGRPCRefusals: a real client sees each refusal as gRPC's own status, of
// unary calls and of streams, while audit log, metrics and log have the status
// that everybody else is told.
func TestGRPCRefusals(t *testing.T) {
	silent := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	for _, c := range []struct {
		app, method, token, route string
		code                      codes.Code
		message                   string
		status                    int
		challenge                 string
	}{
		{dead.URL, "/t.T/Private", "", "private", codes.Unauthenticated, "no_token: a bearer token is needed here", 401, `Bearer realm="photos"`},
		{dead.URL, "/t.T/Private", "bad", "private", codes.Unauthenticated, "invalid_token: the token is malformed", 401, `Bearer realm="photos", error="invalid_token", error_description="the token is malformed"`},
		{dead.URL, "/t.T/Admin", "alice", "admin", codes.PermissionDenied, "not_allowed: this is not allowed", 403, ""},
		{dead.URL, "/t.T/Private", "away", "private", codes.Unavailable, "unavailable: the token cannot be verified now", 503, ""},
		{dead.URL, "/t.T/Public", "", "public", codes.Unavailable, "upstream_failed: the upstream could not be reached or broke off", 502, ""},
		{silent, "/t.T/Public", "", "public", codes.DeadlineExceeded, "upstream_timeout: the upstream did not answer in time", 504, ""},
		{dead.URL, "/t.T/Nowhere", "alice", "", codes.Unimplemented, "no_route: nothing is here", 404, ""},
		{dead.URL, "/t.T/Get", "alice", "", codes.Unimplemented, "method: the method is not allowed here", 405, ""},
		{dead.URL, "/t.T/../Private", "alice", "", codes.Internal, "bad_target: the path holds a dot segment", 400, ""},
		{dead.URL, "/t.T/Lost", "", "lost", codes.Internal, "internal: something went wrong here", 500, ""},
		{dead.URL, "/t.T/Private", "panic", "private", codes.Internal, "internal: something went wrong here", 500, ""},
		{dead.URL, "/t.T/Limited", "", "limited", codes.ResourceExhausted, "rate: too many requests; try again later", 429, ""},
	} {
		g, client, _ := grpcGate(t, c.app, upstream(func(u *Upstream) { u.Timeout = 200 * time.Millisecond }))
		if c.status == 429 {
			client.Invoke(as(t, c.token), c.method, wrapperspb.String("a"), &wrapperspb.StringValue{})
			g.outcome()
		}
		check := func(kind string, err error, header metadata.MD) {
			t.Helper()
			s := status.Convert(err)
			if s.Code() != c.code || s.Message() != c.message || len(s.Details()) != 0 {
				t.Errorf("%s %s as %q: %v", kind, c.method, c.token, err)
			}
			if got := strings.Join(header["www-authenticate"], "|"); got != c.challenge {
				t.Errorf("%s %s as %q: the challenge is %s", kind, c.method, c.token, got)
			}
			if header["x-sidegate-response"] == nil || header["x-request-id"] == nil || (header["retry-after"] != nil) != (c.status == 503 || c.status == 429) || (header["allow"] != nil) != (c.status == 405) {
				t.Errorf("%s %s as %q: %v", kind, c.method, c.token, header)
			}
			o := g.outcome()
			if o.Outcome.Status != c.status || len(header["x-request-id"]) == 1 && o.Record != header["x-request-id"][0] {
				t.Errorf("%s %s as %q: the outcome is %+v", kind, c.method, c.token, o.Outcome)
			}
			if d := g.decision().Decision; d.Effect == "deny" && d.Status != c.status {
				t.Errorf("%s %s as %q: the decision is %+v", kind, c.method, c.token, d)
			}
		}
		// A Trailers-Only answer's one block is headers to some versions of the
		// client, and trailers to others.
		var header, trailer metadata.MD
		err := client.Invoke(as(t, c.token), c.method, wrapperspb.String("a"), &wrapperspb.StringValue{}, grpc.Header(&header), grpc.Trailer(&trailer))
		check("unary", err, metadata.Join(header, onlyNew(trailer, header)))

		stream, err := client.NewStream(as(t, c.token), allStreams, c.method)
		if err != nil {
			t.Fatal(err)
		}
		// It may be refused before all is sent: then the status is in RecvMsg.
		if err := stream.SendMsg(wrapperspb.String("a")); err != nil && err != io.EOF {
			t.Errorf("%s: SendMsg: %v", c.method, err)
		}
		if err := stream.CloseSend(); err != nil {
			t.Errorf("%s: CloseSend: %v", c.method, err)
		}
		err = stream.RecvMsg(&wrapperspb.StringValue{})
		header, _ = stream.Header()
		check("stream", err, metadata.Join(header, onlyNew(stream.Trailer(), header)))
		if n := g.requests(c.route, c.status); n != 2 {
			t.Errorf("%s: the metrics have %v of status %d", c.method, n, c.status)
		}
		if log := g.log.String(); strings.Count(log, `"status":`+strconv.Itoa(c.status)+",") != 2 {
			t.Errorf("%s: the log is %s", c.method, log)
		}
	}
}

// onlyNew are the trailers whose names are no headers' already.
func onlyNew(trailer, header metadata.MD) metadata.MD {
	out := metadata.MD{}
	for name, values := range trailer {
		if header[name] == nil {
			out[name] = values
		}
	}
	return out
}

// TestGRPCPasses: what is allowed reaches a real server, which gets the identity
// in metadata, and its own status comes back.
func TestGRPCPasses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		md, _ := metadata.FromIncomingContext(stream.Context())
		in := new(wrapperspb.StringValue)
		for {
			if err := stream.RecvMsg(in); err == io.EOF {
				return status.Error(codes.DataLoss, "the app's own: 100% ü")
			} else if err != nil {
				return err
			}
			if err := stream.SendMsg(wrapperspb.String(strings.Join(md["x-sidegate-uid"], ",") + " says " + in.Value)); err != nil {
				return err
			}
		}
	}))
	go server.Serve(l)
	t.Cleanup(server.Stop)
	h2 := newTransport()
	h2.Protocols = new(http.Protocols)
	h2.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2.CloseIdleConnections)
	g, client, _ := grpcGate(t, "http://"+l.Addr().String(), upstream(func(u *Upstream) { u.Transport = h2 }))
	stream, err := client.NewStream(metadata.AppendToOutgoingContext(as(t, "alice"), "x-sidegate-uid", "root"), allStreams, "/t.T/Private")
	if err != nil {
		t.Fatal(err)
	}
	out := new(wrapperspb.StringValue)
	for _, text := range []string{"one", "two"} {
		if err := stream.SendMsg(wrapperspb.String(text)); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(out); err != nil || out.Value != "alice says "+text {
			t.Fatalf("%v %v", out, err)
		}
	}
	stream.CloseSend()
	if s := status.Convert(stream.RecvMsg(out)); s.Code() != codes.DataLoss || s.Message() != "the app's own: 100% ü" {
		t.Errorf("%v", s)
	}
	if o := g.outcome().Outcome; o.Status != 200 || o.Error != "" {
		t.Errorf("%+v", o)
	}
}

// TestGRPCRefusalDoesNotWaitForTheBody: a client that streams without end is
// refused while it sends, and a body that grows too large ends its call.
func TestGRPCRefusalDoesNotWaitForTheBody(t *testing.T) {
	app := newApp(t, func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })
	g, client, _ := grpcGate(t, app)
	for method, want := range map[string]struct {
		code   codes.Code
		status int
	}{"/t.T/Private": {codes.Unauthenticated, 401}, "/t.T/Small": {codes.ResourceExhausted, 413}} {
		stream, err := client.NewStream(as(t, ""), allStreams, method)
		if err != nil {
			t.Fatal(err)
		}
		big := wrapperspb.Bytes(make([]byte, 1<<20))
		for err == nil { // until the refusal, or the context, ends it
			err = stream.SendMsg(big)
		}
		if err != io.EOF {
			t.Errorf("%s: SendMsg: %v", method, err)
		}
		if err := stream.RecvMsg(&wrapperspb.StringValue{}); status.Code(err) != want.code {
			t.Errorf("%s: %v", method, err)
		}
		if o := g.outcome().Outcome; o.Status != want.status {
			t.Errorf("%s: %+v", method, o)
		}
	}
}

// TestGRPCRefusalsKeepTheConnection: a connection of HTTP/2 is shared by many
// calls, and before a load balancer by many users. A refused one does not end
// it for the others.
func TestGRPCRefusalsKeepTheConnection(t *testing.T) {
	g, client, connections := grpcGate(t, newApp(t, func(http.ResponseWriter, *http.Request) {}))
	const calls = 20
	for range calls {
		if err := client.Invoke(as(t, ""), "/t.T/Private", wrapperspb.String("a"), &wrapperspb.StringValue{}); status.Code(err) != codes.Unauthenticated {
			t.Fatal(err)
		}
		g.outcome()
	}
	if n := connections.Load(); n != 1 {
		t.Errorf("%d refused calls took %d connections", calls, n)
	}
}

// TestGRPCOverHTTP1: the refusal is headers alone, and these.
func TestGRPCOverHTTP1(t *testing.T) {
	g, _, _ := grpcGate(t, newApp(t, func(http.ResponseWriter, *http.Request) {}))
	for _, c := range []struct {
		name, request string
		want          map[string]string
	}{
		{"no body", request("POST", "/t.T/Private", "", "Content-Type: application/grpc+proto", "Content-Length: 0"), map[string]string{
			"Content-Type": "application/grpc+proto", "Grpc-Status": "16", "Grpc-Message": "no_token: a bearer token is needed here",
			"Www-Authenticate": `Bearer realm="photos"`, "Content-Length": "0",
		}},
		{"not allowed", request("POST", "/t.T/Admin", "alice", "Content-Type: application/grpc-web+proto; a=b", "Content-Length: 0"), map[string]string{
			"Content-Type": "application/grpc-web+proto; a=b", "Grpc-Status": "7", "Grpc-Message": "not_allowed: this is not allowed", "Content-Length": "0",
		}},
		{"unavailable", request("POST", "/t.T/Private", "away", "Content-Type: application/grpc", "Content-Length: 0"), map[string]string{
			"Content-Type": "application/grpc", "Grpc-Status": "14", "Grpc-Message": "unavailable: the token cannot be verified now", "Retry-After": "5", "Content-Length": "0",
		}},
		{"method", request("POST", "/t.T/Get", "", "Content-Type: application/grpc", "Content-Length: 0"), map[string]string{
			"Content-Type": "application/grpc", "Grpc-Status": "12", "Grpc-Message": "method: the method is not allowed here", "Allow": "GET, HEAD", "Content-Length": "0",
		}},
		{"a head", request("HEAD", "/t.T/Nowhere", "", "Content-Type: application/grpc"), map[string]string{
			"Content-Type": "application/grpc", "Grpc-Status": "12", "Grpc-Message": "no_route: nothing is here",
		}},
	} {
		conn := g.dial()
		io.WriteString(conn, strings.Replace(c.request, "\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1))
		all, err := io.ReadAll(conn)
		head, body, _ := strings.Cut(string(all), "\r\n\r\n")
		lines := strings.Split(head, "\r\n")
		if err != nil || lines[0] != "HTTP/1.1 200 OK" || body != "" {
			t.Errorf("%s: %v\n%s", c.name, err, all)
		}
		got := map[string]string{}
		for _, l := range lines[1:] {
			name, value, _ := strings.Cut(l, ": ")
			if _, twice := got[name]; twice {
				t.Errorf("%s: %s comes twice", c.name, name)
			}
			got[name] = value
		}
		record := g.outcome().Record
		for name, value := range map[string]string{"X-Request-Id": record, "X-Sidegate-Response": "true", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Connection": "close"} {
			c.want[name] = value
		}
		delete(got, "Date")
		for name := range c.want {
			if got[name] != c.want[name] {
				t.Errorf("%s: %s is %q, not %q", c.name, name, got[name], c.want[name])
			}
			delete(got, name)
		}
		if len(got) != 0 {
			t.Errorf("%s: and %v", c.name, got)
		}
	}
	// With a body that nobody reads there is none in the answer either.
	a := g.raw(request("POST", "/t.T/Private", "", "Content-Type: application/grpc", "Content-Length: 5") + "\x00\x00\x00\x00\x00")
	if a.err != nil || a.StatusCode != 200 || a.body != "" || !a.Close || a.Header.Get("Grpc-Status") != "16" {
		t.Errorf("%+v %q", a.Response, a.body)
	}
}

// TestSpeaksGRPC: who waits for a gRPC status, and who for a problem document.
func TestSpeaksGRPC(t *testing.T) {
	g, _, _ := grpcGate(t, newApp(t, func(http.ResponseWriter, *http.Request) {}))
	for _, c := range []struct {
		types []string
		speak bool
	}{
		{[]string{"application/grpc"}, true},
		{[]string{"application/grpc+proto"}, true},
		{[]string{"application/grpc+json"}, true},
		{[]string{"application/grpc;charset=utf-8"}, true},
		{[]string{"application/grpc-web"}, true},
		{[]string{"application/grpc-web+proto"}, true},
		{[]string{"application/grpc-web-text"}, true},
		{[]string{"Application/GRPC+Proto"}, true},
		{[]string{"application/grpcx"}, false},
		{[]string{"application/grp"}, false},
		{[]string{"application/grpc/a"}, false},
		{[]string{"application/grpc,application/json"}, false},
		{[]string{"a application/grpc"}, false},
		{[]string{"application/json"}, false},
		{[]string{"application/json; a=application/grpc"}, false},
		{[]string{"application/connect+proto"}, false},
		{[]string{""}, false},
		{nil, false},
		{[]string{"application/grpc", "application/grpc"}, false},
		{[]string{"application/json", "application/grpc"}, false},
	} {
		lines := []string{"Content-Length: 0"}
		for _, v := range c.types {
			lines = append(lines, "Content-Type: "+v)
		}
		a := g.send("POST", "/t.T/Private", "", lines...)
		if !c.speak {
			if len(c.types) > 1 { // apps take one of them, and not all the same
				g.checkRefusal(a, 400, codeBadRequest)
			} else {
				g.checkRefusal(a, 401, codeNoToken)
			}
			if a.Header.Get("Grpc-Status") != "" {
				t.Errorf("%q: %v", c.types, a.Header)
			}
			continue
		}
		g.outcome()
		if a.StatusCode != 200 || a.body != "" || a.Header.Get("Grpc-Status") != "16" || a.Header.Get("Content-Type") != c.types[0] {
			t.Errorf("%q: %+v", c.types, a.Response)
		}
	}
	// What the caller accepts says nothing of what it is.
	if a := g.send("POST", "/t.T/Private", "", "Content-Length: 0", "Accept: application/grpc", "Te: trailers"); a.StatusCode != 401 {
		t.Errorf("%+v", a.Response)
	}
}

// TestGRPCAppsAnswerIsTheirs: what an app says to a gRPC caller passes as it is,
// a bare 403 included: the caller's library maps it.
func TestGRPCAppsAnswerIsTheirs(t *testing.T) {
	g, client, _ := grpcGate(t, newApp(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusForbidden)
	}))
	err := client.Invoke(as(t, ""), "/t.T/Public", wrapperspb.String("a"), &wrapperspb.StringValue{})
	if status.Code(err) != codes.PermissionDenied || strings.Contains(err.Error(), codeNotAllowed) {
		t.Errorf("%v", err)
	}
	if o := g.outcome().Outcome; o.Status != 403 {
		t.Errorf("%+v", o)
	}
}

// TestGRPCMessage: every text comes back from a percent-decoder, and none leaves
// what a header can hold.
func TestGRPCMessage(t *testing.T) {
	for _, s := range []string{"", "a b", "100%", "%41", "ü\r\n\x00\x7f", "\xff", strings.Repeat("é", 100)} {
		m := grpcMessage(s)
		if back, err := url.PathUnescape(m); err != nil || back != s || strings.ContainsFunc(m, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q: %q, %q, %v", s, m, back, err)
		}
	}
}

// TestGRPCTable: docs/http.md's table, for every status that a refusal can have.
func TestGRPCTable(t *testing.T) {
	for s, want := range map[int]codes.Code{
		400: codes.Internal, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 404: codes.Unimplemented, 405: codes.Unimplemented,
		409: codes.Unknown, 410: codes.Unknown, 413: codes.ResourceExhausted, 415: codes.Unknown, 422: codes.Unknown, 429: codes.ResourceExhausted,
		500: codes.Internal, 502: codes.Unavailable, 503: codes.Unavailable, 504: codes.DeadlineExceeded,
	} {
		if got := grpcStatus(s); got != int(want) {
			t.Errorf("%d: %d, not %d", s, got, want)
		}
	}
}

// TestGRPCRefusalsAreOnRecord: as many as there were calls, each once.
func TestGRPCRefusalsAreOnRecord(t *testing.T) {
	g, client, _ := grpcGate(t, newApp(t, func(http.ResponseWriter, *http.Request) {}))
	for _, token := range []string{"", "bad", "away"} {
		err := client.Invoke(as(t, token), "/t.T/Private", wrapperspb.String("a"), &wrapperspb.StringValue{})
		if s := new(problem); err == nil || errors.As(err, &s) {
			t.Errorf("%q: %v", token, err)
		}
		g.outcome()
	}
	records := g.ledger()
	if len(records) != 3 {
		t.Errorf("%v", records)
	}
	for id, types := range records {
		if types["decision"] != 1 || types["outcome"] != 1 {
			t.Errorf("%s has %v", id, types)
		}
	}
}

// TestGRPCRecorderIsAway: a call that cannot be put on record is Unavailable.
func TestGRPCRecorderIsAway(t *testing.T) {
	g, client, _ := grpcGate(t, newApp(t, func(http.ResponseWriter, *http.Request) { t.Error("the app was reached") }))
	g.tape.set(func(r *tape) { r.before = errRecord })
	err := client.Invoke(as(t, ""), "/t.T/Public", wrapperspb.String("a"), &wrapperspb.StringValue{})
	if s := status.Convert(err); s.Code() != codes.Unavailable || !strings.HasPrefix(s.Message(), "unavailable: ") || strings.Contains(s.Message(), "disk") {
		t.Errorf("%v", err)
	}
}

// TestGRPCDeadlineOfTheApp: gRPC's servers break off without a word when a
// call's deadline has passed, often before its caller's own clock says so.
func TestGRPCDeadlineOfTheApp(t *testing.T) {
	g, _, _ := grpcGate(t, newApp(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
	defer client.CloseIdleConnections()
	for timeout, want := range map[string]string{"1n": "4", "1H": "14", "": "14", "1": "14"} {
		r, err := http.NewRequest("POST", g.url+"/t.T/Private", strings.NewReader("\x00\x00\x00\x00\x00"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/grpc")
		r.Header.Set("Authorization", "Bearer alice")
		if timeout != "" {
			r.Header.Set("Grpc-Timeout", timeout)
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Grpc-Status"); got != want {
			t.Errorf("within %q: status %s (%s)", timeout, got, res.Header.Get("Grpc-Message"))
		}
		if e := g.outcome().Outcome; (e.Error == codeUpstreamTimeout) != (want == "4") {
			t.Errorf("within %q: %+v", timeout, e)
		}
	}
}

// FuzzGRPCTimeout: what is taken is a number and a unit of the protocol, and
// comes to a time that is not before now.
func FuzzGRPCTimeout(f *testing.F) {
	for _, s := range []string{"1n", "99999999H", "5S", "0m", "+1S", "1", "", "123456789S", "1x", "-1S", " 1S", "8u", "3M"} {
		f.Add(s)
	}
	form := regexp.MustCompile(`^[0-9]{1,8}[HMSmun]$`)
	f.Fuzz(func(t *testing.T, s string) {
		got := grpcTimeout(http.Header{"Grpc-Timeout": {s}})
		if got < 0 || got > 0 && !form.MatchString(s) || got == 0 && form.MatchString(s) && strings.Trim(s[:len(s)-1], "0") != "" {
			t.Errorf("%q is %v", s, got)
		}
	})
}
