package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"github.com/coder/websocket"
)

// An app is the service behind the gateway. It knows nothing of tokens: it
// answers with what it saw. /v1/echo is a WebSocket that sends back what it
// gets, /v1/events an event stream with a line for each request.
type app struct {
	mu       sync.Mutex
	watchers map[chan string]bool
}

func newApp() *app {
	return &app{watchers: map[chan string]bool{}}
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/v1/echo":
		a.echo(w, r)
	case "/v1/events":
		a.events(w, r)
	default:
		a.tell(r.Method + " " + r.URL.Path)
		mirror(w, r)
	}
}

// mirror shows the caller the request as the app got it.
func mirror(w http.ResponseWriter, r *http.Request) {
	headers := map[string]string{}
	for name := range r.Header {
		headers[name] = r.Header.Get(name)
	}
	w.Header().Set("Content-Type", "application/json")
	answer := json.NewEncoder(w)
	answer.SetIndent("", "  ")
	answer.Encode(map[string]any{
		"method":  r.Method,
		"host":    r.Host,
		"path":    r.URL.EscapedPath(),
		"headers": headers,
	})
}

func (a *app) echo(w http.ResponseWriter, r *http.Request) {
	// The gateway decided who may connect; there is no cookie to protect here.
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	hello := "hello " + r.Header.Get("X-Sidegate-Uid")
	if err := c.Write(r.Context(), websocket.MessageText, []byte(hello)); err != nil {
		return
	}
	for {
		kind, message, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

func (a *app) events(w http.ResponseWriter, r *http.Request) {
	lines := make(chan string, 16)
	a.mu.Lock()
	a.watchers[lines] = true
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.watchers, lines)
		a.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	line := "watching as " + r.Header.Get("X-Sidegate-Uid")
	for {
		if _, err := fmt.Fprintf(w, "data: %s\n\n", line); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case line = <-lines:
		case <-r.Context().Done():
			return
		}
	}
}

// tell sends the line to whoever watches; a watcher that is behind misses it.
func (a *app) tell(line string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for w := range a.watchers {
		select {
		case w <- line:
		default:
		}
	}
}
