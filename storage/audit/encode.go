package audit

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"
)

const (
	// maxFree bounds, in bytes as they came, what an event's maps (inputs,
	// shadow, detail) and its list of query names hold together. With maxValue
	// it keeps any line below MaxLine, and that below what Firestore stores.
	maxFree = 24 << 10
	// maxAgent bounds user_agent: it is the one value that strangers choose
	// freely, on every request, and real ones are shorter.
	maxAgent  = 512
	maxRecord = 64      // of a record's id, where it stands in another's event
	maxParts  = 1 << 10 // of parts' numbers: thousands, where they are in a row
	maxSource = 64      // of a summary, in bytes: it is one of three words
	maxDepth  = 16

	// MaxLine bounds a line of the ledger in bytes, without its line feed.
	MaxLine = 1_000_000
)

// An encoder writes events as lines. It is reused: in the steady state it
// allocates nothing. It is not safe for concurrent use.
type encoder struct {
	buf     []byte
	group   string // the object that is being written, for cut
	cut     []string
	free    int // what is left of maxFree
	keys    []string
	random  [1024]byte
	used    int
	gateway []byte // the ledger's own, written once
	stamps  [16]stamp
}

// A stamp is a second as text, up to the point behind it: many events are of one
// second, and a user's auth_time comes again and again.
type stamp struct {
	second int64 // of Unix
	text   []byte
}

func newEncoder(g Gateway) *encoder {
	e := &encoder{used: 1024}
	e.writeGateway(&g)
	e.gateway = e.buf
	e.buf = nil
	return e
}

// line appends the event's line, without line feed, to e.buf.
func (e *encoder) line(ev *Event, now func() time.Time, chain string, seq uint64, prev *[32]byte) {
	e.cut, e.keys, e.group, e.free = e.cut[:0], e.keys[:0], "", maxFree
	e.buf = append(e.buf, `{"type":`...)
	e.value("type", ev.Type, maxValue)
	e.key("id")
	if ev.ID == "" {
		e.randomID()
	} else {
		e.value("id", ev.ID, maxValue)
	}
	e.text("record", ev.Record)
	e.key("time")
	if at := ev.Time; !at.IsZero() {
		e.instant(at)
	} else {
		e.instant(now())
	}
	e.buf = append(e.buf, `,"chain":"`...)
	e.buf = append(e.buf, chain...)
	e.buf = append(e.buf, `","seq":`...)
	e.buf = strconv.AppendUint(e.buf, seq, 10)
	e.buf = append(e.buf, `,"prev":"`...)
	e.buf = hex.AppendEncode(e.buf, prev[:])
	e.buf = append(e.buf, '"')
	e.parts(ev)
	if len(e.cut) > 0 {
		e.key("cut")
		e.list(e.cut)
	}
	e.buf = append(e.buf, '}')
}

func (e *encoder) parts(ev *Event) {
	if ev.Gateway != nil {
		e.comma()
		e.writeGateway(ev.Gateway)
	} else {
		e.buf = append(append(e.buf, ','), e.gateway...)
	}
	if r := ev.Request; r != nil {
		e.open("request")
		e.text("method", r.Method)
		e.text("host", r.Host)
		e.text("path", r.Path)
		e.names("query_keys", r.QueryKeys)
		e.text("ip", r.IP)
		e.textUpTo("user_agent", r.UserAgent, maxAgent)
		e.text("trace", r.Trace)
		e.text("forward_auth", r.ForwardAuth)
		e.textUpTo("batch", r.Batch, maxRecord)
		e.close()
	}
	if k := ev.KeptIdentity; k != nil {
		e.kept(k)
	} else if ev.Identity != nil {
		e.identity(ev.Identity)
	}
	if d := ev.Decision; d != nil {
		e.decision(d)
	}
	if o := ev.Object; o != nil {
		e.open("object")
		e.text("bucket", o.Bucket)
		e.text("key", o.Key)
		e.text("operation", o.Operation)
		e.text("content_type", o.ContentType)
		if o.Size >= 0 {
			e.number("size", o.Size)
		}
		e.time("expires", o.Expires)
		e.text("session", o.Session)
		e.textUpTo("parts", o.Parts, maxParts)
		e.close()
	}
	if o := ev.Outcome; o != nil {
		e.outcome(o)
	}
	if s := ev.System; s != nil {
		e.open("system")
		e.text("event", s.Event)
		e.table("detail", s.Detail)
		e.close()
	}
	if s := ev.Summary; s != nil {
		e.open("summary")
		e.number("repeated", int64(s.Repeated))
		e.textUpTo("source", s.Source, maxSource)
		e.time("from", s.From)
		e.time("to", s.To)
		e.counts("routes", s.Routes)
		e.counts("codes", s.Codes)
		e.close()
	}
}

func (e *encoder) writeGateway(g *Gateway) {
	e.group = "gateway"
	e.buf = append(e.buf, `"gateway":{`...)
	e.text("name", g.Name)
	e.text("version", g.Version)
	e.text("instance", g.Instance)
	e.close()
}

func (e *encoder) identity(i *Identity) {
	e.open("identity")
	e.text("name", i.Name)
	e.text("namespace", i.Namespace)
	e.text("uid", i.UID)
	e.text("actor", i.Actor)
	e.text("tenant", i.Tenant)
	e.text("issuer", i.Issuer)
	e.text("provider", i.Provider)
	e.time("auth_time", i.AuthTime)
	e.text("token_hash", i.TokenHash)
	e.close()
}

func (e *encoder) decision(d *Decision) {
	e.open("decision")
	e.text("effect", d.Effect)
	if d.Status != 0 {
		e.number("status", int64(d.Status))
	}
	e.text("route", d.Route)
	e.text("rule", d.Rule)
	e.text("code", d.Code)
	if d.Policy != (Policy{}) {
		e.key("policy")
		e.buf = append(e.buf, '{')
		e.group = "decision.policy"
		e.text("name", d.Policy.Name)
		e.text("sha256", d.Policy.SHA256)
		e.buf = append(e.buf, '}')
		e.group = "decision"
	}
	e.table("shadow", d.Shadow) // first: inputs may use up all that there is room for
	if d.KeptInputs != nil {
		e.keptInputs(d.KeptInputs)
	} else if len(d.Inputs) > 0 {
		e.inputs(d.Inputs)
	}
	e.close()
}

func (e *encoder) inputs(inputs map[string]any) {
	e.key("inputs")
	e.mapping(inputs, 0)
}

func (e *encoder) outcome(o *Outcome) {
	e.open("outcome")
	e.number("status", int64(o.Status))
	e.number("bytes_in", o.BytesIn)
	e.number("bytes_out", o.BytesOut)
	e.key("ms")
	ms := o.MS
	if math.IsNaN(ms) || math.IsInf(ms, 0) {
		ms = 0
	}
	e.buf = strconv.AppendFloat(e.buf, ms, 'f', 3, 64)
	e.text("upstream", o.Upstream)
	e.text("error", o.Error)
	if o.Truncated {
		e.key("truncated")
		e.buf = append(e.buf, "true"...)
	}
	e.close()
}

func (e *encoder) comma() {
	if c := e.buf[len(e.buf)-1]; c != '{' && c != '[' {
		e.buf = append(e.buf, ',')
	}
}

func (e *encoder) key(name string) {
	b := e.buf
	if c := b[len(b)-1]; c != '{' && c != '[' {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	e.buf = append(b, '"', ':')
}

func (e *encoder) open(name string) {
	e.key(name)
	e.buf = append(e.buf, '{')
	e.group = name
}

func (e *encoder) close() {
	e.buf = append(e.buf, '}')
	e.group = ""
}

func (e *encoder) text(name, v string) { e.textUpTo(name, v, maxValue) }

func (e *encoder) textUpTo(name, v string, limit int) {
	if v != "" {
		e.key(name)
		e.value(name, v, limit)
	}
}

func (e *encoder) number(name string, v int64) {
	e.key(name)
	e.buf = strconv.AppendInt(e.buf, v, 10)
}

func (e *encoder) time(name string, t time.Time) {
	if !t.IsZero() {
		e.key(name)
		e.instant(t)
	}
}

// instant writes a time as RFC 3339 with microseconds: the width is fixed, so
// that times sort as text does. A time beyond the year 9999, which
// RFC 3339 cannot hold, becomes that year's end.
func (e *encoder) instant(t time.Time) {
	second, micros := t.Unix(), uint(t.Nanosecond()/1000)
	if second < yearZero || second > year9999 {
		second, micros = year9999, 0
	}
	s := &e.stamps[uint64(second)%uint64(len(e.stamps))]
	if s.second != second || s.text == nil {
		s.second = second
		s.text = time.Unix(second, 0).UTC().AppendFormat(s.text[:0], `"2006-01-02T15:04:05.`)
	}
	e.buf = append(e.buf, s.text...)
	high, low := micros/1000, micros%1000
	e.buf = append(e.buf, byte('0'+high/100), byte('0'+high/10%10), byte('0'+high%10), byte('0'+low/100), byte('0'+low/10%10), byte('0'+low%10), 'Z', '"')
}

// The first and the last second that RFC 3339 can hold.
var (
	yearZero = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	year9999 = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
)

func (e *encoder) value(name, v string, limit int) {
	if n := cutAt(v, limit); n < len(v) {
		v = v[:n]
		e.wasCut(name)
	}
	e.buf = appendString(e.buf, v)
}

// freeValue is value for what shares maxFree.
func (e *encoder) freeValue(name, v string) {
	if n := cutAt(v, min(maxValue, max(e.free, 0))); n < len(v) {
		v = v[:n]
		e.wasCut(name)
	}
	e.free -= len(v) + 8
	e.buf = appendString(e.buf, v)
}

func (e *encoder) wasCut(name string) {
	if e.group != "" {
		name = e.group + "." + name
	}
	if !slices.Contains(e.cut, name) {
		e.cut = append(e.cut, name)
	}
}

func (e *encoder) list(names []string) {
	e.buf = append(e.buf, '[')
	for _, n := range names {
		e.comma()
		e.buf = appendString(e.buf, n)
	}
	e.buf = append(e.buf, ']')
}

// names writes a list of names; what finds no room is left out and said.
func (e *encoder) names(name string, list []string) {
	if len(list) == 0 {
		return
	}
	e.key(name)
	e.strings(name, list)
}

func (e *encoder) strings(name string, list []string) {
	e.buf = append(e.buf, '[')
	for _, n := range list {
		if e.free <= 0 {
			e.wasCut(name)
			break
		}
		e.comma()
		e.freeValue(name, n)
	}
	e.buf = append(e.buf, ']')
}

func (e *encoder) table(name string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	e.key(name)
	e.buf = append(e.buf, '{')
	from := len(e.keys)
	for k := range m {
		e.keys = append(e.keys, k)
	}
	keys := e.keys[from:]
	slices.Sort(keys)
	for _, k := range keys {
		if e.free <= 0 {
			e.wasCut(name)
			break
		}
		e.comma()
		e.freeValue(name, k)
		e.buf = append(e.buf, ':')
		e.freeValue(name, m[k])
	}
	e.buf = append(e.buf, '}')
	e.keys = e.keys[:from]
}

// counts is table for numbers.
func (e *encoder) counts(name string, m map[string]int) {
	if len(m) == 0 {
		return
	}
	e.key(name)
	e.buf = append(e.buf, '{')
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if e.free <= 0 {
			e.wasCut(name)
			break
		}
		e.comma()
		e.freeValue(name, k)
		e.buf = append(e.buf, ':')
		e.buf = strconv.AppendInt(e.buf, int64(m[k]), 10)
		e.free -= 16
	}
	e.buf = append(e.buf, '}')
}

// mapping writes decision.inputs and the maps in it, keys in order.
func (e *encoder) mapping(m map[string]any, depth int) {
	e.buf = append(e.buf, '{')
	from := len(e.keys)
	for k := range m {
		e.keys = append(e.keys, k)
	}
	// Recursion appends behind end; the keys before it stay where they are,
	// if perhaps in an older array.
	keys := e.keys[from:]
	slices.Sort(keys)
	if i := slices.Index(keys, "claims"); depth == 0 && i >= 0 {
		// The last: they are the issuer's, and may push out what comes after.
		copy(keys[i:], keys[i+1:])
		keys[len(keys)-1] = "claims"
	}
	for _, k := range keys {
		if e.free <= 0 {
			e.wasCut("inputs")
			break
		}
		e.comma()
		e.freeValue("inputs", k)
		e.buf = append(e.buf, ':')
		e.any(m[k], depth+1)
	}
	e.buf = append(e.buf, '}')
	e.keys = e.keys[:from]
}

func (e *encoder) any(v any, depth int) {
	if depth > maxDepth {
		e.wasCut("inputs")
		v = nil
	}
	e.free -= 8
	switch v := v.(type) {
	case nil:
		e.buf = append(e.buf, "null"...)
	case string:
		e.freeValue("inputs", v)
	case bool:
		e.buf = strconv.AppendBool(e.buf, v)
	case json.Number:
		if isNumber(string(v)) {
			e.buf = append(e.buf, v...)
		} else {
			e.notAsItCame(string(v))
		}
	case int:
		e.buf = strconv.AppendInt(e.buf, int64(v), 10)
	case int64:
		e.buf = strconv.AppendInt(e.buf, v, 10)
	case uint64:
		e.buf = strconv.AppendUint(e.buf, v, 10)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			e.notAsItCame(strconv.FormatFloat(v, 'g', -1, 64))
		} else {
			e.float(v)
		}
	case time.Time:
		e.instant(v)
	case []string:
		e.strings("inputs", v)
	case []any:
		e.buf = append(e.buf, '[')
		for _, x := range v {
			if e.free <= 0 {
				e.wasCut("inputs")
				break
			}
			e.comma()
			e.any(x, depth+1)
		}
		e.buf = append(e.buf, ']')
	case map[string]any:
		e.mapping(v, depth)
	default:
		e.notAsItCame(fmt.Sprintf("(a value of type %T)", v))
	}
}

// notAsItCame writes text for what JSON cannot hold, and says so: who reads the
// line must not take it for what was there.
func (e *encoder) notAsItCame(text string) {
	e.wasCut("inputs")
	e.freeValue("inputs", text)
}

// float keeps a float that is a whole number apart from an integer.
func (e *encoder) float(v float64) {
	from := len(e.buf)
	e.buf = strconv.AppendFloat(e.buf, v, 'g', -1, 64)
	if !bytes.ContainsAny(e.buf[from:], ".e") {
		e.buf = append(e.buf, '.', '0')
	}
}

// isNumber says whether s may stand in JSON as a number (RFC 8259, section 6).
// Only text that starts like one can be valid JSON without being another value.
func isNumber(s string) bool {
	return len(s) > 0 && len(s) <= 64 && (s[0] == '-' || s[0] >= '0' && s[0] <= '9') &&
		s[len(s)-1] > ' ' && json.Valid([]byte(s))
}

// randomID writes 128 random bits in hex.
func (e *encoder) randomID() {
	if e.used == len(e.random) {
		rand.Read(e.random[:])
		e.used = 0
	}
	e.buf = append(e.buf, '"')
	e.buf = hex.AppendEncode(e.buf, e.random[e.used:e.used+16])
	e.buf = append(e.buf, '"')
	e.used += 16
}
