// A client of sidegate's upload and download routes, for browsers and Node.js
// 20 or later, without dependencies. The paths are those of ../policy.yaml:
// yours may differ.
//
// The file never passes through the gateway. It signs a URL; the file goes to
// the object store by that URL, with exactly the headers that the gateway
// named; then the gateway looks at what landed. What is sent again is sent with
// the same Idempotency-Key, so that a lost answer never makes a second upload.

const attempts = 5; // for each request
const longestWait = 60_000; // ms: a Retry-After beyond it is for the caller to decide
const partSize = 8 << 20;
const partsAtOnce = 50; // signed in one call
const timeout = 10 * 60_000; // ms for one request, its body included

/** The answer to presign_upload: a PUT, or a form whose last field is the file. */
export type Ticket = { key: string; session: string; headers: Record<string, string>; expiresSeconds: number; expiresAt: string } & (
  | { method: "PUT"; putUrl: string }
  | { method: "POST"; postUrl: string; fields: Record<string, string> }
);

export interface Confirmed {
  key: string;
  status: string;
  size: number;
  contentType: string;
  etag?: string;
  versionId?: string;
  checksumSha256?: string;
}

export interface StoredObject {
  key: string;
  size: number;
  etag: string;
  lastModified?: string;
}

export interface Upload {
  session: string;
  key: string;
  status: "issued" | "uploading" | "ready" | "rejected" | "failed" | "aborted" | "expired";
  contentType: string;
  size?: number;
  reason?: string;
}

interface Begun {
  session: string;
  key: string;
  status: string;
  minPartSize: number;
  maxPartSize: number;
  maxParts: number;
}

interface SignedPart {
  partNumber: number;
  url: string;
  method: string;
  headers: Record<string, string>;
}

/** The gateway's refusal (RFC 9457). Programs go by `code`; the message is for people. */
export class Problem extends Error {
  readonly status: number;
  readonly code: string;
  readonly field: string;
  readonly requestId: string;
  readonly retryAfter: number | undefined; // ms

  constructor(status: number, body: { code?: string; field?: string; detail?: string; request_id?: string }, retryAfter?: number) {
    super(`${status} ${body.code ?? ""}: ${body.detail ?? ""} (request ${body.request_id ?? ""})`);
    this.status = status;
    this.code = body.code ?? "";
    this.field = body.field ?? "";
    this.requestId = body.request_id ?? "";
    this.retryAfter = retryAfter;
  }
}

/** The object store's refusal. Its body is XML, and may quote the URL: it is not shown. */
export class StoreError extends Error {
  readonly status: number;

  constructor(status: number) {
    super(`the object store answered ${status}`);
    this.status = status;
  }
}

export class Gateway {
  private readonly url: string;
  private readonly token: () => Promise<string>;

  /** token gives the caller's ID token, fresh whenever it is asked. */
  constructor(url: string, token: () => Promise<string>) {
    this.url = url.replace(/\/+$/, "");
    this.token = token;
  }

  /** Sends a file at once, and gives what the gateway says of it when it is there. */
  async upload(file: Blob, contentType: string, options: { form?: boolean; idempotencyKey?: string } = {}): Promise<Confirmed> {
    const ask = { contentType, size: file.size, checksumSha256: await checksum(file) };
    const path = options.form ? "/v1/uploads/form" : "/v1/uploads/presign";
    const ticket = await this.call<Ticket>("POST", path, ask, options.idempotencyKey ?? crypto.randomUUID());
    const answer = await sent(() => sendFile(ticket, file), [409]);
    // 412: an object is there already, by a try of ours whose answer was lost.
    if (!answer.ok && answer.status !== 412) {
      throw new StoreError(answer.status);
    }
    return this.call<Confirmed>("POST", `/v1/uploads/${ticket.session}/confirm`);
  }

  /** Sends a large file in parts. Called again with the same key it goes on where it was. */
  async uploadParts(file: Blob, contentType: string, idempotencyKey: string = crypto.randomUUID()): Promise<Confirmed> {
    const begun = await this.call<Begun>("POST", "/v1/multipart", { contentType, size: file.size }, idempotencyKey);
    const at = `/v1/multipart/${begun.session}`;
    if (begun.status !== "uploading") {
      return this.call<Confirmed>("POST", `${at}/complete`); // it was completed, and the answer lost
    }
    const step = Math.max(partSize, begun.minPartSize, Math.ceil(file.size / begun.maxParts));
    const slice = (n: number) => file.slice((n - 1) * step, n * step);
    const there = await this.call<{ parts: { partNumber: number; size: number; etag: string }[] }>("GET", `${at}/parts`);
    const etags = new Map<number, string>();
    for (const part of there.parts) {
      if (part.size === slice(part.partNumber).size) {
        etags.set(part.partNumber, part.etag);
      }
    }
    const all = Array.from({ length: Math.ceil(file.size / step) }, (_, i) => i + 1);
    const missing = all.filter((n) => !etags.has(n));
    for (let first = 0; first < missing.length; first += partsAtOnce) {
      const numbers = missing.slice(first, first + partsAtOnce);
      for (const part of await this.sign(at, numbers, slice)) {
        etags.set(part.partNumber, await this.sendPart(at, part, slice));
      }
    }
    const parts = all.map((partNumber) => ({ partNumber, etag: etags.get(partNumber) }));
    return this.call<Confirmed>("POST", `${at}/complete`, { parts });
  }

  async abort(session: string): Promise<void> {
    await this.call("DELETE", `/v1/multipart/${session}`);
  }

  /** The object's bytes. A page would rather go to the URL: `location.href = await gateway.downloadURL(key)`. */
  async download(key: string): Promise<Blob> {
    const url = await this.downloadURL(key);
    const answer = await sent(() => send(url, { method: "GET" }));
    if (!answer.ok) {
      throw new StoreError(answer.status);
    }
    return answer.blob();
  }

  /** A URL that whoever has it can read the object by, for some minutes. */
  async downloadURL(key: string): Promise<string> {
    return (await this.call<{ getUrl: string }>("GET", `/v1/files/${quote(key)}/download`)).getUrl;
  }

  /** One's own objects, page after page. */
  async *objects(prefix?: string): AsyncGenerator<StoredObject> {
    yield* this.pages<StoredObject>("/v1/files", "objects", prefix ? { prefix } : {});
  }

  /** One's own uploads, the newest first. */
  async *uploads(): AsyncGenerator<Upload> {
    yield* this.pages<Upload>("/v1/uploads", "uploads", {});
  }

  async delete(key: string): Promise<void> {
    await this.call("DELETE", `/v1/files/${quote(key)}`);
  }

  private async sign(at: string, numbers: number[], slice: (n: number) => Blob): Promise<SignedPart[]> {
    const ask = { parts: numbers.map((partNumber) => ({ partNumber, size: slice(partNumber).size })) };
    return (await this.call<{ parts: SignedPart[] }>("POST", `${at}/parts`, ask)).parts;
  }

  /** Sends one part, and gives its ETag. In a browser the bucket's CORS rules must expose ETag. */
  private async sendPart(at: string, part: SignedPart, slice: (n: number) => Blob): Promise<string> {
    const { partNumber } = part;
    for (let again = true; ; again = false) {
      const { url, method, headers } = part;
      const answer = await sent(() => send(url, { method, headers, body: slice(partNumber) }));
      if (answer.ok) {
        return answer.headers.get("ETag") ?? "";
      }
      if (answer.status !== 403 || !again) {
        throw new StoreError(answer.status);
      }
      // The URL may be over: the file is large, the network slow.
      [part] = (await this.sign(at, [partNumber], slice)) as [SignedPart];
    }
  }

  private async *pages<Item>(path: string, name: string, query: Record<string, string>): AsyncGenerator<Item> {
    for (let token: string | undefined = ""; token !== undefined; ) {
      const parameters: URLSearchParams = new URLSearchParams(token ? { ...query, pageToken: token } : query);
      const page: { nextPageToken?: string } & Record<string, unknown> = await this.call("GET", `${path}?${parameters}`);
      yield* page[name] as Item[];
      token = page.nextPageToken;
    }
  }

  /** A request to the gateway: its answer, or a Problem. */
  private async call<Result>(method: string, path: string, ask?: unknown, idempotencyKey?: string): Promise<Result> {
    const answer = await sent(async () => {
      const headers: Record<string, string> = { Authorization: `Bearer ${await this.token()}` };
      if (ask !== undefined) {
        headers["Content-Type"] = "application/json";
      }
      if (idempotencyKey) {
        headers["Idempotency-Key"] = `"${idempotencyKey}"`;
      }
      return send(this.url + path, { method, headers, body: ask === undefined ? undefined : JSON.stringify(ask) });
    });
    if (!answer.ok) {
      // Not JSON: it is not the gateway's own, but of a proxy in front, say.
      throw new Problem(answer.status, await answer.json().catch(() => ({})), retryAfter(answer));
    }
    return (answer.status === 204 ? undefined : await answer.json()) as Result;
  }
}

/** Redirects are not followed: a signed URL is for one host, and a token for another. */
function send(url: string, request: RequestInit): Promise<Response> {
  return fetch(url, { ...request, redirect: "error", credentials: "omit", signal: AbortSignal.timeout(timeout) });
}

function sendFile(ticket: Ticket, file: Blob): Promise<Response> {
  if (ticket.method === "PUT") {
    return send(ticket.putUrl, { method: "PUT", headers: ticket.headers, body: file });
  }
  const form = new FormData();
  for (const [name, value] of Object.entries(ticket.fields)) {
    form.append(name, value);
  }
  form.append("file", file);
  return send(ticket.postUrl, { method: "POST", headers: ticket.headers, body: form });
}

/** The answer of once(), which is called again while there is none, or one that may change. */
async function sent(once: () => Promise<Response>, alsoAgain: number[] = []): Promise<Response> {
  const again = [429, 500, 502, 503, 504, ...alsoAgain];
  for (let attempt = 1; ; attempt++) {
    let wait = Math.random() * Math.min(20_000, 500 * 2 ** attempt); // not all clients at the same moment
    try {
      const answer = await once();
      wait = retryAfter(answer) ?? wait;
      if (!again.includes(answer.status) || attempt === attempts || wait > longestWait) {
        return answer;
      }
      await answer.body?.cancel();
    } catch (error) {
      if (attempt === attempts) {
        throw error;
      }
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

/** How long the answer asks to wait, in ms. (Retry-After's other form, a date, nobody here sends.) */
function retryAfter(answer: Response): number | undefined {
  const value = answer.headers.get("Retry-After") ?? "";
  return /^\d+$/.test(value) ? Number(value) * 1000 : undefined;
}

async function checksum(file: Blob): Promise<string> {
  const sum = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  return btoa(String.fromCharCode(...sum));
}

function quote(key: string): string {
  return key.split("/").map(encodeURIComponent).join("/");
}
