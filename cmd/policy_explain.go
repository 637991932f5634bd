package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"sidegate/policy"
	"sidegate/policy/document"
	"sidegate/proxy"
	"sidegate/proxy/trial"
	"sidegate/storage/audit"
)

// explainOptions are the flags of `policy explain`.
type explainOptions struct {
	policy, config, tests string
	as, identity, token   string
	host, ip, at, body    string
	format                string
	asJSON                bool
}

func (p *program) newPolicyExplain() *cobra.Command {
	var o explainOptions
	c := &cobra.Command{
		Use:   "explain METHOD URL",
		Short: "Say how a request is decided, and why, rule by rule",
		Long: `Say how the gateway would decide a request: the route, every guard and entry with
what it asks for and what the request has, the decision, the headers that the app
would get, and the key that would be signed. The caller is nobody, a caller of a
test file (--as), one that is written here (--identity), or a token's (--token);
of a token the claims are checked; its header, its signature and whether its
user is revoked are not.`,
		Example: "  sidegate policy explain GET /v1/me --as alice\n" +
			"  sidegate policy explain GET https://api.acme.dev/v1/admin/users --identity '{from: users, uid: u_1, mfa: 2m}' --ip 198.51.100.7\n" +
			"  sidegate policy explain GET /v1/me --token token.txt --config sidegate.yaml --json",
		Args: exactly("METHOD", "URL"),
		RunE: func(c *cobra.Command, args []string) error {
			return p.explainPolicy(c.Context(), args[0], args[1], &o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.policy, "policy", "", "the policy's `file` (default: the test file's, the config's, or policy.yaml)")
	f.StringVar(&o.config, "config", "", "judge with this sidegate.yaml: its identities, upstreams and buckets")
	f.StringVar(&o.tests, "tests", "", "the test `file` with the callers and documents (default: the one beside the policy)")
	f.StringVar(&o.as, "as", "nobody", "a caller of the test file")
	f.StringVar(&o.identity, "identity", "", "a caller as test files write them: '{from: users, uid: u_1, claims: {roles: [admin]}}'")
	f.StringVar(&o.token, "token", "", "the `file` with a caller's token, - for standard input; needs --config")
	f.StringVar(&o.host, "host", "gateway.test", "the host that is asked")
	f.StringVar(&o.ip, "ip", "192.0.2.1", "the caller's address")
	f.StringVar(&o.at, "at", "", "the time, as 2026-03-02T10:00:00+01:00, or now (default: the test file's, with --token now)")
	f.StringVar(&o.body, "body", "", "the request's body, as '{\"contentType\": \"image/png\", \"size\": 1000}'")
	f.StringVar(&o.format, "format", "text", "text or json")
	f.BoolVar(&o.asJSON, "json", false, "the same as --format json")
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	_ = c.MarkFlagFilename("policy", "yaml", "yml")
	_ = c.MarkFlagFilename("tests", "yaml", "yml")
	c.MarkFlagsMutuallyExclusive("as", "identity", "token")
	return c
}

func (p *program) explainPolicy(ctx context.Context, method, target string, o *explainOptions) error {
	if o.format != "text" && o.format != "json" {
		return usageError{fmt.Errorf("--format must be text or json, not %q", o.format)}
	}
	t, err := p.newTryout(o.config)
	if err != nil {
		return err
	}
	g, file, err := o.open(t)
	if err != nil {
		return err
	}
	q := trial.Request{Method: method, Time: time.Now(), Limits: policy.NewLimiter(0)}
	if file != nil {
		q.Lookups = file.Lookups()
		if o.token == "" && o.at != "now" { // a token is of today
			q.Time = file.Now
		}
	}
	if err := o.request(&q, target); err != nil {
		return err
	}
	if err := p.explainCaller(ctx, o, t, g, file, &q); err != nil {
		return err
	}
	j := g.Judge(&q)
	e := explained{request: &q, as: o.caller(), judgement: &j}
	if file != nil && o.token != "" && len(g.Policy.Lookups()) > 0 { // it may be taken for the live answer
		e.documents = file.Name
	}
	if j.Input.Route != nil {
		e.rules = j.Policy.Explain(&j.Input)
	}
	if o.asJSON || o.format == "json" {
		return writeJSON(p.stdout, e.json())
	}
	return e.text(p.stdout, p.colour(p.stdout))
}

func (o *explainOptions) caller() string {
	switch {
	case o.identity != "":
		return "the identity that was given"
	case o.token != "":
		return "the token's caller (its signature is not checked)"
	}
	return o.as
}

// open finds the policy and the test file, which each name the other.
func (o *explainOptions) open(t *tryout) (*trial.Gate, *trial.File, error) {
	path := o.policy
	switch {
	case path != "":
	case o.tests != "":
		f, g, _, err := t.file(o.tests)
		return g, f, err
	case t.config != nil:
		path = t.config.Policy
	default:
		path = "policy.yaml"
	}
	g, err := t.gate(absolute(path))
	if err != nil {
		return nil, nil, err
	}
	tests := o.tests
	if tests == "" {
		tests = strings.TrimSuffix(path, filepath.Ext(path)) + "_test.yaml"
		if _, err := os.Stat(tests); err != nil {
			return g, nil, nil
		}
	}
	data, err := readBounded(tests, maxTestFile)
	if err != nil {
		return nil, nil, fmt.Errorf("read the test file: %w", err)
	}
	f, err := trial.ReadTests(shortPath(absolute(tests)), data, g.Policy, t.namespaces())
	if err != nil {
		return nil, nil, invalid{err}
	}
	return g, f, nil
}

// request reads what the flags say of the request.
func (o *explainOptions) request(q *trial.Request, target string) error {
	q.Host, q.Target = o.host, target
	if strings.Contains(target, "://") {
		u, err := url.Parse(target)
		if err != nil || u.Host == "" {
			return usageError{fmt.Errorf("%q is no URL", target)}
		}
		q.Host = u.Host
		// As it was written: what it would be cleaned to is not what is sent.
		_, rest, _ := strings.Cut(target, "://")
		q.Target = "/"
		switch i := strings.IndexAny(rest, "/?"); {
		case i >= 0 && rest[i] == '/':
			q.Target = rest[i:]
		case i >= 0:
			q.Target += rest[i:]
		}
	}
	var err error
	if q.IP, err = netip.ParseAddr(o.ip); err != nil {
		return usageError{fmt.Errorf("--ip: %q is no address", o.ip)}
	}
	if o.at != "" && o.at != "now" {
		if q.Time, err = time.Parse(time.RFC3339, o.at); err != nil {
			return usageError{fmt.Errorf("--at: %q is no time such as 2026-03-02T10:00:00+01:00", o.at)}
		}
	}
	if o.body != "" {
		q.Body = []byte(o.body)
	}
	return nil
}

// explainCaller finds who asks.
func (p *program) explainCaller(ctx context.Context, o *explainOptions, t *tryout, g *trial.Gate, file *trial.File, q *trial.Request) error {
	var err error
	switch {
	case o.identity != "":
		q.Identity, q.AppCheck, err = trial.ReadIdentity("--identity", o.identity, g.Policy, t.namespaces(), q.Time)
		if err != nil {
			return usageError{err}
		}
	case o.token != "":
		if t.config == nil {
			return usageError{errors.New("--token needs --config: it says whose tokens there are")}
		}
		q.Identity, err = p.tokenCaller(ctx, o.token, t.config, q.Time)
	case o.as != "nobody":
		var callers []string
		if file != nil {
			callers = file.Callers()
			var ok bool
			if q.Identity, q.AppCheck, ok = file.Caller(o.as, q.Time); ok {
				return nil
			}
		}
		return usageError{fmt.Errorf("--as: there is no caller %q in a test file%s", o.as, document.DidYouMean(o.as, callers))}
	}
	return err
}

// tokenCaller is the identity that a token would have. Its claims are checked
// as the gateway checks them; its signature is not, for which the issuer's keys
// would have to be fetched.
func (p *program) tokenCaller(ctx context.Context, path string, c *Config, at time.Time) (*policy.Identity, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(io.LimitReader(os.Stdin, maxSecretBytes+1))
		if len(data) > maxSecretBytes {
			err = fmt.Errorf("standard input is larger than %d KiB", maxSecretBytes>>10)
		}
	} else {
		data, err = readBounded(path, maxSecretBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("read the token: %w", err)
	}
	parts := strings.Split(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(string(data)), "Bearer ")), ".")
	if len(parts) != 3 {
		return nil, errors.New("that is no token: three parts with dots between them")
	}
	return claimsCaller(ctx, parts[1], c, at)
}

// explained is a decision with its reasons.
type explained struct {
	request   *trial.Request
	as        string
	judgement *proxy.Judgement
	rules     policy.Explanation
	documents string // the test file whose documents there are
}

func (e *explained) text(w io.Writer, colour bool) error {
	out := printer{w: w}
	q, j := e.request, e.judgement
	out.line("%s %s%s as %s, from %s, at %s", q.Method, q.Host, audit.Printable(q.Target), e.as, q.IP, q.Time.Format(time.RFC3339))
	if e.documents != "" {
		out.line("documents: those of %s", e.documents)
	}
	switch {
	case len(j.Allowed) > 0:
		out.line("route: none for this method; those of the path: %s", strings.Join(j.Allowed, ", "))
	case e.rules.Route == "":
		out.line("route: none")
	default:
		out.line("route: %s, %s (allow: %s)", e.rules.Route, e.rules.Path, e.rules.Access)
	}
	for _, t := range e.rules.Guards {
		e.rule(&out, "guard, "+t.Kind, t, colour)
	}
	for _, t := range e.rules.Entries {
		e.rule(&out, "entry", t, colour)
	}
	decision := trial.Outcome(j)
	if j.Allow {
		decision = paint(colour, "32")(decision)
	} else {
		decision = paint(colour, "31")(decision)
	}
	out.line("decision: %s (reason %s)", decision, j.Code)
	if j.Detail != "" {
		out.line("the caller is told: %s", j.Detail)
	}
	for _, rule := range slices.Sorted(maps.Keys(j.Shadow)) {
		out.line("in dry_run, %s: %s", rule, j.Shadow[rule])
	}
	switch {
	case !j.Allow && e.rules.Key != "":
		out.line("key that was asked for: %s", audit.Printable(e.rules.Key))
	case j.Key != "":
		out.line("key: %s", audit.Printable(j.Key))
	}
	if j.Headers != nil {
		out.line("headers that the app gets:")
		for _, name := range slices.Sorted(maps.Keys(j.Headers)) {
			out.line("  %s: %s", audit.Printable(name), audit.Printable(strings.Join(j.Headers[name], ", ")))
		}
	}
	return out.err
}

func (e *explained) rule(out *printer, kind string, t policy.RuleTrace, colour bool) {
	dry := ""
	if t.DryRun {
		dry = " (dry_run)"
	}
	mark := map[string]string{policy.Hit: "32", policy.Miss: "33", policy.Error: "31"}[t.Result]
	out.line("%s %s: %s%s", kind, t.Rule, paint(colour, mark)(t.Result), dry)
	for _, f := range t.Fields {
		line := fmt.Sprintf("  %s: %s  %s", f.Result, f.Field, f.Want)
		if f.Field == "" {
			line = "  " + f.Result
		}
		var have []string
		for _, name := range slices.Sorted(maps.Keys(f.Have)) {
			have = append(have, name+" = "+shown(f.Have[name]))
		}
		if len(have) > 0 {
			line += "  [" + strings.Join(have, "; ") + "]"
		}
		if f.Why != "" {
			line += "  (" + audit.Printable(f.Why) + ")"
		}
		out.line("%s", line)
	}
	if t.Why != "" && len(t.Fields) == 0 {
		out.line("  %s", audit.Printable(t.Why))
	}
}

// shown is a value as policies write it; control characters are escaped, since
// it may be a stranger's.
func shown(v any) string {
	switch x := v.(type) {
	case nil:
		return "absent"
	case string:
		return audit.Printable(x)
	case time.Time:
		return x.Format(time.RFC3339)
	}
	data, err := json.Marshal(v)
	if err != nil {
		return audit.Printable(fmt.Sprint(v))
	}
	return visible(string(data))
}

// visible writes what a terminal might obey, and JSON leaves as it is (C1, bidi
// controls), as JSON escapes the rest.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "\\u%04x", r)
		}
	}
	return b.String()
}

// explainedJSON is an explanation for programs.
type explainedJSON struct {
	Request struct {
		Method string    `json:"method"`
		Host   string    `json:"host"`
		Target string    `json:"target"`
		IP     string    `json:"ip"`
		Time   time.Time `json:"time"`
		As     string    `json:"as"`
	} `json:"request"`
	Rules    policy.Explanation `json:"rules"`
	Decision struct {
		Allow  bool   `json:"allow"`
		Status int    `json:"status,omitempty"`
		Reason string `json:"reason"`
		Rule   string `json:"rule,omitempty"`
		Detail string `json:"detail,omitempty"`
		// Methods are those of the path, where the request's is none of them.
		Methods []string          `json:"methods,omitempty"`
		Shadow  map[string]string `json:"shadow,omitempty"`
		Key     string            `json:"key,omitempty"`
	} `json:"decision"`
	Headers http.Header `json:"headers,omitempty"`
}

func (e *explained) json() explainedJSON {
	var out explainedJSON
	q, j := e.request, e.judgement
	out.Request.Method, out.Request.Host, out.Request.Target = q.Method, q.Host, q.Target
	out.Request.IP, out.Request.Time, out.Request.As = q.IP.String(), q.Time, e.as
	out.Rules = e.rules
	out.Decision.Allow, out.Decision.Status, out.Decision.Reason, out.Decision.Rule = j.Allow, j.Status, j.Code, j.Rule
	out.Decision.Detail, out.Decision.Shadow, out.Decision.Methods = j.Detail, j.Shadow, j.Allowed
	if j.Allow {
		out.Decision.Key = j.Key
	}
	out.Headers = j.Headers
	return out
}
