package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sidegate/proxy"
)

// logLevelPath is where the admin listener tells the log's level, and takes
// another one.
const logLevelPath = "/log/level"

// What `for` may be: a level that is set for longer is the configuration's.
const (
	levelShortest = time.Second
	levelLongest  = 24 * time.Hour
)

// A levelState is what is told of the log's level.
type levelState struct {
	Level string    `json:"level"`
	Until time.Time `json:"until,omitzero"` // when it goes back by itself
	Then  string    `json:"then,omitempty"` // to this one
}

// A levelChange is what the admin listener is asked for.
type levelChange struct {
	Level string `json:"level"`
	For   string `json:"for,omitempty"` // a duration of Go; empty: until it is changed again
}

// levelControl changes the log's level while the gateway runs.
type levelControl struct {
	level  *logLevel
	mu     sync.Mutex
	then   string // the level that a temporary one goes back to
	until  time.Time
	timer  *time.Timer // nil: the level is for good
	closed atomic.Bool
}

// logLines is what requests' lines hold, and which have one.
func (g *gateway) logLines() proxy.LogLines {
	c := g.s.config.Log
	return proxy.LogLines{Project: g.s.env.get("GOOGLE_CLOUD_PROJECT"), Sampled: c.Sample < 1, Share: c.Sample}
}

func (g *gateway) serveLogLevel(mux *http.ServeMux) {
	g.onClose(g.closeLevels)
	mux.HandleFunc("GET "+logLevelPath, func(w http.ResponseWriter, r *http.Request) {
		if status, err := fromHere(r, levelIs); err != nil {
			writeAdminError(w, status, err)
			return
		}
		writeAdmin(w, http.StatusOK, g.levelState())
	})
	mux.HandleFunc("PUT "+logLevelPath, func(w http.ResponseWriter, r *http.Request) {
		status, err := fromHere(r, levelIs)
		var change levelChange
		var last time.Duration
		if err == nil {
			status = http.StatusBadRequest
			change, last, err = readLevelChange(r)
		}
		if err == nil {
			status = http.StatusServiceUnavailable
			err = g.changeLevel(r.Context(), change.Level, last)
		}
		if err != nil {
			writeAdminError(w, status, err)
			return
		}
		writeAdmin(w, http.StatusOK, g.levelState())
	})
}

// ofCommands are the headers that commands send, such as ours and curl.
var ofCommands = []string{"Accept", "Accept-Encoding", "Connection", "Content-Length", "Content-Type", "User-Agent"}

// levelIs is what fromHere keeps on this machine.
const levelIs = "the log's level is told and changed"

// fromHere, of which what says what it is for, refuses who is not on this machine, and pages in a browser that is:
// also where a name was made to lead here (DNS rebinding). Who comes through a
// proxy beside the gateway may be anybody. Proxies and browsers show themselves by
// what they add, each by something else (Envoy beside an app of a mesh no
// X-Forwarded-For, but X-Forwarded-Proto and X-Request-Id), so that only what is
// known to be a command's passes.
func fromHere(r *http.Request, what string) (status int, err error) {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return http.StatusForbidden, fmt.Errorf("%s on the gateway's own machine only: ask a loopback address", what)
	}
	for name := range r.Header {
		if !slices.Contains(ofCommands, name) {
			return http.StatusForbidden, fmt.Errorf("%s neither to pages nor to who comes through a proxy: the request has the header %s", what, name)
		}
	}
	if host := (&url.URL{Host: r.Host}).Hostname(); !isLoopback(host) {
		return http.StatusForbidden, fmt.Errorf("%s under a loopback address only: ask 127.0.0.1, [::1] or localhost", what)
	}
	return 0, nil
}

func readLevelChange(r *http.Request) (c levelChange, last time.Duration, err error) {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return c, 0, errors.New("the body must be application/json")
	}
	d := json.NewDecoder(io.LimitReader(r.Body, 1<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, 0, errors.New(`the body must be such as {"level": "debug", "for": "10m"}`)
	}
	if !slices.Contains(logLevels(), c.Level) {
		return c, 0, fmt.Errorf("level must be one of %s", strings.Join(logLevels(), ", "))
	}
	if c.For != "" {
		if last, err = time.ParseDuration(c.For); err != nil || checkLevelTime(last) != nil {
			return c, 0, fmt.Errorf("for: %w", checkLevelTime(last))
		}
	}
	return c, last, nil
}

func checkLevelTime(d time.Duration) error {
	if d < levelShortest || d > levelLongest {
		return fmt.Errorf("a duration from %s to %s is wanted, such as 10m", levelShortest, levelLongest)
	}
	return nil
}

func (g *gateway) levelState() levelState {
	g.levels.mu.Lock()
	defer g.levels.mu.Unlock()
	s := levelState{Level: g.levels.level.String()}
	if g.levels.timer != nil {
		s.Until, s.Then = g.levels.until, g.levels.then
	}
	return s
}

// changeLevel sets the level, for so long or (0) for good. The change is on
// record before it is done, so that nobody makes a gateway silent unseen.
func (g *gateway) changeLevel(ctx context.Context, level string, last time.Duration) error {
	l := &g.levels
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return errors.New("the gateway is stopping")
	}
	before := g.levels.level.String()
	detail := map[string]string{"level": level, "before": before}
	if last > 0 {
		detail["for"] = last.String()
	}
	if err := g.recordSystem(ctx, "log_level", detail); err != nil {
		return errors.New("the change cannot be put on record, so the level stays as it is")
	}
	if l.timer == nil {
		l.then = before
	} else {
		l.timer.Stop()
		l.timer = nil
	}
	if last > 0 {
		l.until = time.Now().Add(last)
		l.timer = time.AfterFunc(last, g.levelOver)
	}
	g.setLevel(before, level)
	return nil
}

// setLevel tells of the change in the log, at whichever of the two levels shows
// more.
func (g *gateway) setLevel(before, level string) {
	g.log.Warn().Str("before", before).Str("log_level", level).Msg("the log's level was changed")
	g.levels.level.set(level)
	g.log.Warn().Str("before", before).Str("log_level", level).Msg("this is the log's level from here on")
}

// levelOver goes back to the level before. That nothing else waits for the
// record is on purpose: a disk that is full must not keep the log at debug.
func (g *gateway) levelOver() {
	l := &g.levels
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() || l.timer == nil || time.Now().Before(l.until) { // another change came first
		return
	}
	l.timer = nil
	before := g.levels.level.String()
	g.setLevel(before, l.then)
	if err := g.recordSystem(context.Background(), "log_level", map[string]string{"level": l.then, "before": before}); err != nil {
		g.log.Error().Err(err).Msg("that the log's level went back is not on record")
	}
}

// closeLevels waits for nobody: a change may be waiting for a slow disk.
func (g *gateway) closeLevels() error {
	g.levels.closed.Store(true)
	if g.levels.mu.TryLock() {
		defer g.levels.mu.Unlock()
		if g.levels.timer != nil {
			g.levels.timer.Stop()
		}
	}
	return nil
}

func writeAdmin(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func writeAdminError(w http.ResponseWriter, status int, err error) {
	writeAdmin(w, status, map[string]string{"error": err.Error()})
}
