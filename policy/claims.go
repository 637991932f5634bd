package policy

import (
	"encoding/json"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What a claim may hold at most; more is a wrong type.
const (
	maxElements = 1000
	maxString   = 1 << 10
)

// A claimType is how a policy declares a claim: a scalar, list(scalar) or
// map(scalar).
type claimType struct {
	container string // "", list or map
	scalar    string // string, int, double, bool or timestamp
}

// known is false where the policy declares a claim wrongly.
func (t claimType) known() bool { return t.scalar != "" }

func (t claimType) String() string {
	if t.container == "" {
		return t.scalar
	}
	return t.container + "(" + t.scalar + ")"
}

var claimForm = regexp.MustCompile(`^(?:(list|map)\((string|int|double|bool|timestamp)\)|(string|int|double|bool|timestamp))$`)

// typeRule says what a type may be, for errors.
const typeRule = "string, int, double, bool, timestamp, list(T) or map(T) of these"

// typeWords are what other languages call the types.
var typeWords = map[string]string{
	"integer": "int", "number": "int or double", "long": "int", "int64": "int", "float": "double", "float64": "double", "boolean": "bool",
	"text": "string", "str": "string", "date": "timestamp", "time": "timestamp", "datetime": "timestamp",
	"list": "list(string)", "array": "list(string)", "map": "map(string)", "object": "map(string)", "string[]": "list(string)", "[]string": "list(string)",
	"list<string>": "list(string)", "list[string]": "list(string)", "array(string)": "list(string)", "map(string, string)": "map(string)",
}

// typeHint says what to write in place of a word that is no type.
func typeHint(s string) string {
	if word, ok := typeWords[strings.ToLower(s)]; ok {
		return "write " + word
	}
	return typeRule
}

func parseClaimType(s string) (claimType, bool) {
	m := claimForm.FindStringSubmatch(s)
	if m == nil {
		return claimType{}, false
	}
	return claimType{container: m[1], scalar: m[2] + m[3]}, true
}

// A verdict is what is known of a condition. The zero verdict is no.
type verdict uint8

const (
	no verdict = iota
	yes
	// The others are errors, never a yes. Of several the last counts.
	unknown    // a wrong type, or a condition that failed
	unread     // a document could not be read
	unrecorded // in a replay: what it reads is not on record
)

func verdictOf(b bool) verdict {
	if b {
		return yes
	}
	return no
}

// scalarMatches compares a claim's value with one that the policy wrote: unknown
// where the claim is of another type than it was declared with.
func scalarMatches(scalar string, claim any, want any) verdict {
	switch scalar {
	case "string":
		s, ok := boundedString(claim)
		if !ok {
			return unknown
		}
		return verdictOf(s == want)
	case "bool":
		b, ok := claim.(bool)
		if !ok {
			return unknown
		}
		return verdictOf(b == want)
	case "int":
		n, ok := claim.(json.Number)
		if !ok {
			return unknown
		}
		i, err := strconv.ParseInt(n.String(), 10, 64)
		if err != nil {
			return unknown
		}
		return verdictOf(i == want)
	}
	return unknown
}

func boundedString(v any) (string, bool) {
	s, ok := v.(string)
	return s, ok && len(s) <= maxString
}

// anyOf reports whether a claim of type list(string) holds one of the values.
func anyOf(claim any, values []string) verdict {
	list, ok := claim.([]any)
	if !ok || len(list) > maxElements {
		return unknown
	}
	found := no
	for _, v := range list {
		s, ok := boundedString(v)
		if !ok {
			return unknown
		}
		for _, want := range values {
			if s == want {
				found = yes
			}
		}
	}
	return found
}

// allOf reports whether a claim of type list(string) holds every one of the
// values.
func allOf(claim any, values []string) verdict {
	all := yes
	for i := range values {
		switch v := anyOf(claim, values[i:i+1]); v {
		case no:
			all = no
		case unknown:
			return unknown
		}
	}
	return all
}

// mapHolds reports whether a claim of type map(string) has one of the values
// under the key.
func mapHolds(claim any, key string, values []string) verdict {
	m, ok := claim.(map[string]any)
	if !ok || len(m) > maxElements {
		return unknown
	}
	found := no
	for k, v := range m {
		s, ok := boundedString(v)
		if !ok || len(k) > maxString {
			return unknown
		}
		if k == key && slices.Contains(values, s) {
			found = yes
		}
	}
	return found
}

// maxSkew is how far issuers' clocks may run ahead: the most that an
// identity's leeway can be.
const maxSkew = 5 * time.Minute

// signedInWithin reports whether the sign-in is no older than age. It cannot
// be told without a clock, nor of a sign-in that lies ahead.
func signedInWithin(id *Identity, now time.Time, age time.Duration) verdict {
	if id.AuthTime.IsZero() {
		return no
	}
	since := now.Sub(id.AuthTime)
	if since < -maxSkew { // also where now is the zero Time
		return unknown
	}
	return verdictOf(since <= age)
}
