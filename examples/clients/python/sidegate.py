#!/usr/bin/env python3
"""A client of sidegate's upload and download routes, with Python's standard
library alone. The paths are those of ../policy.yaml: yours may differ.

The file never passes through the gateway. It signs a URL; the file goes to the
object store by that URL, with exactly the headers that the gateway named; then
the gateway looks at what landed. What is sent again is sent with the same
Idempotency-Key, so that a lost answer never makes a second upload.
"""

import base64
import hashlib
import http.client
import json
import os
import random
import sys
import time
import urllib.parse
import uuid

ATTEMPTS = 5  # for each request
LONGEST_WAIT = 60  # seconds: a Retry-After beyond it is for the caller to decide
PART_SIZE = 8 << 20
PARTS_AT_ONCE = 50  # signed in one call
CHUNK = 256 << 10
TIMEOUT = 60  # seconds without a byte


class Problem(Exception):
    """The gateway's refusal (RFC 9457). Programs go by `code`; `detail` is for people."""

    def __init__(self, answer):
        try:
            body = json.loads(answer.body)
        except ValueError:
            body = {}  # not the gateway's own: of a proxy in front, say
        self.status = answer.status
        self.code = body.get("code", "")
        self.field = body.get("field", "")
        self.request_id = body.get("request_id", "")
        self.retry_after = retry_after(answer)
        super().__init__(f"{self.status} {self.code}: {body.get('detail', '')} (request {self.request_id})")


class StoreError(Exception):
    """The object store's refusal. Its body is XML, and may quote the URL: it is not shown."""

    def __init__(self, answer):
        self.status = answer.status
        super().__init__(f"the object store answered {answer.status}")


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body


def retry_after(answer):
    """The seconds that the answer asks to wait, or None. (Its other form, a date, nobody here sends.)"""
    value = answer.headers.get("Retry-After", "")
    return int(value) if value.isascii() and value.isdigit() else None


def send(method, url, headers, body=b"", length=None, into=None):
    """One request. body is bytes, or pieces of them that make `length`. Redirects are not followed:
    a signed URL is for one host, and a token for another. A 200 is written to the file `into`, if there is one."""
    at = urllib.parse.urlsplit(url)
    connect = http.client.HTTPSConnection if at.scheme == "https" else http.client.HTTPConnection
    connection = connect(at.netloc, timeout=TIMEOUT)
    try:
        connection.putrequest(method, at.path + ("?" + at.query if at.query else ""), skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if method not in ("GET", "DELETE"):
            connection.putheader("Content-Length", str(len(body) if length is None else length))
        connection.endheaders()
        try:
            for piece in [body] if length is None else body:
                connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a refusal can come before all is sent; if there is none, the next line says so
        response = connection.getresponse()
        if into is None or response.status != 200:
            return Answer(response.status, response.headers, response.read(1 << 20))
        with open(into, "wb") as file:
            written = 0
            while piece := response.read(CHUNK):
                written += file.write(piece)
        if str(written) != response.headers.get("Content-Length", str(written)):
            raise ConnectionError("the answer broke off")
        return Answer(response.status, response.headers, b"")
    finally:
        connection.close()


def sent(once, again=(429, 500, 502, 503, 504)):
    """The answer of once(), which is called again while there is none, or one that may change."""
    for attempt in range(1, ATTEMPTS + 1):
        wait = random.uniform(0, min(20, 0.5 * 2**attempt))  # not all clients at the same moment
        try:
            answer = once()
        except (OSError, http.client.HTTPException):
            if attempt == ATTEMPTS:
                raise
        else:
            if answer.status not in again:
                return answer
            wait = wait if retry_after(answer) is None else retry_after(answer)
            if attempt == ATTEMPTS or wait > LONGEST_WAIT:
                return answer
        time.sleep(wait)


class Gateway:
    def __init__(self, url, token):
        """token() gives the caller's ID token, fresh whenever it is asked."""
        self.url, self.token = url.rstrip("/"), token

    def call(self, method, path, ask=None, idempotency_key=None):
        """A request to the gateway: its answer, or a Problem."""

        def once():
            headers = {"Authorization": "Bearer " + self.token()}
            if ask is not None:
                headers["Content-Type"] = "application/json"
            if idempotency_key:
                headers["Idempotency-Key"] = f'"{idempotency_key}"'
            return send(method, self.url + path, headers, b"" if ask is None else json.dumps(ask).encode())

        answer = sent(once)
        if answer.status not in (200, 204):
            raise Problem(answer)
        return json.loads(answer.body) if answer.body else None

    def upload(self, path, content_type, form=False, idempotency_key=None):
        """Sends a file at once, and gives what the gateway says of it when it is there."""
        ask = describe(path, content_type)
        ask["checksumSha256"] = checksum(path)
        route = "/v1/uploads/form" if form else "/v1/uploads/presign"
        ticket = self.call("POST", route, ask, idempotency_key or str(uuid.uuid4()))
        answer = sent(lambda: send_file(ticket, path), again=(409, 429, 500, 502, 503, 504))
        # 412: an object is there already, by a try of ours whose answer was lost.
        if answer.status not in (200, 201, 204, 412):
            raise StoreError(answer)
        return self.call("POST", f"/v1/uploads/{ticket['session']}/confirm")

    def upload_parts(self, path, content_type, idempotency_key=None, part_size=PART_SIZE):
        """Sends a large file in parts. Called again with the same key it goes on where it was."""
        ask = describe(path, content_type)
        begun = self.call("POST", "/v1/multipart", ask, idempotency_key or str(uuid.uuid4()))
        at = "/v1/multipart/" + begun["session"]
        if begun["status"] != "uploading":  # it was completed, and the answer lost
            return self.call("POST", at + "/complete")
        part_size = max(part_size, begun["minPartSize"], -(-ask["size"] // begun["maxParts"]))
        sizes = {n + 1: min(part_size, ask["size"] - n * part_size) for n in range(-(-ask["size"] // part_size))}
        there = {p["partNumber"]: p for p in self.call("GET", at + "/parts")["parts"]}
        etags = {n: there[n]["etag"] for n in sizes if n in there and there[n]["size"] == sizes[n]}
        missing = [n for n in sizes if n not in etags]
        for first in range(0, len(missing), PARTS_AT_ONCE):
            for part in self.sign(at, sizes, missing[first : first + PARTS_AT_ONCE]):
                number = part["partNumber"]
                etags[number] = self.send_part(at, sizes, part, path, (number - 1) * part_size)
        parts = [{"partNumber": n, "etag": etags[n]} for n in sorted(etags)]
        return self.call("POST", at + "/complete", {"parts": parts})

    def sign(self, at, sizes, numbers):
        ask = {"parts": [{"partNumber": n, "size": sizes[n]} for n in numbers]}
        return self.call("POST", at + "/parts", ask)["parts"]

    def send_part(self, at, sizes, part, path, offset):
        """Sends one part, and gives its ETag."""
        number = part["partNumber"]
        for again in (True, False):
            answer = sent(lambda: send_bytes(part, part["url"], path, offset, sizes[number]))
            if answer.status == 200:
                return answer.headers["ETag"]
            if answer.status == 403 and again:  # the URL may be over: the file is large, the network slow
                part = self.sign(at, sizes, [number])[0]
                continue
            raise StoreError(answer)

    def abort(self, session):
        self.call("DELETE", "/v1/multipart/" + session)

    def download(self, key, path):
        signed = self.call("GET", f"/v1/files/{quote(key)}/download")
        answer = sent(lambda: send("GET", signed["getUrl"], {}, into=path))
        if answer.status != 200:
            raise StoreError(answer)
        return signed

    def objects(self, prefix=None):
        """One's own objects, page after page."""
        yield from self.pages("/v1/files", "objects", {"prefix": prefix} if prefix else {})

    def uploads(self):
        """One's own uploads, the newest first."""
        yield from self.pages("/v1/uploads", "uploads", {})

    def pages(self, path, name, query):
        while True:
            page = self.call("GET", path + "?" + urllib.parse.urlencode(query))
            yield from page[name]
            if "nextPageToken" not in page:
                return
            query["pageToken"] = page["nextPageToken"]

    def delete(self, key):
        self.call("DELETE", "/v1/files/" + quote(key))


def describe(path, content_type):
    return {"contentType": content_type, "size": os.path.getsize(path)}


def checksum(path):
    hashed = hashlib.sha256()
    for piece in pieces(path, 0, os.path.getsize(path)):
        hashed.update(piece)
    return base64.b64encode(hashed.digest()).decode()


def pieces(path, offset, length):
    with open(path, "rb") as file:
        file.seek(offset)
        while length > 0 and (piece := file.read(min(CHUNK, length))):
            length -= len(piece)
            yield piece


def send_bytes(signed, url, path, offset, length):
    return send(signed["method"], url, signed["headers"], pieces(path, offset, length), length)


def send_file(ticket, path):
    """Sends the file as the ticket says: by a PUT, or as the last field of a form."""
    size = os.path.getsize(path)
    if ticket["method"] == "PUT":
        return send_bytes(ticket, ticket["putUrl"], path, 0, size)
    boundary = uuid.uuid4().hex
    head = ""
    for name, value in ticket["fields"].items():
        head += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
    head += f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\n\r\n'
    head, tail = head.encode(), f"\r\n--{boundary}--\r\n".encode()

    def body():
        yield head
        yield from pieces(path, 0, size)
        yield tail

    headers = {**ticket["headers"], "Content-Type": "multipart/form-data; boundary=" + boundary}
    return send("POST", ticket["postUrl"], headers, body(), len(head) + size + len(tail))


def quote(key):
    return urllib.parse.quote(key, safe="/")


USAGE = """usage: sidegate.py COMMAND, with SIDEGATE_URL and SIDEGATE_TOKEN in the environment
  upload FILE TYPE        form FILE TYPE        parts FILE TYPE [IDEMPOTENCY-KEY]
  uploads                 abort SESSION         download KEY FILE
  list [PREFIX]           delete KEY"""


def main(args):
    gateway = Gateway(os.environ["SIDEGATE_URL"], lambda: os.environ["SIDEGATE_TOKEN"])
    commands = {
        "upload": gateway.upload,
        "form": lambda path, content_type: gateway.upload(path, content_type, form=True),
        "parts": gateway.upload_parts,
        "uploads": lambda: list(gateway.uploads()),
        "abort": gateway.abort,
        "download": lambda key, path: gateway.download(key, path) and None,  # the URL is a secret
        "list": lambda prefix=None: list(gateway.objects(prefix)),
        "delete": gateway.delete,
    }
    if not args or args[0] not in commands:
        sys.exit(USAGE)
    try:
        result = commands[args[0]](*args[1:])
    except (Problem, StoreError, OSError) as error:
        sys.exit(f"sidegate: {error}")
    if result is not None:
        json.dump(result, sys.stdout)
        print()


if __name__ == "__main__":
    main(sys.argv[1:])
