package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxValue bounds each value that a template puts into a key or a prefix.
const maxValue = 256

// A template is text with ${...} in it, parsed at load.
type template struct {
	text  string
	parts []part
	// named: the caller names the key (one capture and nothing else), and every
	// entry holds it against a key_prefix: the rules of keys judge it, not those
	// of values in keys.
	named bool
	// strict: a value that must not stand in a key is an error and no mismatch
	// (in guards, where a mismatch could let pass).
	strict bool
}

// A part is a literal, or a source of text.
type part struct {
	source  source
	literal string // or the name of a capture or claim
}

type source uint8

const (
	sourceLiteral source = iota
	sourceUID
	sourceActor
	sourceIdentity
	sourceTenant
	sourceEmail
	sourceProvider
	sourceClaim
	sourceParam
	sourceParamHash // sha256(params.x)
	sourceBodyKey   // request.key: the key that the body names
	sourceBodyKeyHash
	sourceUUID
	sourceExt
)

var authSources = map[string]source{
	"auth.uid": sourceUID, "auth.actor": sourceActor, "auth.identity": sourceIdentity,
	"auth.tenant": sourceTenant, "auth.email": sourceEmail, "auth.provider": sourceProvider,
}

func parseTemplate(text string) (template, error) {
	t := template{text: text}
	for rest := text; rest != ""; {
		i := strings.Index(rest, "${")
		if i < 0 {
			i = len(rest)
		}
		if i > 0 {
			t.parts = append(t.parts, part{literal: rest[:i]})
			rest = rest[i:]
			continue
		}
		end := strings.IndexByte(rest, '}')
		if end < 0 {
			return t, errors.New("`${` without `}`")
		}
		p, err := parseSource(rest[2:end])
		if err != nil {
			return t, err
		}
		t.parts = append(t.parts, p)
		rest = rest[end+1:]
	}
	return t, nil
}

func parseSource(expr string) (part, error) {
	if s, ok := authSources[expr]; ok {
		return part{source: s}, nil
	}
	if name, ok := strings.CutPrefix(expr, "auth.token."); ok && isIdent(name) {
		return part{sourceClaim, name}, nil
	}
	if name, ok := strings.CutPrefix(expr, "params."); ok && isIdent(name) {
		return part{sourceParam, name}, nil
	}
	if inner, ok := strings.CutPrefix(expr, "sha256("); ok {
		inner, closed := strings.CutSuffix(inner, ")")
		if inner == bodyKey && closed {
			return part{source: sourceBodyKeyHash}, nil
		}
		if name, ok := strings.CutPrefix(inner, "params."); ok && closed && isIdent(name) {
			return part{sourceParamHash, name}, nil
		}
		return part{}, fmt.Errorf("`${%s}`: sha256() takes one capture, as in ${sha256(params.name)}, or request.key", expr)
	}
	switch expr {
	case "uuid":
		return part{source: sourceUUID}, nil
	case "ext":
		return part{source: sourceExt}, nil
	case bodyKey:
		return part{source: sourceBodyKey}, nil
	}
	return part{}, &sourceError{expr}
}

// bodyKey is the name of the key that a request's body names.
const bodyKey = "request.key"

// A sourceError says that ${expr} is nothing that a template can read.
type sourceError struct{ expr string }

func (e *sourceError) Error() string { return e.text(meant(e.expr)) }

func (e *sourceError) text(instead string) string {
	if instead != "" {
		return fmt.Sprintf("`${%s}` is nothing that a template can read; did you mean ${%s}?", e.expr, instead)
	}
	return fmt.Sprintf("`${%s}` is nothing that a template can read; there are ${auth.uid}, ${auth.actor}, ${auth.identity}, ${auth.tenant}, ${auth.email}, ${auth.provider}, ${auth.token.NAME}, ${params.NAME}, ${sha256(params.NAME)}, ${request.key}, ${sha256(request.key)}, ${vars.NAME}, ${uuid}, ${ext}", e.expr)
}

// onPath is err, and of a source that is a capture's name it says so.
func onPath(err error, path *pattern) error {
	var e *sourceError
	if path != nil && errors.As(err, &e) && slices.Contains(path.names(), e.expr) {
		return errors.New(e.text("params." + e.expr))
	}
	return err
}

// meant is the source that other languages of rules call by this name; "": none.
func meant(name string) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	for _, prefix := range []string{"request.auth.token.", "request.auth.", "auth.token.", "auth.claims.", "token.", "claims.", "user.", "auth.", ""} {
		if name != prefix+last || !isIdent(last) {
			continue
		}
		switch last {
		case "uid", "sub", "user_id", "userId":
			return "auth.uid"
		case "email", "actor", "identity", "tenant", "provider":
			return "auth." + last
		}
		if strings.HasSuffix(prefix, "token.") || strings.HasSuffix(prefix, "claims.") {
			return "auth.token." + last
		}
	}
	for _, prefix := range []string{"path.", "param.", "request.params.", "request.path.", "req.params."} {
		if name == prefix+last && isIdent(last) {
			return "params." + last
		}
	}
	for _, source := range append(keysOf(authSources), "uuid", "ext") {
		if strings.EqualFold(source, name) {
			return source
		}
	}
	return ""
}

// input is the name of what a part reads; "" for text and what is made anew.
func (p part) input() string {
	switch p.source {
	case sourceClaim:
		return "auth.token." + p.literal
	case sourceParam, sourceParamHash:
		return "params." + p.literal
	case sourceBodyKey, sourceBodyKeyHash:
		return bodyKey
	case sourceUID:
		return "auth.uid"
	case sourceActor:
		return "auth.actor"
	case sourceIdentity:
		return "auth.identity"
	case sourceTenant:
		return "auth.tenant"
	case sourceEmail:
		return "auth.email"
	case sourceProvider:
		return "auth.provider"
	}
	return ""
}

func (t template) uses(s source) bool {
	for _, p := range t.parts {
		if p.source == s {
			return true
		}
	}
	return false
}

// isParam reports whether the template is one capture and nothing else.
func (t template) isParam() (name string, ok bool) {
	if len(t.parts) == 1 && t.parts[0].source == sourceParam {
		return t.parts[0].literal, true
	}
	return "", false
}

// value is the text that a part stands for; unknown where a claim is of
// another type, no where there is nothing.
func (p part) value(in *Input) (string, verdict) {
	switch p.source {
	case sourceLiteral:
		return p.literal, yes
	case sourceUUID:
		return in.UUID, verdictOf(in.UUID != "")
	case sourceExt:
		return in.Ext, yes
	case sourceParam:
		v, ok := in.Params.Get(p.literal)
		return v, verdictOf(ok)
	case sourceParamHash:
		v, ok := in.Params.Get(p.literal)
		return hashed(v), verdictOf(ok)
	case sourceBodyKey:
		return in.BodyKey, verdictOf(in.BodyKey != "")
	case sourceBodyKeyHash:
		return hashed(in.BodyKey), verdictOf(in.BodyKey != "")
	}
	if in.Identity == nil {
		return "", no
	}
	if name := p.input(); recordable(name) && !in.knows(name) {
		return "", unrecorded
	}
	if p.source != sourceClaim {
		return in.Identity.field(p.source)
	}
	claim, there := in.claim(p.literal)
	if !there {
		return "", no
	}
	s, ok := boundedString(claim)
	if !ok {
		return "", unknown
	}
	return s, verdictOf(s != "")
}

func hashed(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func (id *Identity) field(s source) (string, verdict) {
	var v string
	switch s {
	case sourceUID:
		v = id.UID
	case sourceActor:
		v = id.Actor
	case sourceIdentity:
		v = id.Name
	case sourceTenant:
		v = id.Tenant
	case sourceEmail:
		v = id.Email
	case sourceProvider:
		v = id.Provider
	}
	return v, verdictOf(v != "")
}

// cut takes the template's text off the start of s: no where s does not start
// with it. inKey holds each value to the rules of values in keys.
func (t template) cut(in *Input, s string, inKey bool) (rest string, known verdict) {
	for _, p := range t.parts {
		v, known := p.value(in)
		if known != yes {
			return s, known
		}
		switch {
		case inKey && !p.safe(v) && t.strict:
			return s, unknown
		case (inKey && !p.safe(v)) || !strings.HasPrefix(s, v):
			return s, no
		}
		s = s[len(v):]
	}
	return s, yes
}

// compare reports whether s is the template's text, byte for byte. Nothing
// equals an empty s.
func (t template) compare(in *Input, s string) verdict {
	rest, known := t.cut(in, s, false)
	if known != yes {
		return known
	}
	return verdictOf(s != "" && rest == "")
}

// render makes the text of a key: no where a value is missing or could lead
// out of its segment.
func (t template) render(in *Input) (string, verdict) {
	if t.named {
		return t.parts[0].value(in)
	}
	var space [256]byte
	key := space[:0]
	for _, p := range t.parts {
		v, known := p.value(in)
		if known != yes {
			return "", known
		}
		switch {
		case !p.safe(v) && t.strict:
			return "", unknown
		case !p.safe(v):
			return "", no
		}
		key = append(key, v...)
	}
	return string(key), yes
}

var errNoKey = errors.New("can never be valid in a key: no empty, `.` or `..` segments, no backslash and control characters, at most 1024 bytes")

// check holds a key's template against what no value could mend.
func (t template) check() error {
	var form strings.Builder
	for _, p := range t.parts {
		if p.source == sourceLiteral {
			form.WriteString(p.literal)
		} else {
			form.WriteString("x")
		}
	}
	if err := t.checkSegments(); err != nil {
		return err
	}
	if !ValidKey(form.String()) {
		return errNoKey
	}
	return nil
}

// checkSegments refuses a segment that other values could make the same: two
// free ones, whatever text is between them, as both may hold it; and one with
// ${ext}, which is empty or not as the caller likes, unless what is between
// them has a length and a form that no extension has.
func (t template) checkSegments() error {
	var free, ext, apart bool // what the segment has so far
	for _, p := range t.parts {
		switch {
		case p.source == sourceLiteral:
			if strings.Contains(p.literal, "/") {
				free, ext = false, false
			}
		case !p.free() && p.source != sourceExt:
			apart = true
		case p.free() && free:
			return errors.New("two values stand in one segment: different callers could be given one key; put a `/` between them")
		case !apart && (ext && p.free() || free && p.source == sourceExt):
			return errors.New("a value and ${ext}, which may be empty, stand in one segment: different callers could be given one key; put a `/` or ${uuid} between them")
		default:
			free, ext, apart = free || p.free(), ext || p.source == sourceExt, false
		}
	}
	return nil
}

// free reports whether the part's value is of any length and form.
func (p part) free() bool {
	switch p.source {
	case sourceLiteral, sourceParamHash, sourceBodyKeyHash, sourceUUID, sourceExt:
		return false
	}
	return true
}

// safe reports whether a value may stand in a segment of a key.
func (p part) safe(v string) bool {
	switch {
	case p.source == sourceLiteral || p.source == sourceParamHash || p.source == sourceBodyKeyHash:
		return true
	case p.source == sourceExt && v == "":
		return true
	case v == "" || len(v) > maxValue || v == "." || v == "..":
		return false
	}
	return cleanText(v) && !strings.Contains(v, "/")
}

// cleanText reports whether s is UTF-8 without backslash and control
// characters (C0, DEL, C1, line and paragraph separators, bidi controls).
func cleanText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r == '\\' || isControl(r) {
			return false
		}
	}
	return true
}

// isControl reports whether r controls how text is read or shown: C0, DEL, C1,
// line and paragraph separators, bidi controls.
func isControl(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r < 0xa0, r == 0x2028, r == 0x2029,
		r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
		return true
	}
	return false
}

// normal reports whether s is in Unicode form NFC, as all ASCII is.
func normal(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return norm.NFC.IsNormalString(s)
		}
	}
	return true
}

// maxKey is S3's bound on an object key, in bytes.
const maxKey = 1024

// ValidKey reports whether a key may be signed at all: 1 to 1024 bytes of
// clean text in Unicode form NFC whose segments are neither empty nor dots, so
// that no client, proxy or store reads another key from it.
func ValidKey(key string) bool {
	if key == "" || len(key) > maxKey || !cleanText(key) || !normal(key) {
		return false
	}
	for rest, more := key, true; more; {
		var seg string
		seg, rest, more = strings.Cut(rest, "/")
		if seg == "" || seg == "." || seg == ".." {
			return false
		}
	}
	return true
}
