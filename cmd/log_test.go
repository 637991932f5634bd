package cmd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	stdlog "log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/rs/zerolog"
)

// cloudEntry is what an entry of Cloud Logging holds at most.
const cloudEntry = 256 << 10

// A gated writer blocks while nobody reads, as a pipe that is full.
type gated struct {
	entered chan struct{} // a write has begun
	open    chan struct{} // closed: writes go through
	mu      sync.Mutex
	all     bytes.Buffer
	once    sync.Once
}

func newGated() *gated {
	return &gated{entered: make(chan struct{}), open: make(chan struct{})}
}

func (g *gated) Write(p []byte) (int, error) {
	g.once.Do(func() { close(g.entered) })
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all.Write(p)
}

// TestF28ABlockedLogDropsAndCounts: what nobody reads holds nobody up, takes
// bounded memory, and is counted while it lasts. Afterwards a line says how many
// are missing, and not one is written twice or in part.
func TestF28ABlockedLogDropsAndCounts(t *testing.T) {
	out := newGated()
	q := newLogQueue(out, appendJSONLine)
	log := newLogger(q)
	const total = 100_000
	text := strings.Repeat("x", 100)
	log.Info().Int("n", -1).Msg(text)
	<-out.entered
	for n := range total {
		log.Info().Int("n", n).Msg(text)
	}
	dropped := q.dropped.Load()
	if dropped == 0 || dropped > total-logWaiting/1000 {
		t.Errorf("%d of %d lines are counted as dropped while nobody reads", dropped, total)
	}
	if n := len(q.waiting); n > logWaiting {
		t.Errorf("%d bytes wait", n)
	}
	close(out.open)
	q.close(time.Minute)
	written, told, last := 0, uint64(0), -2
	for line := range strings.Lines(out.all.String()) {
		var l struct {
			N       *int
			Lines   uint64
			Message string
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if l.N == nil {
			told += l.Lines
			continue
		}
		if *l.N <= last {
			t.Fatalf("line %d follows line %d", *l.N, last)
		}
		last = *l.N
		written++
	}
	if uint64(written)+dropped != total+1 || told != dropped || q.dropped.Load() != dropped {
		t.Errorf("%d lines written, %d dropped, %d told of, of %d", written, dropped, told, total+1)
	}
}

// TestF28ALogThatEndsDoesNotWait: a standard error that nobody reads does not keep
// a gateway from ending.
func TestF28ALogThatEndsDoesNotWait(t *testing.T) {
	out := newGated()
	defer close(out.open)
	q := newLogQueue(out, appendJSONLine)
	log := newLogger(q)
	log.Info().Msg("nobody reads this")
	<-out.entered
	q.close(time.Millisecond) // or the test never ends
	log.Info().Msg("too late")
	if n := q.dropped.Load(); n != 1 {
		t.Errorf("%d lines are counted as dropped", n)
	}
}

// A filling disk takes so many bytes, and none then until it is emptied.
type filling struct {
	mu   sync.Mutex
	left int
	all  bytes.Buffer
}

func (f *filling) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(len(p), f.left)
	f.all.Write(p[:n])
	f.left -= n
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

// TestF28AFullDiskDropsWholeLines: the line at which a disk was full is torn, and
// no other: the next one begins on its own, behind a line that tells how many are
// missing.
func TestF28AFullDiskDropsWholeLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &filling{left: 1000}
		q := newLogQueue(f, appendJSONLine)
		log := newLogger(q)
		for n := range 100 {
			log.Info().Int("n", n).Msg("a line")
		}
		time.Sleep(2 * logLinger) // of the bubble: until all are seen to
		synctest.Wait()
		before := q.dropped.Load()
		f.mu.Lock()
		f.left = 1 << 20
		f.mu.Unlock()
		log.Info().Int("n", 100).Msg("a line")
		q.close(time.Minute)
		torn, last, whole := 0, 0, uint64(0)
		var told uint64
		for line := range bytes.Lines(f.all.Bytes()) {
			var l struct {
				N     *int
				Lines uint64
			}
			switch err := json.Unmarshal(line, &l); {
			case err != nil:
				torn++
			case l.N == nil:
				told += l.Lines
			default:
				whole++
				last = *l.N
			}
		}
		if torn > 1 || last != 100 || whole+before != 101 || told != before || q.dropped.Load() != before {
			t.Errorf("%d whole and %d torn lines, the last is %d, %d are told of, %d were dropped, %d in the end:\n%s", whole, torn, last, told, before, q.dropped.Load(), f.all.Bytes())
		}
	})
}

// A keptWrites is a writer that keeps each write by itself.
type keptWrites struct {
	mu     sync.Mutex
	writes []string
}

func (c *keptWrites) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = append(c.writes, string(p))
	return len(p), nil
}

func (c *keptWrites) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.writes)
}

// TestLinesWaitForCompany: what warns, and what was logged before it, is written
// at once, anything else a moment later or when there is enough of it; a write has
// whole lines, and no more than a pipe keeps together.
func TestLinesWaitForCompany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := new(keptWrites)
		q := newLogQueue(out, appendJSONLine)
		log := newLogger(q)
		written := func(want int) []string {
			t.Helper()
			synctest.Wait()
			writes := out.all()
			if len(writes) != want {
				t.Fatalf("%d writes instead of %d: %q", len(writes), want, writes)
			}
			return writes
		}
		for round := range 2 { // as well as the first time
			log.Info().Msg("one")
			log.Info().Msg("two")
			written(2 * round)
			time.Sleep(logLinger)
			written(2*round + 1)
			log.Info().Msg("three")
			written(2*round + 1)
			log.Warn().Msg("four")
			if last := written(2*round + 2)[2*round+1]; strings.Count(last, "\n") != 2 || !strings.Contains(last, "three") {
				t.Fatalf("with what warns came %q", last)
			}
		}
		text := strings.Repeat("x", 1000)
		lines := 0
		for n := 0; n < logCompany; n += len(text) {
			log.Info().Msg(text)
			lines++
		}
		synctest.Wait()
		for _, w := range out.all()[4:] {
			if len(w) > logAtOnce || !strings.HasSuffix(w, "\n") || strings.Count(w, "\n") < 3 && lines > 3 {
				t.Errorf("a write of %d lines, %d bytes", strings.Count(w, "\n"), len(w))
			}
			lines -= strings.Count(w, "\n")
		}
		if lines > 8 { // those that came while the others were written wait on
			t.Errorf("%d lines are not written, though there are enough", lines)
		}
		log.Info().Msg("last")
		q.close(time.Minute)
		if all := out.all(); !strings.Contains(all[len(all)-1], `"last"`) {
			t.Errorf("the end is %q", all[len(all)-1])
		}
	})
}

// hostile are values that strangers may send, or have sent elsewhere.
var hostile = []string{
	"", "plain", "two words", "a\nb", "a\r\n{\"level\":\"error\",\"message\":\"forged\"}", "\x1b[2J\x1b]0;title\a", "\x9b31m", "a\x00b", "\x7f",
	"caf\u00e9", "\u202egnp.exe", "\u2028line", "\u2066", "\u200b", "\ufeff", "\U000e0041tag", "\xff\xfe", "\xed\xa0\x80", "a\" uid=\"admin", `a\" uid=admin \`,
	"uid=admin", "\u0085next", "\u009b2J", strings.Repeat("\xff", 300<<10), strings.Repeat("\u202e", 100<<10), strings.Repeat("\"", 300<<10), strings.Repeat("x", 300<<10),
}

// checkLines holds what a log shows against what must be so of any: as many lines
// as were logged, none longer than an entry of Cloud Logging, nothing that steers
// a terminal or hides.
func checkLines(t *testing.T, shown []byte, want int) {
	t.Helper()
	if n := bytes.Count(shown, []byte("\n")); n != want || !bytes.HasSuffix(shown, []byte("\n")) {
		t.Errorf("%d lines instead of %d: %.300q", n, want, shown)
	}
	for line := range bytes.Lines(shown) {
		if len(line) > cloudEntry {
			t.Errorf("a line of %d bytes", len(line))
		}
		for rest := bytes.TrimSuffix(line, []byte("\n")); len(rest) > 0; {
			r, size := utf8.DecodeRune(rest)
			if r == utf8.RuneError && size == 1 || !unicode.IsPrint(r) {
				t.Fatalf("the line holds %q: %.300q", rest[:size], line)
			}
			rest = rest[size:]
		}
	}
}

func logOne(form func(to, line []byte) []byte, message, value string) []byte {
	var b bytes.Buffer
	log := newLogger(&formWriter{&b, form})
	log.Warn().Str("value", value).Bytes("bytes", []byte(value)).Err(fmt.Errorf("no: %s", value)).
		Dict("httpRequest", zerolog.Dict().Str("requestMethod", value).Str("requestUrl", value).Str("userAgent", value)).Msg(message)
	return b.Bytes()
}

func TestHostileValuesForgeNoLines(t *testing.T) {
	for _, v := range hostile {
		for _, message := range []string{v, "request"} {
			line := logOne(appendJSONLine, message, v)
			checkLines(t, line, 1)
			var l struct{ Severity, Level string }
			if err := json.Unmarshal(line, &l); err != nil || l.Severity != "WARNING" || l.Level != "warn" {
				t.Errorf("%v: %+v: %.200q", err, l, line)
			}
			checkLines(t, logOne(consoleForm{}.appendLine, message, v), 1)
		}
	}
}

func FuzzLogForms(f *testing.F) {
	for _, v := range hostile {
		if len(v) < 100 {
			f.Add("request", v)
			f.Add(v, v)
		}
	}
	f.Fuzz(func(t *testing.T, message, value string) {
		line := logOne(appendJSONLine, message, value)
		checkLines(t, line, 1)
		if len(line) < logLine/2 {
			var l struct{ Value string }
			if err := json.Unmarshal(line, &l); err != nil || l.Value != strings.ToValidUTF8(value, "\ufffd") && utf8.ValidString(value) {
				t.Errorf("%v: %q was logged as %q", err, value, l.Value)
			}
		}
		checkLines(t, logOne(consoleForm{}.appendLine, message, value), 1)
		checkLines(t, consoleForm{}.appendLine(nil, []byte(value)), 1)
	})
}

// TestLineTimes: as package time writes them in the form that has all of it.
func TestLineTimes(t *testing.T) {
	for _, at := range []time.Time{time.Unix(0, 0), time.Unix(0, 999), time.Unix(1, 1_000), time.Unix(1, 999_999_999),
		time.Date(2026, 2, 3, 4, 5, 6, 120_000_000, time.FixedZone("x", 3600)), time.Date(9999, 12, 31, 23, 59, 59, 10_000, time.UTC), time.Now()} {
		want := at.UTC().Format("2006-01-02T15:04:05.000000Z07:00")
		if got := string(appendTime(nil, at)); got != want {
			t.Errorf("%s instead of %s", got, want)
		}
	}
}

// FuzzASCII: what is plain ASCII is found to its end, wherever it ends.
func FuzzASCII(f *testing.F) {
	for n := range 20 {
		f.Add([]byte(strings.Repeat("a", n) + "\u00e9" + strings.Repeat("b", n)))
		f.Add([]byte(strings.Repeat("\x7f", n)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		want := bytes.IndexFunc(b, func(r rune) bool { return r >= utf8.RuneSelf })
		if want < 0 {
			want = len(b)
		}
		if n := ascii(b); n != want {
			t.Errorf("%d instead of %d of %q", n, want, b)
		}
	})
}

func TestConsoleForm(t *testing.T) {
	for line, want := range map[string]string{
		`{"level":"info","httpRequest":{"requestMethod":"GET","requestUrl":"/v1/me","status":200,"responseSize":"12","userAgent":"curl/8.1 (x)","remoteIp":"192.0.2.1","latency":"0.012300s","protocol":"HTTP/1.1"},` +
			`"logging.googleapis.com/trace":"projects/p/traces/t","record":"r1","route":"me","uid":"a b","severity":"INFO","time":"2026-02-03T04:05:06.789012Z","message":"request"}`: //
		"04:05:06.789 INFO  200   12.3ms GET    /v1/me from=192.0.2.1 bytes=12 agent=\"curl/8.1 (x)\"  record=r1 route=me uid=\"a b\"\n",
		`{"level":"warn","error":"no \"way\"","severity":"WARNING","time":"2026-02-03T04:05:06.7Z","message":"the keys\nare away"}`://
		"04:05:06.7 WARN  the keys\\nare away  error=\"no \\\"way\\\"\"\n",
		`{"level":"error","stack":"goroutine 1:\nmain()\n\tmain.go:1\n","time":"2026-02-03T04:05:06.789012Z","message":"panic: no"}`://
		"04:05:06.789 ERROR panic: no\n    | goroutine 1:\n    | main()\n    | \\tmain.go:1\n",
		"no JSON": "no JSON\n",
	} {
		if got := string(consoleForm{}.appendLine(nil, []byte(line))); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
	coloured := string(consoleForm{colour: true}.appendLine(nil, []byte(`{"level":"error","time":"2026-02-03T04:05:06.789012Z","message":"no"}`)))
	if !strings.Contains(coloured, "\x1b[31mERROR\x1b[0m") {
		t.Errorf("%q", coloured)
	}
}

// TestTheLevelChangesAtOnce: in all loggers that were made of the gateway's.
func TestTheLevelChangesAtOnce(t *testing.T) {
	l := newLogLevel("info")
	log := zerolog.New(io.Discard).Sample(l).With().Str("part", "x").Logger()
	for _, level := range []string{"debug", "info", "warn", "error", "info"} {
		l.set(level)
		least, err := zerolog.ParseLevel(level)
		if err != nil || l.String() != level {
			t.Fatalf("%v: %s is %s", err, level, l)
		}
		for _, name := range logLevels() {
			at, _ := zerolog.ParseLevel(name)
			if written := log.WithLevel(at).Enabled(); written != (at >= least) {
				t.Errorf("at %s a line of %s is written: %v", level, name, written)
			}
		}
	}
}

// TestPanicsBesideRequestsShow: of what net/http says, panics are for everybody who
// reads the log. Those of requests have lines of their own; the admin listener's
// and those of a request's own end come only here.
func TestPanicsBesideRequestsShow(t *testing.T) {
	shown := newLines()
	to := serverLog{newLogger(shown).Sample(newLogLevel("info"))}
	_, _ = to.Write([]byte("http: TLS handshake error from 192.0.2.1:1: EOF\n"))
	for _, version := range []string{"http", "http2"} {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("canary1e7") }))
		server.Config.ErrorLog = stdlog.New(to, "", 0)
		server.EnableHTTP2 = version == "http2"
		server.StartTLS()
		defer server.Close()
		if res, err := server.Client().Get(server.URL); err == nil {
			res.Body.Close()
			t.Errorf("%s was answered", res.Proto)
		}
		shown.await(t, `"severity":"ERROR".*"message":"`+version+`: panic serving .*canary1e7`)
	}
	if strings.Contains(shown.String(), "handshake") {
		t.Errorf("the log has %s", shown)
	}
}

// TestNoAnswerInTheLog: net/http's transport tells of an answer that nobody asked
// for with its beginning, be it an app's or a store's.
func TestNoAnswerInTheLog(t *testing.T) {
	shown := newLines()
	stdlog.SetOutput(serverLog{newLogger(shown).Sample(newLogLevel("debug"))})
	defer stdlog.SetOutput(os.Stderr)
	one := "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: canary1e7\r\n\r\n"
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = io.WriteString(conn, one+one)
	}))
	defer app.Close()
	client := app.Client()
	res, err := client.Get(app.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	shown.await(t, "Unsolicited response")
	if strings.Contains(shown.String(), "canary1e7") {
		t.Errorf("the log has %s", shown)
	}
}

// BenchmarkLogQueue is what a line costs the goroutine that writes it.
func BenchmarkLogQueue(b *testing.B) {
	q := newLogQueue(io.Discard, appendJSONLine)
	defer q.close(time.Second)
	log := newLogger(q).Sample(newLogLevel("info"))
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			log.Info().Str("record", "0123456789abcdef0123456789abcdef").Int("status", 200).Msg("request")
		}
	})
}

// TestLinesTakeNoMemory: what a running gateway does to each line, its time, its
// level and the queue, reuses its buffers. A bare line takes some memory where the
// race detector has pools forget what they hold.
func TestLinesTakeNoMemory(t *testing.T) {
	const lines = 100
	l := newLog(settings{config: &Config{}, stderr: io.Discard})
	defer l.close()
	cost := func(log zerolog.Logger) float64 {
		return testing.AllocsPerRun(100, func() {
			for range lines {
				log.Info().Int("status", 200).Msg("request")
			}
		})
	}
	if bare, ours := cost(zerolog.New(io.Discard)), cost(l.Logger); ours-bare >= lines/2 {
		t.Errorf("%d lines take %v pieces of memory, and bare ones %v", lines, ours, bare)
	}
}
