"""An app that believes nobody but its gateway.

It verifies X-Sidegate-Assertion of each request, and answers with who calls.
PyJWT (2 or later, with cryptography) does the JWT; the keys are fetched here,
since PyJWKClient fetches once for each unknown kid, and anybody can send those.
Verifier and KeySet are the parts to copy.
"""

import json
import os
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import jwt

HEADER = "X-Sidegate-Assertion"
LEEWAY = 5  # seconds by which two machines' clocks may differ

KEYS_AGE = 300  # seconds, as the gateway's Cache-Control says
UNKNOWN_WAIT = 60  # between fetches for the sake of unknown kids
FAILED_WAIT = 10  # after a fetch that failed
FETCH_TIME = 5
MAX_KEYS = 64 * 1024  # bytes of the key set


class Refused(Exception):
    """The assertion is not good."""


class NoKeys(Exception):
    """Nothing is known of the assertion, since no keys were ever had. That is
    not the caller's fault, and must not look like it."""


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """The keys are where this app was told they are, and nowhere else."""

    def redirect_request(self, *args, **kwargs):
        return None


class KeySet:
    """The gateway's public keys. It is safe for use by several threads."""

    def __init__(self, url):
        self.url = url
        self.opener = urllib.request.build_opener(NoRedirects)
        self.fetching = threading.Lock()  # held by the one who fetches
        # Replaced whole, never changed, so that readers need no lock.
        self.keys = {}
        self.fetched = None  # when keys were had
        self.next_fetch = 0.0  # not before, after a failure
        self.next_for_kid = 0.0  # not before, for the sake of an unknown kid

    def find(self, kid):
        """Gives the key. It fetches when the keys are old, and for an unknown
        kid, which may be a new one; anybody can send one, so that for them it
        does so at most once a minute."""
        key, due = self.look(kid)
        # With a key in hand nobody waits for the one who fetches a newer set.
        if due and self.fetching.acquire(blocking=key is None):
            try:
                # Somebody else may have fetched while this one waited.
                key, due = self.look(kid)
                if due:
                    self.fetch()
                    key, _ = self.look(kid)
            finally:
                self.fetching.release()
        if key is not None:
            return key
        if self.fetched is None:
            raise NoKeys("the gateway's keys could not be fetched")
        raise Refused("the assertion's kid is unknown")

    def look(self, kid):
        """Gives the key, or None, and says whether to fetch."""
        key, now = self.keys.get(kid), time.monotonic()
        if self.fetched is None or now - self.fetched >= KEYS_AGE:
            return key, now >= self.next_fetch
        return key, key is None and now >= self.next_for_kid

    def fetch(self):
        """Replaces the keys. Where that fails the last good ones stay: an app
        should not go down because its gateway restarts."""
        begun = time.monotonic()
        if self.fetched is not None and begun - self.fetched < KEYS_AGE:
            self.next_for_kid = begun + UNKNOWN_WAIT
        try:
            self.keys = self.get(begun + FETCH_TIME)
            self.fetched = begun
        except Exception as error:  # whatever it is: the network's, the text's, a key's
            self.next_fetch = time.monotonic() + FAILED_WAIT
            print(f"fetch the gateway's keys: {error}", file=sys.stderr)

    def get(self, deadline):
        data = b""
        with self.opener.open(self.url, timeout=FETCH_TIME) as answer:
            if answer.status != 200:
                raise ValueError(f"status {answer.status}")
            # timeout is for each read; a sender of single bytes needs another.
            while piece := answer.read1(MAX_KEYS):
                data += piece
                if len(data) > MAX_KEYS:
                    raise ValueError(f"more than {MAX_KEYS} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError("the gateway is too slow")
        keys = {}
        for k in json.loads(data)["keys"]:
            if (k.get("kty"), k.get("crv"), k.get("alg"), k.get("use")) != ("EC", "P-256", "ES256", "sig") or not k.get("kid"):
                continue  # for something else
            # It refuses what is no point of the curve.
            keys[k["kid"]] = jwt.PyJWK(k).key
        if not keys:
            raise ValueError("there is no ES256 key among them")
        return keys


class Verifier:
    """Verifies assertions of one gateway for one app."""

    def __init__(self, issuer, audience, keys):
        self.issuer = issuer  # name of the gateway's sidegate.yaml
        self.audience = audience  # the name that this app has there, among the upstreams
        self.keys = keys

    def verify(self, method, path, values):
        """Says who calls. path is decoded once, as the gateway's was, and the
        one that the handlers go by; values are all headers of the name."""
        # The gateway sends one. Of two, another reader might take the other.
        if len(values) != 1:
            raise Refused(f"want one {HEADER}, got {len(values)}")
        try:
            head = jwt.get_unverified_header(values[0])
            # The algorithm is this app's choice, never the sender's: "none"
            # needs no key, and HS256 would take the public key for a secret.
            if head.get("alg") != "ES256":
                raise Refused("the assertion's alg is not ES256")
            if "crit" in head:  # RFC 7515, section 4.1.11: what is not understood is refused
                raise Refused("the assertion has a crit header")
            kid = head.get("kid")
            if not isinstance(kid, str):
                raise Refused("the assertion has no kid")
            # PyJWT takes only the 64 bytes of RFC 7518, section 3.4, for a
            # signature, no DER; and holds exp, iat, iss and aud to what is here.
            a = jwt.decode(
                values[0],
                key=self.keys.find(kid),
                algorithms=["ES256"],
                issuer=self.issuer,
                audience=self.audience,
                leeway=LEEWAY,
                options={"require": ["iss", "aud", "sub", "iat", "exp"]},
            )
        except jwt.PyJWTError as error:
            raise Refused(f"the assertion is not good: {error}") from error
        # From here on the gateway speaks; what is left to ask is whether it
        # spoke to this app alone and of this request.
        if a["aud"] != self.audience:  # PyJWT takes a list, too
            raise Refused("the assertion is for another app")
        if a.get("method") != method:
            raise Refused("the assertion is for another method")
        if a.get("path") != path:
            raise Refused("the assertion is for another path")
        if not a["sub"] or not a.get("identity"):
            raise Refused("the assertion does not say who calls")
        return {
            "uid": a["sub"],
            "identity": a["identity"],  # a uid means something only together with it
            "actor": a.get("actor", ""),  # who acts for the user, if somebody does
            "claims": a.get("claims", {}),  # those that the policy declares
        }


class Handler(BaseHTTPRequestHandler):
    verifier = None  # set by main
    timeout = 30  # seconds for a slow sender

    def answer(self):
        try:
            # The query is cut off before the rest is decoded: %3F is of the path.
            path = unquote(self.path.partition("?")[0], errors="strict")
            status, body = 200, self.verifier.verify(self.command, path, self.headers.get_all(HEADER, []))
        except NoKeys as error:
            status, body = 503, {"error": str(error)}
        except (Refused, UnicodeDecodeError) as error:
            status, body = 401, {"error": str(error)}
        except Exception as error:  # what was not foreseen is a no, too, and nobody's business
            print(f"verify: {error!r}", file=sys.stderr)
            status, body = 401, {"error": "the assertion is not good"}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer


def need(name):
    """A variable of the environment. An empty name would be a check that checks
    nothing."""
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set")
    return value


if __name__ == "__main__":
    Handler.verifier = Verifier(need("SIDEGATE_NAME"), need("SIDEGATE_UPSTREAM"), KeySet(need("SIDEGATE_JWKS_URL")))
    ThreadingHTTPServer(("", int(need("PORT"))), Handler).serve_forever()
