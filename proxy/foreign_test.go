package proxy

import "testing"

// TestForeignIdentityHeaders: what other gateways, and servers that check
// certificates, tell apps of callers reaches no app from a caller.
func TestForeignIdentityHeaders(t *testing.T) {
	for _, name := range []string{
		"Cf-Access-Authenticated-User-Email", "Cf-Access-Jwt-Assertion", "X-MS-CLIENT-PRINCIPAL", "X-MS-CLIENT-PRINCIPAL-ID", "X-MS-TOKEN-AAD-ID-TOKEN",
		"Tailscale-User-Login", "OIDC_CLAIM_sub", "OIDC-access-token", "X-Consumer-Id", "X-Consumer-Username", "X-Credential-Identifier", "X-Anonymous-Consumer",
		"X-Vouch-User", "Impersonate-User", "Impersonate-Group", "Client-Cert", "Client-Cert-Chain", "X-SSL-Client-S-DN", "SSL_CLIENT_S_DN", "X-Client-Cert",
		"X-Amzn-Mtls-Clientcert", "X-Jwt-Assertion",
	} {
		if !mustStrip(name, nil) {
			t.Errorf("%s passes", name)
		}
	}
	for _, name := range []string{"Content-Type", "Cache-Control", "Cookie", "Origin", "Idempotency-Key", "If-Match", "Sec-Fetch-Site", "X-Custom", "X-Client-Version", "Tus-Resumable", "Oid"} {
		if mustStrip(name, nil) {
			t.Errorf("%s is removed", name)
		}
	}
}

// TestBearerWithOtherSeparators: some readers split at what is no space. Such a
// header is a bad bearer token, and is not passed on as one of another scheme.
func TestBearerWithOtherSeparators(t *testing.T) {
	for _, header := range []string{"Bearer\xa0t", "Bearer\x85t", "Bearer,t", "Bearer:t", "Bearer\tt", "Bearer=t", "Bearer\"t\"", "bearer;t"} {
		if token, bearer := bearerToken(header); !bearer || token == "t" {
			t.Errorf("%q: %q, %v", header, token, bearer)
		}
	}
	for header, says := range map[string]bool{
		"Bearer t": true, "bearer": true, "\xa0Bearer t": true, "\x85Bearer t": true, "\ufeffBearer t": true, ",Bearer t": true, "Basic a, Bearer t": true, "Basic YmVhcmVy": false,
		"BearerX t": false, "XBearer t": false, "Digest username=\"forbearer\"": false, "": false,
	} {
		if saysBearer(header) != says {
			t.Errorf("%q: %v", header, !says)
		}
	}
	for _, header := range []string{"BearerX t", "Bearer-t x", "Basic Bearer t", "Bear t"} {
		if _, bearer := bearerToken(header); bearer {
			t.Errorf("%q is one", header)
		}
	}
}

// TestOriginOfAnotherScheme: where it is known how a browser asked, a page that
// came without TLS is another site than one that came with it.
func TestOriginOfAnotherScheme(t *testing.T) {
	g, _ := cookieGate(t, lenientApp(t), func(o *Options) { o.Trusted = TrustedProxies{Peer: true} })
	for _, c := range []struct {
		origin, proto string
		status        int
	}{
		{"https://gateway.test", "https", 200}, {"http://gateway.test", "https", 403}, {"https://gateway.test", "http", 403},
		{"https://gateway.test", "wss", 200}, {"https://gateway.test", "https,http", 200}, // other words are not looked at
		{"http://gateway.test", "http", 200}, {"https://gateway.test", "", 200}, {"http://gateway.test", "", 200},
	} {
		lines := []string{"Cookie: __session=s-alice", "Origin: " + c.origin, "Content-Length: 0"}
		if c.proto != "" {
			lines = append(lines, "X-Forwarded-Proto: "+c.proto)
		}
		if a := g.send("POST", "/private/a", "", lines...); a.StatusCode != c.status {
			t.Errorf("%+v: %d %s", c, a.StatusCode, a.body)
		}
	}
}
