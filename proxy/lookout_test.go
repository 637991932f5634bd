package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// An aheadConn counts the reads of one byte, as net/http asks for them, and those
// of them that were answered with nothing.
type aheadConn struct {
	*strictConn
	ones, spared *atomic.Int64
}

func (c aheadConn) Read(p []byte) (int, error) {
	n, err := c.strictConn.Read(p)
	if len(p) == 1 {
		c.ones.Add(1)
		if n == 0 && err == nil {
			c.spared.Add(1)
		}
	}
	return n, err
}

// TestReadAheadIsOneARequest holds net/http to what the lookout rests on: one read
// of one byte for each request, which nothing is a right answer to.
func TestReadAheadIsOneARequest(t *testing.T) {
	near, far := pair(t)
	defer far.Close()
	var ones, spared atomic.Int64
	c := aheadConn{strict(near, nil).(*strictConn), &ones, &spared}
	c.spare()
	s := &http.Server{ErrorLog: quietLog, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	})}
	defer s.Close()
	l := &oneConn{conn: c, end: make(chan struct{})}
	defer close(l.end)
	go s.Serve(l)
	r := bufio.NewReader(far)
	large := strings.Repeat("b", 100_000)
	sent := int64(0)
	for range 20 {
		for _, one := range []struct{ head, body, echo string }{
			{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "", ""},
			{"GET /" + strings.Repeat("a", 4095) + " HTTP/1.1\r\nHost: a\r\n\r\n", "", ""},
			{"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", "abc", "abc"},
			{fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", len(large)), large, large},
			{"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nabc\r\n0\r\nT: u\r\n\r\n", "abc"},
		} {
			go io.WriteString(far, one.head+one.body)
			res, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(res.Body); err != nil || string(body) != one.echo {
				t.Fatalf("%.20q, %v", body, err)
			}
			if sent++; ones.Load() > sent {
				t.Fatalf("%d reads of one byte for %d requests", ones.Load(), sent)
			}
		}
	}
	// net/http may begin the last one only after the answer.
	if ones.Load() < sent-1 || spared.Load() != ones.Load() {
		t.Errorf("%d requests, %d reads of one byte, %d of them spared", sent, ones.Load(), spared.Load())
	}
}

// TestCallerWhoLeavesInTheMiddle: the app learns soon that nobody waits any more,
// by whatever request of a connection, and it is on record.
func TestCallerWhoLeavesInTheMiddle(t *testing.T) {
	sample := httptest.NewTLSServer(nil)
	defer sample.Close()
	here, left := make(chan bool, 1), make(chan bool, 1)
	g := newGate(t, newApp(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.Header.Get("X-Wait") == "" {
			return
		}
		here <- true
		<-r.Context().Done()
		left <- true
	}))
	secure := httptest.NewUnstartedServer(g.proxy)
	secure.Config.ConnContext, secure.Config.ErrorLog = CountRequests, quietLog
	secure.Listener = StrictFraming(handshaken{secure.Listener, &tls.Config{Certificates: sample.TLS.Certificates}}, nil)
	secure.Start()
	defer secure.Close()
	for name, dial := range map[string]func() net.Conn{
		"plain": g.dial,
		"TLS": func() net.Conn {
			conn, err := tls.Dial("tcp", secure.Listener.Addr().String(), &tls.Config{ServerName: "example.com", RootCAs: pool(t, sample)})
			if err != nil {
				t.Fatal(err)
			}
			return conn
		},
	} {
		for before := range 3 {
			for kind, last := range map[string]string{
				"GET":     request("GET", "/public/a", "", "X-Wait: 1"),
				"length":  request("POST", "/public/a", "", "X-Wait: 1", "Content-Length: 3") + "abc",
				"chunked": request("POST", "/public/a", "", "X-Wait: 1", "Transfer-Encoding: chunked") + "3\r\nabc\r\n0\r\n\r\n",
			} {
				conn := dial()
				r := bufio.NewReader(conn)
				for range before {
					io.WriteString(conn, request("GET", "/public/a", ""))
					if a := g.read(r, "GET"); a.err != nil || a.StatusCode != 200 {
						t.Fatalf("%+v", a)
					}
					g.outcome()
				}
				io.WriteString(conn, last)
				<-here
				conn.Close()
				<-left
				if o := g.outcome().Outcome; o.Error != "client_gone" {
					t.Errorf("%s, %s behind %d: %+v", name, kind, before, o)
				}
			}
		}
	}
}

// TestCallerWhoLeavesIsNoticedSoon, and a caller who stays is not bothered.
func TestCallerWhoLeavesIsNoticedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		left := make(chan time.Time, 1)
		g, _ := inProcessGate(t, func(w http.ResponseWriter, r *http.Request) {
			wait := time.Second
			if r.Header.Get("X-Wait") != "" {
				wait = time.Hour
			}
			select {
			case <-r.Context().Done():
				left <- time.Now()
			case <-time.After(wait):
			}
		})
		for _, stay := range []time.Duration{0, 20 * time.Millisecond, time.Second, 3 * time.Second} {
			conn := g.dial()
			r := bufio.NewReader(conn)
			for range 2 {
				io.WriteString(conn, request("GET", "/public/a", ""))
				if a := g.read(r, "GET"); a.err != nil || a.StatusCode != 200 {
					t.Fatalf("%+v", a)
				}
				g.outcome()
			}
			io.WriteString(conn, request("GET", "/public/a", "", "X-Wait: 1"))
			synctest.Wait()
			begun := time.Now()
			time.Sleep(stay)
			conn.Close()
			if after := (<-left).Sub(begun); after > stay+2*laggardAge {
				t.Errorf("who left after %v: noticed after %v", stay, after)
			}
			if o := g.outcome().Outcome; o.Error != "client_gone" {
				t.Errorf("%+v", o)
			}
		}
	})
}

// TestNoByteIsLostOrOvertaken: requests that come while others are served, cut
// anywhere and at any time, are served in their order and with their bodies.
func TestNoByteIsLostOrOvertaken(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 9))
			g, _ := inProcessGate(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				var wait int
				fmt.Sscan(r.Header.Get("X-Wait"), &wait)
				time.Sleep(time.Duration(wait) * time.Millisecond)
				fmt.Fprintf(w, "%s %s %v", r.Header.Get("X-Number"), body, err)
			})
			var data, want []string
			for i := range 12 {
				headers := []string{fmt.Sprint("X-Number: ", i), fmt.Sprint("X-Wait: ", []int{0, 1, 60, 120, 500}[r.IntN(5)])}
				body := strings.Repeat(string(rune('a'+i)), r.IntN(200))
				want = append(want, fmt.Sprintf("%d %s <nil>", i, body))
				switch {
				case body == "":
					data = append(data, request("GET", "/public/a", "", headers...))
				case r.IntN(2) == 0:
					data = append(data, request("POST", "/public/a", "", append(headers, fmt.Sprint("Content-Length: ", len(body)))...)+body)
				default:
					data = append(data, request("POST", "/public/a", "", append(headers, "Transfer-Encoding: chunked")...)+fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body))
				}
			}
			conn := g.dial()
			defer conn.Close()
			var sender sync.WaitGroup
			defer sender.Wait()
			sender.Go(func() {
				for _, one := range data {
					for pieces := r.IntN(3); one != ""; pieces-- {
						n := len(one)
						if pieces > 0 {
							n = 1 + r.IntN(len(one))
						}
						io.WriteString(conn, one[:n])
						one = one[n:]
						if r.IntN(3) > 0 { // often, a request has ended and the next has not begun
							time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
						}
					}
				}
			})
			in := bufio.NewReader(conn)
			for i, one := range want {
				a := g.read(in, "GET")
				if a.err != nil || a.StatusCode != 200 || a.body != one {
					t.Fatalf("%d, request %d: %+v", seed, i, a)
				}
				g.outcome()
			}
		})
	}
}

// TestAheadOfABufferIsNotSpared: what is inside a request is read as ever, also
// byte by byte, and so is everything where no Proxy looks out.
func TestAheadOfABufferIsNotSpared(t *testing.T) {
	data := "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, spared := range []bool{false, true} {
		c := strict(newScript([]byte(data), func() int { return 1 }), nil).(*strictConn)
		if spared {
			c.spare()
		}
		nothing, p := 0, make([]byte, 1)
		for at := 0; at < len(data); {
			n, err := c.Read(p)
			switch {
			case err != nil || n == 1 && p[0] != data[at]:
				t.Fatal(at, n, err, p)
			case n == 1:
				at++
			default:
				nothing++
				if before := data[:at]; !strings.HasSuffix(before, "abc") {
					t.Fatalf("nothing behind %q", before)
				}
				if n, err = c.Read(make([]byte, 2)); n != 1 || err != nil { // the next request is read
					t.Fatal(n, err)
				}
				at++
			}
		}
		if (nothing == 1) != spared {
			t.Errorf("%v: nothing came %d times", spared, nothing)
		}
	}
}

// TestLaggards: who is late is found, who is early is not, and where there is
// nobody there is no timer.
func TestLaggards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l laggards
		r := rand.New(rand.NewPCG(1, 1))
		var all sync.WaitGroup
		late := 0
		for range 500 {
			began, stays, number := time.Duration(r.IntN(1000))*time.Millisecond, time.Duration(r.IntN(200))*time.Millisecond+time.Microsecond, uint8(r.IntN(256))
			all.Go(func() {
				time.Sleep(began)
				one := &laggard{}
				l.add(one, number)
				time.Sleep(stays)
				one.remove()
				was := one.late
				if was && stays < laggardAge || !was && stays > 2*laggardAge {
					t.Errorf("after %v: %v", stays, was)
				}
				one.remove() // does nothing
			})
			if stays > 2*laggardAge {
				late++
			}
		}
		all.Wait()
		time.Sleep(3 * laggardAge)
		if l.ticking.Load() || l.waiting() || late < 100 {
			t.Error(l.ticking.Load(), l.waiting(), late)
		}
		one := &laggard{}
		l.add(one, 1)
		time.Sleep(2*laggardAge + time.Millisecond)
		if one.remove(); !one.late {
			t.Error("the timer does not come back")
		}
	})
}

// TestWatchdogOfALaggard runs from its begin, whenever it is armed, and never for
// a request that is over.
func TestWatchdogOfALaggard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, after := range []time.Duration{0, time.Second, time.Minute, time.Hour} {
			var ended time.Time
			begun := time.Now()
			w := newWatchdog(time.Minute, func(error) { ended = time.Now() })
			time.Sleep(after)
			w.arm()
			w.arm()
			time.Sleep(2 * time.Hour)
			w.stop()
			if late := ended.Sub(begun) - max(after, time.Minute); late < 0 || late > time.Millisecond {
				t.Errorf("armed after %v: %v", after, ended.Sub(begun))
			}
		}
		w := newWatchdog(time.Minute, func(error) { t.Error("a request that was over was ended") })
		w.stop()
		w.arm()
		time.Sleep(time.Hour)
	})
}
