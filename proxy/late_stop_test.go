package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
)

// TestStopCutsWhatIsServed: a request's context does not hang on its connection's
// before the request is late, and ends with the gateway nevertheless: one that has
// only begun, and one that is late already.
func TestStopCutsWhatIsServed(t *testing.T) {
	for _, late := range []bool{false, true} {
		here, left := make(chan struct{}), make(chan struct{})
		app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(here)
			<-r.Context().Done()
			close(left)
		}))
		defer app.Close()
		g := unserved(t, app.URL)
		base, stop := context.WithCancelCause(context.Background())
		g.server = httptest.NewUnstartedServer(g.proxy)
		g.server.Config.ErrorLog, g.server.Config.ConnContext = quietLog, CountRequests
		g.server.Config.BaseContext = func(net.Listener) context.Context { return base }
		g.server.Listener = StrictFraming(g.server.Listener, nil)
		g.server.Start()
		defer g.server.Close()
		conn, err := net.Dial("tcp", g.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		io.WriteString(conn, request("GET", "/public/a", ""))
		<-here
		if late {
			for g.proxy.laggards.waiting() || g.proxy.laggards.ticking.Load() {
				runtime.Gosched()
			}
		}
		stop(ErrStopping)
		<-left
		if o := g.outcome().Outcome; o.Error != "gateway_stopped" {
			t.Errorf("late %v: %+v", late, o)
		}
	}
}
