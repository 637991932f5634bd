package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones are the same everywhere, also where the machine has none

	"sidegate/policy/document"
)

// readPrefixes reads a list of addresses and networks.
func readPrefixes(v document.Value) []netip.Prefix {
	var out []netip.Prefix
	for _, e := range texts(v) {
		s := e.Show()
		p, err := netip.ParsePrefix(s)
		if addr, aerr := netip.ParseAddr(s); aerr == nil {
			p, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		switch {
		case err != nil || p.Addr().Zone() != "":
			e.Errorf("%q is no network: write it as 198.51.100.0/24, 2001:db8:5::/48, or as one address", s)
		case p.Addr().Is4In6():
			e.Errorf("%q: write IPv4 as IPv4; callers' addresses are compared in that form", s)
		case p != p.Masked():
			e.Errorf("%q has bits set behind its length; write %s, or the address alone", s, p.Masked())
		default:
			out = append(out, p)
		}
	}
	return out
}

// addressIn reports whether the caller's address lies in one of the networks;
// it cannot be told of an address that is not known.
func addressIn(ip netip.Addr, networks []netip.Prefix) verdict {
	if !ip.IsValid() {
		return unknown
	}
	ip = ip.Unmap().WithZone("")
	for _, p := range networks {
		if p.Contains(ip) {
			return yes
		}
	}
	return no
}

// A schedule is when in the week something holds.
type schedule struct {
	days  [7]bool // by time.Weekday
	hours []span  // none: the whole day
	zone  *time.Location
}

// A span is a part of the day in minutes since midnight, the end not within it.
// One whose end is not after its start goes on past midnight, and counts to the
// day on which it began.
type span struct{ from, to int }

var timeKeys = document.Keys{Known: []string{"days", "hours", "zone"}}

func readSchedule(v document.Value) *schedule {
	m := v.Map(timeKeys)
	if !m.IsMap() {
		return nil
	}
	s := &schedule{zone: time.UTC, days: [7]bool{true, true, true, true, true, true, true}}
	days, hours := m.Get("days"), m.Get("hours")
	if !days.Present() && !hours.Present() {
		v.Errorf("`%s` needs `days` or `hours`", v.Path())
	}
	if days.Present() {
		s.days = [7]bool{}
		for _, e := range oneOrMore(days) {
			readDays(e, &s.days)
		}
	}
	for _, e := range oneOrMore(hours) {
		if h, ok := readSpan(e); ok {
			s.hours = append(s.hours, h)
		}
	}
	if z := m.Get("zone"); z.Present() {
		name, ok := z.Text()
		zone, err := time.LoadLocation(name)
		switch {
		case !ok:
		case err != nil || name == "" || name == "Local":
			z.Errorf("%q is no time zone: write it as Europe/Berlin or UTC", name)
		default:
			s.zone = zone
		}
	}
	return s
}

// oneOrMore reads a string or a list of strings.
func oneOrMore(v document.Value) []document.Value {
	if v.IsList() {
		return texts(v)
	}
	if _, ok := v.Text(); !ok {
		return nil
	}
	return []document.Value{v}
}

var dayNames = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// readDays reads `mon`, or `mon-fri`, or `fri-mon`, which goes round.
func readDays(v document.Value, days *[7]bool) {
	first, last, isRange := strings.Cut(v.Show(), "-")
	from, to := slices.Index(dayNames, first), slices.Index(dayNames, last)
	if !isRange {
		to = from
	}
	if from < 0 || to < 0 {
		v.Errorf("%q are no days: write sun, mon, tue, wed, thu, fri, sat, or a range as mon-fri", v.Show())
		return
	}
	for d := from; ; d = (d + 1) % 7 {
		days[d] = true
		if d == to {
			return
		}
	}
}

func readSpan(v document.Value) (span, bool) {
	from, to, ok := strings.Cut(v.Show(), "-")
	a, okA := minutes(from)
	b, okB := minutes(to)
	if okA && okB && a == b {
		v.Errorf("%q starts and ends at the same time: leave `hours` out for the whole day", v.Show())
		return span{}, false
	}
	if !ok || !okA || !okB || a == b || a == 24*60 {
		v.Errorf("%q is no part of a day: write it as \"07:00-20:00\"; the end is not within it, and may be past midnight", v.Show())
		return span{}, false
	}
	return span{a, b}, true
}

func minutes(s string) (int, bool) {
	if len(s) != 5 || s[2] != ':' {
		return 0, false
	}
	h, errH := strconv.ParseUint(s[:2], 10, 8)
	m, errM := strconv.ParseUint(s[3:], 10, 8)
	at := int(h)*60 + int(m)
	return at, errH == nil && errM == nil && m < 60 && at <= 24*60
}

// holds reports whether the moment lies within; it cannot be told without one.
func (s *schedule) holds(at time.Time) verdict {
	if at.IsZero() {
		return unknown
	}
	at = at.In(s.zone)
	today := at.Weekday()
	if len(s.hours) == 0 {
		return verdictOf(s.days[today])
	}
	minute, yesterday := at.Hour()*60+at.Minute(), (today+6)%7
	for _, h := range s.hours {
		switch {
		case h.from < h.to && minute >= h.from && minute < h.to && s.days[today],
			h.from > h.to && minute >= h.from && s.days[today],
			h.from > h.to && minute < h.to && s.days[yesterday]:
			return yes
		}
	}
	return no
}
