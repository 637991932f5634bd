// An app that believes nobody but its gateway: it verifies
// X-Sidegate-Assertion of each request, and answers with who calls. It needs
// Node 20 and nothing else; KeySet and verifyAssertion are the parts to copy.
import { createPublicKey, verify } from 'node:crypto'
import { createServer } from 'node:http'

const HEADER = 'x-sidegate-assertion'
const LEEWAY = 5 // seconds by which two machines' clocks may differ

const KEYS_AGE = 300_000 // milliseconds, as the gateway's Cache-Control says
const UNKNOWN_WAIT = 60_000 // between fetches for the sake of unknown kids
const FAILED_WAIT = 10_000 // after a fetch that failed
const FETCH_TIME = 5_000
const MAX_KEYS = 64 * 1024 // bytes of the key set

// The assertion is not good.
class Refused extends Error {}

// Nothing is known of the assertion, since no keys were ever had. That is not
// the caller's fault, and must not look like it.
class NoKeys extends Error {}

// The gateway's public keys.
class KeySet {
  #url
  #keys = new Map()
  #fetched = -Infinity // when keys were had, by performance.now(), which nobody sets
  #nextFetch = 0 // not before, after a failure
  #nextForKid = 0 // not before, for the sake of an unknown kid
  #fetching = null // the promise of a fetch that is on its way

  constructor(url) {
    this.#url = url
  }

  // find gives the key. It fetches when the keys are old, and for an unknown
  // kid, which may be a new one; anybody can send one, so that for them it does
  // so at most once a minute.
  async find(kid) {
    // With a key in hand nobody waits for a fetch that is on its way. Of those
    // who did, one may have begun another.
    while (this.#fetching && !this.#keys.has(kid)) await this.#fetching
    if (!this.#fetching && this.#due(kid)) {
      this.#fetching = this.#fetch().finally(() => { this.#fetching = null })
      await this.#fetching
    }
    const key = this.#keys.get(kid)
    if (key) return key
    if (this.#keys.size === 0) throw new NoKeys("the gateway's keys could not be fetched")
    throw new Refused("the assertion's kid is unknown")
  }

  #due(kid) {
    const now = performance.now()
    if (now - this.#fetched >= KEYS_AGE) return now >= this.#nextFetch
    return !this.#keys.has(kid) && now >= this.#nextForKid
  }

  // #fetch replaces the keys. Where that fails the last good ones stay: an app
  // should not go down because its gateway restarts.
  async #fetch() {
    const begun = performance.now()
    if (begun - this.#fetched < KEYS_AGE) this.#nextForKid = begun + UNKNOWN_WAIT
    try {
      this.#keys = await this.#get()
      this.#fetched = begun
    } catch (error) {
      this.#nextFetch = performance.now() + FAILED_WAIT
      console.error(`fetch the gateway's keys: ${error.cause ?? error}`)
    }
  }

  async #get() {
    // The keys are where this app was told they are, and nowhere else. The
    // signal counts until the last byte.
    const answer = await fetch(this.#url, { redirect: 'error', signal: AbortSignal.timeout(FETCH_TIME) })
    if (answer.status !== 200) {
      await answer.body?.cancel()
      throw new Error(`status ${answer.status}`)
    }
    const pieces = []
    let size = 0
    for await (const piece of answer.body) { // leaving the loop ends the body
      size += piece.length
      if (size > MAX_KEYS) throw new Error(`more than ${MAX_KEYS} bytes`)
      pieces.push(piece)
    }
    const keys = new Map()
    for (const { kty, crv, alg, use, kid, x, y } of JSON.parse(Buffer.concat(pieces).toString()).keys) {
      if (kty !== 'EC' || crv !== 'P-256' || alg !== 'ES256' || use !== 'sig' || !kid) continue // for something else
      // It refuses what is no point of the curve.
      keys.set(kid, createPublicKey({ format: 'jwk', key: { kty, crv, x, y } }))
    }
    if (keys.size === 0) throw new Error('there is no ES256 key among them')
    return keys
  }
}

// verifyAssertion says who calls. issuer is the name of the gateway's
// sidegate.yaml, audience the name that this app has there, among the upstreams.
async function verifyAssertion(request, { issuer, audience, keys }) {
  // The gateway sends one. Of two, another reader might take the other;
  // request.headers would join them.
  const values = request.headersDistinct[HEADER] ?? []
  if (values.length !== 1) throw new Refused(`want one ${HEADER}, got ${values.length}`)
  const parts = values[0].split('.')
  // Buffer.from drops what is no base64url; here it is refused.
  if (parts.length !== 3 || !parts.every((part) => /^[A-Za-z0-9_-]+$/.test(part))) throw new Refused('the assertion is not a JWT')
  const head = decodePart(parts[0])
  // The algorithm is this app's choice, never the sender's: "none" needs no
  // key, and HS256 would take the public key for a secret.
  if (head.alg !== 'ES256') throw new Refused("the assertion's alg is not ES256")
  // RFC 7515, section 4.1.11: what is not understood is refused
  if ('crit' in head) throw new Refused('the assertion has a crit header')
  const key = await keys.find(head.kid)
  const signature = Buffer.from(parts[2], 'base64url')
  // RFC 7518, section 3.4: r and s, 32 bytes each, no DER
  if (signature.length !== 64) throw new Refused("the assertion's signature is not 64 bytes")
  if (!verify('sha256', Buffer.from(`${parts[0]}.${parts[1]}`), { key, dsaEncoding: 'ieee-p1363' }, signature)) {
    throw new Refused("the assertion's signature is wrong")
  }

  // From here on the gateway speaks; what is left to ask is whether it spoke to
  // this app, of this request, and now.
  const a = decodePart(parts[1])
  const now = Date.now() / 1000
  if (a.iss !== issuer) throw new Refused("the assertion is another gateway's")
  if (a.aud !== audience) throw new Refused('the assertion is for another app')
  // Numbers only: undefined or a text would make each comparison false.
  if (!Number.isSafeInteger(a.exp) || now >= a.exp + LEEWAY) throw new Refused('the assertion has expired')
  if (!Number.isSafeInteger(a.iat) || now < a.iat - LEEWAY) throw new Refused('the assertion is of the future')
  if (a.method !== request.method) throw new Refused('the assertion is for another method')
  if (a.path !== decodedPath(request.url)) throw new Refused('the assertion is for another path')
  if (typeof a.sub !== 'string' || !a.sub || !a.identity) throw new Refused('the assertion does not say who calls')
  return {
    uid: a.sub,
    identity: a.identity, // a uid means something only together with it
    actor: a.actor ?? '', // who acts for the user, if somebody does
    claims: a.claims ?? {}, // those that the policy declares
  }
}

function decodePart(part) {
  let value
  try {
    value = JSON.parse(Buffer.from(part, 'base64url').toString())
  } catch {
    // not JSON: as what is no object
  }
  if (typeof value !== 'object' || value === null) throw new Refused('the assertion does not hold what it should')
  return value
}

// decodedPath is the path decoded once, as the gateway's was; go by it in the
// handlers, too. The query is cut off before that: %3F is of the path. new URL()
// would resolve dots.
function decodedPath(target) {
  try {
    return decodeURIComponent(target.split('?', 1)[0])
  } catch {
    throw new Refused('the path cannot be decoded')
  }
}

// need is a variable of the environment. An empty name would be a check that
// checks nothing.
function need(name) {
  const value = process.env[name]
  if (!value) {
    console.error(`${name} is not set`)
    process.exit(1)
  }
  return value
}

const gateway = { issuer: need('SIDEGATE_NAME'), audience: need('SIDEGATE_UPSTREAM'), keys: new KeySet(need('SIDEGATE_JWKS_URL')) }

// Claims stand in the headers twice and can be long; Node's own bound is 16 KiB.
createServer({ maxHeaderSize: 64 * 1024 }, async (request, response) => {
  let status = 200
  let body
  try {
    body = await verifyAssertion(request, gateway)
  } catch (error) {
    // What was not foreseen is a no, too, and nobody's business.
    status = error instanceof NoKeys ? 503 : 401
    body = { error: error instanceof NoKeys || error instanceof Refused ? error.message : 'the assertion is not good' }
    if (!(error instanceof NoKeys || error instanceof Refused)) console.error(error)
  }
  response.writeHead(status, { 'Content-Type': 'application/json', 'Cache-Control': 'no-store' })
  response.end(JSON.stringify(body))
}).listen(Number(need('PORT')))
