package oidc

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func TestParse(t *testing.T) {
	raw := mint(0, "k0", `{"sub":"alice","n":12345678901234567890,"l":[1,{"a":null}]}`)
	token := parsed(t, raw)
	want := map[string]any{"sub": "alice", "n": json.Number("12345678901234567890"),
		"l": []any{json.Number("1"), map[string]any{"a": nil}}}
	if token.Algorithm != RS256 || token.KeyID != "k0" || token.Raw != raw || token.Unsigned() || !reflect.DeepEqual(token.Claims.All(), want) {
		t.Errorf("%+v", token)
	}
	if len(token.Hash()) != 64 || token.Hash() != strings.ToLower(token.Hash()) {
		t.Errorf("hash %q", token.Hash())
	}
}

// The hostile tokens of a whole provider are proxy/firebase's; these are the
// edges of the form itself.
func TestParseEdges(t *testing.T) {
	part := func(json string) string { return b64([]byte(json)) }
	header, signature := part(`{"alg":"RS256","kid":"k"}`), "AAAA"
	token := func(payload string) string { return header + "." + part(payload) + "." + signature }
	deep := func(n int) string {
		return `{"x":` + strings.Repeat("[", n) + strings.Repeat("]", n) + "}"
	}
	fill := MaxTokenBytes - len(header) - len(signature) - 2
	long := strings.Repeat("x", fill/4*3-len(`{"x":""}`))
	for name, c := range map[string]struct{ raw, reason string }{
		"as deep as allowed":         {token(deep(maxDepth - 1)), ""},
		"deeper":                     {token(deep(maxDepth)), ReasonMalformed},
		"as long as allowed":         {token(`{"x":"` + long + `"}`), ""},
		"longer":                     {token(`{"x":"` + long + `xxxx"}`), ReasonTooLong},
		"empty payload object":       {token(`{}`), ""},
		"one name in two objects":    {token(`{"a":{"x":1},"b":{"x":1},"x":1}`), ""},
		"one name twice":             {token(`{"a":1,"a":1}`), ReasonMalformed},
		"one name twice, escaped":    {token(`{"a":1,"\u0061":1}`), ReasonMalformed},
		"one name twice, surrogates": {token(`{"\ud800":1,"\udfff":1}`), ReasonMalformed},
		"empty signature":            {header + "." + part("{}") + ".", ""},
		"newline in the signature":   {token("{}") + "\n", ReasonMalformed},
		"newlines only":              {"\n.\n.\n", ReasonMalformed},
		"percent-encoded dots":       {strings.ReplaceAll(token("{}"), ".", "%2e"), ReasonMalformed},
		"access token type":          {part(`{"alg":"RS256","typ":"application/at+JWT"}`) + "." + part("{}") + ".AAAA", ""},
		"no kid":                     {part(`{"alg":"RS256"}`) + "." + part("{}") + ".AAAA", ""},
	} {
		_, err := Parse(c.raw)
		switch {
		case c.reason == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.reason != "":
			wantReason(t, name, err, c.reason)
		}
	}
}

// Whatever verifies here verifies with go-jose, and the other way round.
func TestSignaturesAsGoJose(t *testing.T) {
	k := fetched(t, newKeys(t, newKeyServer(t, publish(jwks(0, 1))), newClock()))
	for name, raw := range map[string]string{
		"good": mint(0, "k0", `{"a":1}`), "other key": mint(1, "k0", `{"a":1}`), "second key": mint(1, "k1", `{"a":1}`),
	} {
		signed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.RS256})
		if err != nil {
			t.Fatal(err)
		}
		token := parsed(t, raw)
		_, theirs := signed.Verify(testKeys()[token.KeyID[1]-'0'].Public())
		if ours := verify(t, k, raw); (ours == nil) != (theirs == nil) {
			t.Errorf("%s: %v, go-jose: %v", name, ours, theirs)
		}
	}
	// And a token that go-jose made.
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: testKeys()[1], KeyID: "k1"}}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign([]byte(`{"sub":"alice"}`))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(t, k, raw); err != nil {
		t.Error(err)
	}
	// Each bit of its signature counts.
	token := parsed(t, raw)
	for i := range token.signature {
		flipped := *token
		flipped.signature = bytes.Clone(token.signature)
		flipped.signature[i] ^= 1 << (i % 8)
		wantReason(t, "flipped bit", k.Verify(t.Context(), &flipped, []string{RS256}), ReasonSignature)
	}
}

// FuzzParse: what is accepted has one spelling, and go-jose and encoding/json
// read the same in it.
func FuzzParse(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	f.Add(mint(0, "k0", claims(now)))
	f.Add(b64([]byte(`{"alg":"none"}`)) + "." + b64([]byte(`{}`)) + ".")
	for _, header := range []string{`{"alg":"RS256","kid":"k","typ":"JWT"}`, `{"alg":"RS256","crit":["x"]}`, `{"alg":"a","\u0061lg":"b"}`, `[]`} {
		for _, payload := range []string{claims(now), `{"a":{"b":[1,2.5e3,"x\ud800",null,true]}}`, `{"a":1,"a":2}`, `{"A":1,"a":2}`, "{}{}", "\xff"} {
			f.Add(b64([]byte(header)) + "." + b64([]byte(payload)) + ".AAAA")
		}
	}
	f.Fuzz(func(t *testing.T, raw string) {
		token, err := Parse(raw)
		if err != nil {
			return
		}
		parts := strings.Split(raw, ".")
		if len(parts) != 3 || len(raw) > MaxTokenBytes {
			t.Fatalf("%d parts, %d bytes", len(parts), len(raw))
		}
		var decoded [3][]byte
		for i, part := range parts {
			if decoded[i], err = strict.DecodeString(part); err != nil || b64(decoded[i]) != part {
				t.Fatalf("part %d has another spelling", i)
			}
		}
		for i, object := range []map[string]any{token.Header.All(), token.Claims.All()} {
			var theirs map[string]any
			d := json.NewDecoder(bytes.NewReader(decoded[i]))
			d.UseNumber()
			if err := d.Decode(&theirs); err != nil || !reflect.DeepEqual(theirs, object) {
				t.Fatalf("encoding/json reads %v, %v; not %v", theirs, err, object)
			}
		}
		if token.Header.Has("nonce") || token.Unsigned() {
			return // go-jose wants a nonce to be text, and a signature
		}
		signed, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(token.Algorithm)})
		if err != nil {
			t.Fatalf("go-jose: %v", err)
		}
		if !bytes.Equal(signed.UnsafePayloadWithoutVerification(), decoded[1]) || signed.Signatures[0].Header.KeyID != token.KeyID {
			t.Fatal("go-jose reads something else")
		}
	})
}

// TestNoHeaderRemembered: a desk that has read no token does not take an empty
// first part for the last one's.
func TestNoHeaderRemembered(t *testing.T) {
	for range 100 {
		desks = sync.Pool{New: desks.New}
		if _, err := Parse(".e30.e30"); err == nil {
			t.Fatal("a token without a header was read")
		}
	}
}

// TestRememberedHeader: a header that is read again says what it said, for each
// of many tokens, whoever reads them at once.
func TestRememberedHeader(t *testing.T) {
	now := time.Now()
	a, b := mint(0, "k0", claims(now)), mint(1, "k1", claims(now))
	bad := b64([]byte(`{"alg":"RS256","kid":"k0","crit":["x"]}`)) + a[strings.IndexByte(a, '.'):]
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 200 {
				for text, kid := range map[string]string{a: "k0", b: "k1"} {
					if token, err := Parse(text); err != nil || token.KeyID != kid || claim(token.Header, "kid") != kid || token.Algorithm != RS256 {
						t.Errorf("%+v, %v", token, err)
					}
				}
				if _, err := Parse(bad); err == nil {
					t.Error("crit was taken")
				}
			}
		})
	}
	wg.Wait()
}
