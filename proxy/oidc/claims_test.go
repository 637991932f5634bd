package oidc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sidegate/proxy"
)

func TestCheckAudience(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	rules := Rules{Issuer: "i", Audiences: []string{"app"}}
	for aud, reason := range map[string]string{
		`"app"`: "", `["app"]`: "", `["other","app"]`: "", `["app","app"]`: "",
		`"other"`: ReasonAudience, `[]`: ReasonAudience, `["app",1]`: ReasonAudience, `[["app"]]`: ReasonAudience, `null`: ReasonAudience,
		`{"app":1}`: ReasonAudience, `"app "`: ReasonAudience, `"APP"`: ReasonAudience, `["ap","p"]`: ReasonAudience, `""`: ReasonAudience,
	} {
		token := &Token{Claims: object(t, fmt.Sprintf(`{"iss":"i","aud":%s,"exp":1800000001}`, aud))}
		_, err := rules.Check(token, now)
		if reason == "" {
			if err != nil {
				t.Errorf("%s: %v", aud, err)
			}
			continue
		}
		wantReason(t, aud, err, reason)
	}
	// Rules that were never filled in let nobody in.
	_, err := Rules{}.Check(&Token{Claims: object(t, `{"iss":"","aud":"","exp":1800000001}`)}, now)
	wantReason(t, "zero rules", err, ReasonIssuer)
	_, err = Rules{Issuer: "i"}.Check(&Token{Claims: object(t, `{"iss":"i","aud":"","exp":1800000001}`)}, now)
	wantReason(t, "no audience", err, ReasonAudience)
}

func TestCheckTimes(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, c := range []struct {
		leeway time.Duration
		times  string
		reason string
	}{
		{0, `"exp":1800000001`, ""},
		{0, `"exp":1800000000`, ReasonExpired},
		{time.Minute, `"exp":1799999941`, ""},
		{time.Minute, `"exp":1799999940`, ReasonExpired},
		{0, `"exp":1800000001,"nbf":1800000000`, ""},
		{0, `"exp":1800000001,"nbf":1800000001`, ReasonNotYet},
		{time.Minute, `"exp":1800000001,"nbf":1800000060`, ""},
		{time.Minute, `"exp":1800000001,"nbf":1800000061`, ReasonNotYet},
		{time.Minute, `"exp":1800000001,"iat":1800000060`, ""},
		{time.Minute, `"exp":1800000001,"iat":1800000061`, ReasonIssuedAt},
		{time.Minute, `"exp":1800000001,"auth_time":1800000061`, ReasonAuthTime},
		{0, `"iat":1`, ReasonClaim},
		{0, `"exp":1800000001.0`, ReasonClaim},
		{0, `"exp":18e8`, ReasonClaim},
		{0, `"exp":"1800000001"`, ReasonClaim},
		{0, `"exp":-1`, ReasonClaim},
		{0, `"exp":0`, ReasonClaim},
		{0, `"exp":253402300799`, ""},
		{0, `"exp":253402300800`, ReasonClaim},
		{0, `"exp":1800000001,"nbf":null`, ReasonClaim},
	} {
		token := &Token{Claims: object(t, `{"iss":"i","aud":"a",`+c.times+`}`)}
		_, err := Rules{Issuer: "i", Audiences: []string{"a"}, Leeway: c.leeway}.Check(token, now)
		if c.reason == "" {
			if err != nil {
				t.Errorf("%s: %v", c.times, err)
			}
			continue
		}
		wantReason(t, c.times, err, c.reason)
	}
	for name, rules := range map[string]Rules{"iat": {Issuer: "i", Audiences: []string{"a"}, IssuedAt: true}, "auth_time": {Issuer: "i", Audiences: []string{"a"}, AuthTime: true}} {
		_, err := rules.Check(&Token{Claims: object(t, `{"iss":"i","aud":"a","exp":1800000001}`)}, now)
		wantReason(t, name+" demanded", err, ReasonClaim)
	}
}

// F10: both times are in the log, so that a clock that is off is recognised.
func TestWrongTimesNameBothClocks(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, times := range []string{`"exp":1799990000`, `"exp":1800000001,"nbf":1800009000`, `"exp":1800000001,"iat":1800009000`} {
		_, err := Rules{Issuer: "i", Audiences: []string{"a"}}.Check(&Token{Claims: object(t, `{"iss":"i","aud":"a",`+times+`}`)}, now)
		var bad *proxy.TokenError
		if !errors.As(err, &bad) || !strings.Contains(bad.Detail, "2027-01-15T08:00:00Z") || strings.Count(bad.Detail, "2027-01-15T") != 2 {
			t.Errorf("%s: %v", times, err)
		}
	}
}

// Reasons go into a quoted string of a header (RFC 6750, section 3).
func TestReasonsFitIntoAChallenge(t *testing.T) {
	for _, reason := range []string{ReasonMalformed, ReasonTooLong, ReasonEncrypted, ReasonHeader, ReasonAlgorithm, ReasonKeyID, ReasonUnknownKey,
		ReasonSignature, ReasonIssuer, ReasonAudience, ReasonTenant, ReasonAmbiguous, ReasonClaim, ReasonSubject, ReasonExpired, ReasonNotYet, ReasonIssuedAt, ReasonAuthTime} {
		for _, r := range reason {
			if r < ' ' || r > '~' || r == '"' || r == '\\' {
				t.Errorf("%q holds %q", reason, r)
			}
		}
	}
}

// What a stranger makes the log write has an end.
func TestDetailIsBounded(t *testing.T) {
	if got := Refuse(ReasonAudience, "%q", strings.Repeat("\u20ac", 1000)).Detail; len(got) > maxDetail+3 || !utf8.ValidString(got) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

func object(t *testing.T, text string) Object {
	t.Helper()
	o, _, err := parseObject([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func FuzzParseObject(f *testing.F) {
	for _, text := range []string{`{"a":[1,2,{"b":null}]}`, `{"a":1,"a":2}`, `{}`, `{"a":1e999}`, "{\"a\":\"\xff\"}", `{"a":"\ud83d\ude00"}`, `[`, `{"a"}`, `{"a":1,}`, ` { "a" : -0.5e+3 , "b" : "\\\"\u0061" , "c":[true,false,null,{}] } `, `{"a":01}`, `{"a":-}`, `{"a":1.}`, `{"a":"\\"`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, _, err := parseObject(data)
		var theirs map[string]any
		d := json.NewDecoder(bytes.NewReader(data))
		d.UseNumber()
		theirErr := d.Decode(&theirs)
		if err == nil && (!json.Valid(data) || theirErr != nil || !reflect.DeepEqual(o.All(), theirs)) {
			t.Fatalf("%q is %v, and by encoding/json %v, %v", data, o.All(), theirs, theirErr)
		}
		checkMembers(t, o, theirs)
		// Only what this reader is stricter about may differ.
		if err == errJSON && json.Valid(data) {
			t.Fatalf("%q is valid", data)
		}
	})
}

// checkMembers holds each way to ask for a member against what encoding/json made
// of a text that was read; of one that was not there is none.
func checkMembers(t *testing.T, o Object, theirs map[string]any) {
	t.Helper()
	names := slices.Sorted(o.Names)
	if o.doc != nil && !slices.Equal(names, slices.Sorted(maps.Keys(theirs))) {
		t.Fatalf("the names are %q", names)
	}
	for _, name := range append(names, "no such member", "") {
		want, there := theirs[name]
		there = there && o.doc != nil
		if is, ok := o.Claim(name); ok != there || there && !reflect.DeepEqual(is, want) || o.Has(name) != there {
			t.Fatalf("%q is %v, %v", name, is, ok)
		}
		text, isText := want.(string)
		number, isNumber := want.(json.Number)
		inner, isObject := want.(map[string]any)
		if is, ok := o.Text(name); ok != (there && isText) || ok && is != text {
			t.Fatalf("the text %q is %q, %v", name, is, ok)
		}
		if is, was, ok := o.number(name); was != there || ok != (there && isNumber) || ok && is != string(number) {
			t.Fatalf("the number %q is %q, %v", name, is, ok)
		}
		member, ok := o.Object(name)
		if ok != (there && isObject) {
			t.Fatalf("the object %q is there: %v", name, ok)
		}
		if ok {
			checkMembers(t, member, inner)
		}
	}
}

// claim is one that must be there.
func claim(of interface {
	Claim(name string) (value any, there bool)
}, name string) any {
	value, _ := of.Claim(name)
	return value
}

// Names that stand twice are refused wherever they stand, and however many there
// are and they are written.
func TestNamesStandOnce(t *testing.T) {
	for n := 1; n < 3*fewNames; n++ {
		var members []string
		for i := range n {
			members = append(members, fmt.Sprintf(`"\u006e%d":{"n0":0,"n1":[]}`, i))
		}
		good := strings.Join(members, ",")
		if o, _, err := parseObject([]byte("{" + good + "}")); err != nil || len(o.All()) != n {
			t.Fatalf("%d: %v", n, err)
		}
		for i := range n {
			for _, twice := range []string{fmt.Sprintf(`"n%d":0`, i), fmt.Sprintf(`"\u006e%d":0`, i)} {
				for _, text := range []string{good + "," + twice, twice + "," + good} {
					if _, _, err := parseObject([]byte(`{"x":[{` + text + "}]}")); err != errTwice {
						t.Fatalf("%s: %v", text, err)
					}
				}
			}
		}
	}
}

// A text whose places would be too long for a node is refused.
func TestLongTextsAreRefused(t *testing.T) {
	text := func(n int) string { return `{"a":"` + strings.Repeat(`\u0061`, n/6) + strings.Repeat("x", n%6) + `"}` }
	if o, _, err := parseObject([]byte(text(maxText - len(text(0))))); err != nil || len(claim(o, "a").(string)) < maxText/6-2 {
		t.Error(err)
	}
	if _, _, err := parseObject([]byte(text(maxText - len(text(0)) + 1))); err != errLong {
		t.Error(err)
	}
	if maxText < MaxTokenBytes {
		t.Error("a token's part may be longer")
	}
}
