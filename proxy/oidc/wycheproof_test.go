package oidc

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The vectors, and what their module must be.
const (
	vectorsModule = "github.com/c2sp/wycheproof@v0.0.0-20260902155932-3fa63dd0344a"
	vectorsSum    = "h1:pNbL2nztRsWfW/ispAwsvcDFxs9Id38uIsR2/Up5G2c="
)

// vectors is the folder of the vectors. They come as any Go module does, by the
// go command that runs the tests: from its cache, or over the network once. They
// are no requirement of go.mod, since theirs of a Go version would become one of
// everybody who builds the gateway, and 107 MB of files part of this test.
var vectors = sync.OnceValues(func() (string, error) {
	command := exec.Command("go", "mod", "download", "-json", vectorsModule)
	command.Dir = os.TempDir() // outside of this module, whose files stay as they are
	command.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GO111MODULE=on")
	answer, err := command.Output()
	var module struct{ Dir, Sum, Error string }
	if jsonErr := json.Unmarshal(answer, &module); jsonErr != nil || module.Error != "" || module.Dir == "" {
		return "", fmt.Errorf("go mod download %s: %v %s", vectorsModule, err, module.Error)
	}
	if module.Sum != vectorsSum {
		return "", fmt.Errorf("%s is %s, not %s", vectorsModule, module.Sum, vectorsSum)
	}
	return filepath.Join(module.Dir, "testvectors_v1"), nil
})

// readVectors reads a file of Wycheproof's.
func readVectors[Group any](t *testing.T, file string) []Group {
	t.Helper()
	folder, err := vectors()
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skipf("the vectors are missing; `go mod download %s` gets them: %v", vectorsModule, err)
	}
	data, err := os.ReadFile(filepath.Join(folder, file))
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Groups []Group `json:"testGroups"`
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return vectors.Groups
}

// parseAnyPayload is Parse for payloads that are not JSON objects, as most of
// the vectors': everything of the form counts but what the payload holds.
func parseAnyPayload(raw string) (*Token, error) {
	if strings.Count(raw, ".") != 2 {
		_, err := Parse(raw)
		if err == nil {
			err = Refuse(ReasonMalformed, "Parse took another number of parts than 3")
		}
		return nil, err
	}
	first, second := strings.IndexByte(raw, '.'), strings.LastIndexByte(raw, '.')
	t := &Token{Raw: raw, signed: raw[:second]}
	d := desks.Get().(*desk)
	defer desks.Put(d)
	d.text = append(d.text[:0], raw...)
	if err := d.header(t, raw[:first]); err != nil {
		return nil, err
	}
	if _, err := d.decode(d.text[first+1:second], "payload"); err != nil {
		return nil, err
	}
	signature, err := d.decode(d.text[second+1:], "signature")
	if err != nil {
		return nil, err
	}
	t.signature = bytes.Clone(signature)
	return t, nil
}

type jwsGroup struct {
	Comment string
	Public  json.RawMessage // a JWK or a set of them; none: the key is a secret
	Tests   []struct {
		ID      int `json:"tcId"`
		Comment string
		JWS     json.RawMessage
		Result  string
	}
}

// No signature that Wycheproof calls invalid verifies, and of those that it
// calls valid every one of our algorithms does. The issuer publishes the
// vectors' keys as they stand in them, over HTTP.
func TestWycheproofJWS(t *testing.T) {
	valid, invalid, others := map[string]int{}, 0, 0
	for _, file := range []string{"json_web_signature_test.json", "json_web_key_test.json", "json_web_crypto_test.json"} {
		for _, group := range readVectors[jwsGroup](t, file) {
			body := `{"keys":[]}`
			var list struct{ Keys json.RawMessage }
			switch {
			case json.Unmarshal(group.Public, &list) == nil && list.Keys != nil:
				body = string(group.Public)
			case group.Public != nil:
				body = `{"keys":[` + string(group.Public) + `]}`
			}
			s := newKeyServer(t, publish(body))
			k, err := NewKeySet(KeySetOptions{URL: s.URL, AllowHTTP: true, NoKeyID: true})
			if err != nil {
				t.Fatal(err)
			}
			_ = k.Prefetch(t.Context()) // fails where no key can be used: then nothing verifies
			for _, c := range group.Tests {
				name := fmt.Sprintf("%s %d %s (%s)", file, c.ID, c.Comment, group.Comment)
				var raw string
				if json.Unmarshal(c.JWS, &raw) != nil {
					raw = string(c.JWS) // the JSON serialization, or a JWE's
				}
				token, err := parseAnyPayload(raw)
				ours := err == nil && slices.Contains(Algorithms(), token.Algorithm)
				if err == nil {
					err = k.Verify(t.Context(), token, Algorithms())
				}
				switch {
				case c.Result == "valid" && ours:
					valid[token.Algorithm]++
					if err != nil {
						t.Errorf("%s: refused: %v", name, err)
					}
				case err == nil:
					t.Errorf("%s: accepted", name)
				case c.Result == "valid":
					others++ // HMAC, SHA-384 and SHA-512 with RSA, P-521: not ours
				default:
					invalid++
				}
				// Whole, with its payload: only a JSON object is a token.
				if token, err := Parse(raw); err == nil && k.Verify(t.Context(), token, Algorithms()) == nil && c.Result != "valid" {
					t.Errorf("%s: accepted by Parse", name)
				}
			}
		}
	}
	t.Logf("accepted %v; refused %d invalid, %d of other algorithms", valid, invalid, others)
	if valid[RS256] < 10 || valid[PS256] < 6 || valid[ES256] < 3 || invalid < 450 || others < 38 {
		t.Errorf("too few vectors ran, or other ones: accepted %v; refused %d invalid, %d of other algorithms", valid, invalid, others)
	}
}

type primitiveGroup struct {
	DER       string `json:"publicKeyDer"`
	KeyDER    string `json:"keyDer"` // sig_gen files
	SHA       string
	MGFSHA    string `json:"mgfSha"`
	SaltBytes int    `json:"sLen"`
	Tests     []struct {
		ID      int `json:"tcId"`
		Comment string
		Msg     string
		Sig     string
		Result  string
		Flags   []string
	}
}

// The signatures themselves, by the vectors of their primitives. A file of
// another hash, salt, curve or encoding than the algorithm's holds nothing that
// verifies, whatever the vectors say of it.
func TestWycheproofPrimitives(t *testing.T) {
	sha256 := func(g primitiveGroup) bool { return g.SHA == "SHA-256" }
	pss := func(g primitiveGroup) bool { return g.SHA == "SHA-256" && g.MGFSHA == "SHA-256" && g.SaltBytes == 32 }
	all := func(primitiveGroup) bool { return true }
	none := func(primitiveGroup) bool { return false }
	// The signatures in files for something else that are the algorithm's, and
	// that those files therefore call invalid.
	odd := map[string]int{
		"RS256 with rsa_signature_2048_sha384_test.json":     221, // with SHA-256
		"RS256 with rsa_signature_2048_sha512_test.json":     221,
		"RS256 with rsa_signature_2048_sha3_256_test.json":   221,
		"RS256 with rsa_signature_2048_sha512_256_test.json": 221,
		"RS256 with rsa_pss_2048_sha256_mgf1_32_test.json":   108, // PKCS #1 v1.5
		"PS256 with rsa_signature_2048_sha256_test.json":     257, // PSS
		"PS256 with rsa_pss_2048_sha256_mgf1_0_test.json":    69,  // a salt of 32 bytes
	}
	for _, c := range []struct {
		alg, file string
		ours      func(primitiveGroup) bool
		valid     int // at least so many are accepted
		invalid   int // and refused
	}{
		{RS256, "rsa_signature_2048_sha256_test.json", sha256, 9, 249},
		{RS256, "rsa_signature_3072_sha256_test.json", sha256, 7, 249},
		{RS256, "rsa_signature_4096_sha256_test.json", sha256, 7, 249},
		{RS256, "rsa_signature_8192_sha256_test.json", sha256, 7, 250},
		{RS256, "rsa_pkcs1_2048_sig_gen_test.json", sha256, 8, 16},
		{RS256, "rsa_pkcs1_3072_sig_gen_test.json", sha256, 8, 16},
		{RS256, "rsa_pkcs1_4096_sig_gen_test.json", sha256, 8, 16},
		{RS256, "rsa_pkcs1_1024_sig_gen_test.json", none, 0, 20}, // keys that are too short
		{RS256, "rsa_pkcs1_1536_sig_gen_test.json", none, 0, 20},
		{RS256, "rsa_signature_2048_sha384_test.json", none, 0, 250},
		{RS256, "rsa_signature_2048_sha512_test.json", none, 0, 250},
		{RS256, "rsa_signature_2048_sha3_256_test.json", none, 0, 250},
		{RS256, "rsa_signature_2048_sha512_256_test.json", none, 0, 250},
		{RS256, "rsa_pss_2048_sha256_mgf1_32_test.json", none, 0, 100},
		{PS256, "rsa_pss_2048_sha256_mgf1_32_test.json", pss, 60, 40},
		{PS256, "rsa_pss_3072_sha256_mgf1_32_test.json", pss, 60, 40},
		{PS256, "rsa_pss_4096_sha256_mgf1_32_test.json", pss, 60, 40},
		{PS256, "rsa_pss_misc_test.json", pss, 1, 149},
		{PS256, "rsa_pss_2048_sha256_mgf1_0_test.json", none, 0, 100},
		{PS256, "rsa_pss_2048_sha256_mgf1sha1_20_test.json", none, 0, 100},
		{PS256, "rsa_pss_2048_sha384_mgf1_48_test.json", none, 0, 100},
		{PS256, "rsa_signature_2048_sha256_test.json", none, 0, 250},
		{ES256, "ecdsa_secp256r1_sha256_p1363_test.json", all, 170, 85},
		{ES256, "ecdsa_secp256r1_sha256_test.json", none, 0, 480}, // in ASN.1
		{ES256, "ecdsa_secp256r1_sha512_p1363_test.json", none, 0, 280},
		{ES256, "ecdsa_secp256k1_sha256_p1363_test.json", none, 0, 250}, // no key of ours
		{ES256, "ecdsa_secp384r1_sha384_p1363_test.json", none, 0, 270},
		{ES384, "ecdsa_secp384r1_sha384_p1363_test.json", all, 190, 85},
		{ES384, "ecdsa_secp384r1_sha384_test.json", none, 0, 480},
		{ES384, "ecdsa_secp384r1_sha512_p1363_test.json", none, 0, 280},
		{ES384, "ecdsa_secp521r1_sha512_p1363_test.json", none, 0, 280},
		{EdDSA, "ed25519_test.json", all, 88, 60},
	} {
		// Verify only runs an algorithm with a key that fits it, so that one
		// which does not refuses everything.
		verify := func(key crypto.PublicKey, signed, signature []byte) bool {
			a := algorithms[c.alg]
			return len(signature) > 0 && checkKey(key) == nil && a.fits(key) && a.verify(key, a.digest(signed), signature)
		}
		accepted, refused, unsure := 0, 0, 0
		here := fmt.Sprintf("%s with %s", c.alg, c.file)
		for _, group := range readVectors[primitiveGroup](t, c.file) {
			der, err := hex.DecodeString(group.DER + group.KeyDER)
			if err != nil || len(der) == 0 {
				t.Fatalf("%s: no key: %v", c.file, err)
			}
			key, err := x509.ParsePKIXPublicKey(der)
			if err != nil {
				key = nil // a curve or key that crypto/x509 does not know
			}
			for _, test := range group.Tests {
				msg, msgErr := hex.DecodeString(test.Msg)
				sig, sigErr := hex.DecodeString(test.Sig)
				if msgErr != nil || sigErr != nil {
					t.Fatalf("%s %d: %v, %v", c.file, test.ID, msgErr, sigErr)
				}
				ok := verify(key, msg, sig)
				switch {
				case odd[here] == test.ID:
					if !ok {
						t.Errorf("%s: %d %s: refused", here, test.ID, test.Comment)
					}
				case test.Result == "acceptable" && c.ours(group):
					// A DigestInfo without its NULL, which PKCS #1 v1.5 does not
					// allow and crypto/rsa refuses, or an exponent of 3, which RFC
					// 7518 allows.
					unsure++
					if ok && slices.Contains(test.Flags, "MissingNull") {
						t.Errorf("%s: %d %s: accepted", here, test.ID, test.Comment)
					}
				case ok != (c.ours(group) && test.Result == "valid"):
					t.Errorf("%s: %d %s, %s: accepted: %v", here, test.ID, test.Comment, test.Result, ok)
				case ok:
					accepted++
				default:
					refused++
				}
			}
		}
		t.Logf("%s: %d accepted, %d refused, %d either", here, accepted, refused, unsure)
		if accepted < c.valid || refused < c.invalid {
			t.Errorf("%s: too few vectors ran: %d accepted, %d refused", here, accepted, refused)
		}
	}
}

// No encrypted token, and nothing else of those vectors, is a token.
func TestWycheproofJWE(t *testing.T) {
	ran := 0
	type group struct {
		Tests []struct {
			ID  int `json:"tcId"`
			JWE json.RawMessage
		}
	}
	for _, g := range readVectors[group](t, "json_web_encryption_test.json") {
		for _, c := range g.Tests {
			var raw string
			if json.Unmarshal(c.JWE, &raw) != nil {
				raw = string(c.JWE)
			}
			if token, err := Parse(raw); err == nil {
				t.Errorf("%d: %+v", c.ID, token)
			}
			ran++
		}
	}
	if ran < 50 {
		t.Errorf("only %d vectors ran", ran)
	}
}
