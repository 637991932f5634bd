package cmd

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestOneBodyHoldsNoOther: a body that nobody reads takes a part of its
// connection's window, and leaves the rest to others.
func TestOneBodyHoldsNoOther(t *testing.T) {
	c := &Config{}
	c.Listen.IdleTimeout, c.Listen.HeaderTimeout = time.Minute, time.Minute
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	leave := make(chan bool)
	here := make(chan bool, 20)
	s := publicServer(c)
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			here <- true
			<-leave
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		if n != 100_000 {
			w.WriteHeader(400)
		}
	})
	go s.Serve(l)
	defer s.Close()
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: p}}
	ended := make(chan bool)
	for range 20 {
		go func() {
			res, err := client.Post("http://"+l.Addr().String()+"/slow", "", bytes.NewReader(make([]byte, 2<<20)))
			if err == nil {
				res.Body.Close()
			}
			ended <- true
		}()
		<-here
	}
	res, err := client.Post("http://"+l.Addr().String()+"/other", "", bytes.NewReader(make([]byte, 100_000)))
	if err != nil || res.StatusCode != 200 {
		t.Fatal(res, err)
	}
	res.Body.Close()
	close(leave)
	for range 20 {
		<-ended
	}
}
