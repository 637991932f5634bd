package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"testing"
	"time"

	"sidegate/storage/audit"
)

// copyOf is an event that a Recorder of a test may keep.
func copyOf(e *audit.Event) *audit.Event {
	c := *e
	c.Request, c.Identity, c.Decision, c.Outcome = copyOfPart(e.Request), copyOfPart(e.Identity), copyOfPart(e.Decision), copyOfPart(e.Outcome)
	if c.Decision != nil {
		c.Decision.Inputs = maps.Clone(c.Decision.Inputs)
		if claims, ok := c.Decision.Inputs["claims"].(map[string]any); ok {
			c.Decision.Inputs["claims"] = maps.Clone(claims)
		}
		if k := c.Decision.KeptInputs; k != nil {
			var kept audit.Decision
			if err := json.Unmarshal([]byte("{"+k.Text+"}"), &kept); err != nil {
				panic(err)
			}
			c.Decision.Inputs, c.Decision.KeptInputs = kept.Inputs, nil
		}
	}
	if c.Request != nil {
		c.Request.QueryKeys = slices.Clone(c.Request.QueryKeys)
	}
	return &c
}

func copyOfPart[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// TestEventsTakeNoMemory: what the audit log is told of a request is made of
// what an earlier one gave back, but for the text of the caller's address. The
// race detector has pools forget what they hold.
func TestEventsTakeNoMemory(t *testing.T) {
	p, x := benchExchange(t)
	if x.decision, _ = p.decide(x); !x.decision.allow {
		t.Fatal(x.decision)
	}
	ctx := context.Background()
	const events = 100
	forgotten := testing.AllocsPerRun(10, func() {
		for range 2 * events {
			papersKept.Put(papersKept.Get())
		}
	})
	n := testing.AllocsPerRun(10, func() {
		for range events {
			if err := errors.Join(x.putOnRecord(ctx), x.noteOutcome(false)); err != nil {
				t.Fatal(err)
			}
		}
	})
	const whole = 10 // pieces at most that papers consist of, with their maps
	if n-whole*forgotten >= 1.5*events {
		t.Errorf("the events of %d requests take %v pieces of memory, of which the pool lost %v", events, n, forgotten)
	}
}

// TestPapersTellNobody: an event holds nothing of the request before.
func TestPapersTellNobody(t *testing.T) {
	p, x := benchExchange(t)
	m := &memory{}
	p.o.Recorder = m
	x.decision, _ = p.decide(x)
	x.decision.shadow = map[string]string{"rule": "deny"}
	x.object, x.question = &audit.Object{Key: "secret"}, &question{dialect: DialectNginx}
	bare := &exchange{p: p, r: &http.Request{}, w: x.w, policy: p.Policy()}
	for range 100 {
		if err := x.putOnRecord(t.Context()); err != nil {
			t.Fatal(err)
		}
		if e := m.last; e.Identity == nil || e.Identity.UID != "alice" || len(e.Request.QueryKeys) != 2 || e.Request.IP == "" || len(e.Decision.Inputs) == 0 || e.Decision.Route == "" {
			t.Fatalf("%+v", e)
		}
		if err := bare.putOnRecord(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := &audit.Event{Type: audit.TypeDecision, Request: &audit.Request{}, Decision: &audit.Decision{
			Effect: "deny", Status: http.StatusInternalServerError, Policy: audit.Policy{Name: p.Policy().Name, SHA256: p.Policy().SHA256},
		}}
		if !reflect.DeepEqual(m.last, want) {
			t.Fatalf("%+v %+v %+v", m.last, m.last.Request, m.last.Decision)
		}
	}
}

// TestOutcomeIsByTheClock: a machine that knew no time yet when the request came has
// it end when the clock says, or its segment would be too old to be kept. No test
// can set a monotonic clock; times further apart than a Duration do the same.
func TestOutcomeIsByTheClock(t *testing.T) {
	x := logged(logProxy(t, io.Discard, LogLines{}))
	x.start = x.p.o.Now().AddDate(-300, 0, 0)
	if e := x.outcomeEvent(new(papers), false); !e.Time.Equal(x.p.o.Now()) {
		t.Errorf("while it goes on: %v, want %v", e.Time, x.p.o.Now())
	}
	x.done = x.p.o.Now().Add(time.Second)
	if e := x.outcomeEvent(new(papers), false); !e.Time.Equal(x.done) {
		t.Errorf("%v, want %v", e.Time, x.done)
	}
}
