package proxy

import (
	"bufio"
	"io"
	"net/http"
	"testing"
)

// TestBoundsOfQuestions: another proxy's questions count as requests do, among
// those that are served and those of a connection.
func TestBoundsOfQuestions(t *testing.T) {
	here, leave := make(chan bool), make(chan bool)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) { here <- true; <-leave })
	g := newGate(t, app, func(o *Options) { o.MaxRequests, o.MaxPerConnection = 1, 2 })
	asked := g.asking(DialectTraefik)
	ended := make(chan answer)
	go func() { ended <- g.send("GET", "/public/a", "") }()
	<-here
	conn := asked.dial()
	r := bufio.NewReader(conn)
	for i, want := range []int{503, 200} {
		if i == 1 {
			leave <- true
			if a := <-ended; a.StatusCode != 200 {
				t.Errorf("%+v", a)
			}
			g.outcome()
		}
		io.WriteString(conn, DialectTraefik.question("GET", "/private/a", "alice"))
		if a := asked.read(r, "GET"); a.err != nil || a.StatusCode != want || a.Close != (i == 1) {
			t.Fatalf("question %d: %+v", i, a)
		}
		if o := g.outcome().Outcome; o.Status != want {
			t.Errorf("%+v", o)
		}
	}
	if _, err := r.ReadByte(); err != io.EOF {
		t.Errorf("the connection is still there: %v", err)
	}
}

// TestBodyThatIsWrongAfterTheAnswerBegan: what was wrong is on record under its
// own name, also where it cannot be answered any more.
func TestBodyThatIsWrongAfterTheAnswerBegan(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			panic(http.ErrAbortHandler)
		}
	})
	g := newGate(t, app, upstream(func(u *Upstream) { u.MaxBody = 1000 }))
	for wrong, want := range map[string]string{
		"3e9\r\n" + string(make([]byte, 1001)) + "\r\n": "too_large",
		"zz\r\n": "bad_request",
	} {
		conn := g.dial()
		io.WriteString(conn, request("POST", "/public/a", "", "Transfer-Encoding: chunked")+"1\r\na\r\n")
		r := bufio.NewReader(conn)
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatal(res, err)
		}
		io.WriteString(conn, wrong)
		if _, err := io.ReadAll(res.Body); err == nil {
			t.Error("half an answer looks whole")
		}
		if o := g.outcome().Outcome; o.Error != want || !o.Truncated {
			t.Errorf("want %s: %+v", want, o)
		}
	}
}
