package cmd

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"sidegate/policy/document"
)

// readTelemetry reads where traces go. The values of headers are never shown:
// they are how the collector knows this gateway.
func (l *configLoader) readTelemetry(v document.Value, c *Config) {
	t := &c.Telemetry
	t.Sample = 0.1
	if !v.Present() {
		return
	}
	m := v.Map(l.keys["telemetry"])
	t.OTLP = l.collectorURL(m.Need("otlp"))
	if v := m.Get("sample"); v.Present() {
		if t.Sample = v.Float(); t.Sample < 0 || t.Sample > 1 {
			v.Errorf("`%s` must be a share from 0 to 1, not %s", v.Path(), v.Quote())
		}
	}
	ca, headers := m.Get("ca"), m.Get("headers")
	t.CA, t.Headers = l.optionalPath(ca), l.collectorHeaders(headers)
	if t.OTLP == nil || t.OTLP.Scheme == "https" {
		return
	}
	if ca.Present() {
		ca.Errorf("`%s` is for an https URL", ca.Path())
	}
	if len(t.Headers) > 0 && !isLoopback(t.OTLP.Hostname()) {
		l.warn(headers, "`%s` are sent without encryption; use an https URL, or a collector on this machine", headers.Path())
	}
}

// collectorURL reads where a collector takes traces: OTLP over HTTP, whose path
// is /v1/traces unless the URL has another (OTLP 1.x, "OTLP/HTTP Request").
func (l *configLoader) collectorURL(v document.Value) *url.URL {
	s, ok := v.Text()
	if !ok {
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || strings.HasSuffix(u.Host, ":"):
		v.Errorf("`%s`: want the URL of a collector, such as http://localhost:4318", v.Path())
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#"):
		v.Errorf("`%s`: want a URL without user, password, query and fragment; what the collector knows this gateway by goes into `telemetry.headers`", v.Path())
	default:
		if strings.Trim(u.Path, "/") == "" {
			u.Path, u.RawPath = "/v1/traces", ""
		}
		return u
	}
	return nil
}

// headerName is a simple token of RFC 9110, section 5.1.
var headerName = newForm(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// ofTheExport are headers that the export sets, or that frame it.
var ofTheExport = []string{"host", "content-type", "content-encoding", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect"}

// collectorHeaders reads what is sent beside the traces.
func (l *configLoader) collectorHeaders(v document.Value) map[string]Secret {
	if !v.Present() {
		return nil
	}
	out, seen := map[string]Secret{}, map[string]bool{}
	for _, e := range v.Entries() {
		name := strings.ToLower(e.Key)
		value := l.secret(e.Value)
		l.warnLiteral(e.Value)
		switch {
		case !headerName.matches(e.Key):
			e.At.Errorf("`%s` is not a header's name", e.At.Path())
		case slices.Contains(ofTheExport, name):
			e.At.Errorf("`%s` is the gateway's to set", e.At.Path())
		case seen[name]:
			e.At.Errorf("`%s` is there already, in another spelling", e.At.Path())
		case strings.ContainsFunc(value.Reveal(), func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
			e.Value.Errorf("`%s` holds a control character", e.Value.Path())
		}
		seen[name], out[e.Key] = true, value
	}
	if len(out) == 0 && !v.Failed() && v.IsMap() {
		v.Errorf("`%s` is empty", v.Path())
	}
	return out
}

// isLoopback reports whether what is sent to a host stays on this machine.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}
