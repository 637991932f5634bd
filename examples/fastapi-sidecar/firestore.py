"""Firestore for a service behind sidegate, by its REST API.

One connection pool serves the process. Each request gets a `Firestore` of its
own, which carries who asks: every call is in the log with the caller and with
the gateway's record of the request, so that a read of data leads back to the
decision that let it happen. Values of documents are in no log.

https://firebase.google.com/docs/firestore/reference/rest/v1/projects.databases.documents
"""

import asyncio
import json
import logging
import os
import time
from typing import Any, Coroutine, Dict, List, Optional

import google.auth
import google.auth.exceptions
import google.auth.transport.requests
import httpx

log = logging.getLogger("firestore")

SCOPE = "https://www.googleapis.com/auth/datastore"
DEADLINE = 5  # seconds for one call, whatever of it takes long: the token, a connection, the answer


class Unavailable(Exception):
    """Firestore gave no answer that can be used. What it said is in the log."""


class Conflict(Exception):
    """A write's precondition does not hold."""


class Credentials:
    """Tokens of the service's own account, from wherever Google's library finds
    it: the metadata server on Google Cloud, a workload identity elsewhere."""

    def __init__(self) -> None:
        self._found: Any = None
        self._fetch: Optional["asyncio.Future[None]"] = None

    async def token(self) -> str:
        if self._found is None or not self._found.valid:
            if self._fetch is None or self._fetch.done():
                # The library blocks, so it does that beside the event loop.
                self._fetch = asyncio.get_running_loop().run_in_executor(None, self._refresh)
                self._fetch.add_done_callback(heard)
            # One fetch for all who wait: who gives up leaves it to the others.
            fetch = self._fetch
            await asyncio.wait([fetch])
            fetch.result()
        return self._found.token

    def _refresh(self) -> None:
        request = BoundedRequest()
        found = self._found or google.auth.default(scopes=[SCOPE], request=request)[0]
        found.refresh(request)
        self._found = found


class BoundedRequest(google.auth.transport.requests.Request):
    """The library waits two minutes for an answer, or in old versions for ever."""

    def __call__(self, *args: Any, timeout: Any = DEADLINE, **more: Any) -> Any:
        return super().__call__(*args, timeout=timeout, **more)


class EmulatorCredentials:
    async def token(self) -> str:
        return "owner"  # the emulator's word for past the rules, as a service account is


class Database:
    """One database and the connections to it, for the whole process."""

    def __init__(self) -> None:
        project = os.environ["GOOGLE_CLOUD_PROJECT"]
        emulator = os.environ.get("FIRESTORE_EMULATOR_HOST")
        self.root = f"projects/{project}/databases/(default)/documents"
        self._url = f"http://{emulator}/v1/" if emulator else "https://firestore.googleapis.com/v1/"
        self._credentials = EmulatorCredentials() if emulator else Credentials()
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(DEADLINE, pool=1),
            limits=httpx.Limits(max_connections=50, max_keepalive_connections=50),
            trust_env=not emulator,
        )

    async def close(self) -> None:
        await self._http.aclose()

    async def call(self, method: str, body: Dict[str, Any]) -> Any:
        """Asks once. What is repeated is for the caller's client to decide."""
        try:
            answer = await within(DEADLINE, self._ask(method, body))
            content = answer.json()
        except (httpx.HTTPError, google.auth.exceptions.GoogleAuthError, TimeoutError, ValueError) as e:
            # Of these errors the name is enough; their text can hold addresses.
            log.error(json.dumps({"message": "firestore: no answer", "operation": method, "error": type(e).__name__}))
            raise Unavailable from e
        error = error_in(content)
        if answer.status_code == 200 and error is None:
            return content
        error = error or {}
        if method == "commit" and error.get("status") in ("ALREADY_EXISTS", "NOT_FOUND", "FAILED_PRECONDITION", "ABORTED"):
            raise Conflict
        # A missing index is told here, with the link that makes it.
        log.error(json.dumps({"message": "firestore: refused", "operation": method, "status": error.get("status"), "error": error.get("message")}))
        raise Unavailable

    async def _ask(self, method: str, body: Dict[str, Any]) -> httpx.Response:
        token = await self._credentials.token()
        return await self._http.post(
            f"{self._url}{self.root}:{method}",
            json=body,
            headers={"Authorization": f"Bearer {token}"},
        )


async def within(seconds: float, work: Coroutine[Any, Any, Any]) -> Any:
    """What work comes to, or TimeoutError. It has a task of its own: below httpx,
    anyio before version 4 leaves cancellations behind in the task, which
    asyncio.timeout takes for somebody else's and passes on as such."""
    task = asyncio.create_task(work)
    task.add_done_callback(heard)
    try:
        await asyncio.wait([task], timeout=seconds)
        if not task.done() or task.cancelled():
            raise TimeoutError
        return task.result()
    finally:
        task.cancel()


def heard(ended: "asyncio.Future[Any]") -> None:
    """Of what fails when nobody waits any more, Python logs the error with its text."""
    if not ended.cancelled():
        ended.exception()


def error_in(content: Any) -> Optional[Dict[str, Any]]:
    """The error that an answer holds. A streaming method answers with a list, and
    one that fails midway has status 200 and the error behind the documents: what
    came before it is not the whole."""
    for one in content if isinstance(content, list) else [content]:
        if not isinstance(one, dict):
            return {"message": "an answer that is none of Firestore's"}
        if "error" in one:
            return one["error"] if isinstance(one["error"], dict) else {}
    return None


class Firestore:
    """The database as one request uses it: never kept longer than that."""

    def __init__(self, database: Database, uid: str, record: str) -> None:
        self._db, self._uid, self._record = database, uid, record

    def name(self, collection: str, document: str) -> str:
        return f"{self._db.root}/{collection}/{document}"

    async def query(
        self, collection: str, where: Dict[str, Any], after: Optional[List[Dict[str, Any]]], limit: int
    ) -> List[Dict[str, Any]]:
        """Documents that match, the newest first, behind a position: the values
        of createdAt and of the document's name. firestore.indexes.json has an
        index for each `where` that is asked here, and a test holds it to that."""
        query: Dict[str, Any] = {
            "from": [{"collectionId": collection}],
            "where": where,
            "orderBy": [
                {"field": {"fieldPath": "createdAt"}, "direction": "DESCENDING"},
                {"field": {"fieldPath": "__name__"}, "direction": "DESCENDING"},
            ],
            "limit": limit,
        }
        if after:
            query["startAt"] = {"values": after, "before": False}
        answer = await self._call("runQuery", collection, {"structuredQuery": query})
        return [one["document"] for one in answer if "document" in one]

    async def get(self, names: List[str]) -> Dict[str, Dict[str, Any]]:
        """The documents of these names that exist, in one call."""
        answer = await self._call("batchGet", self._collection(names[0]), {"documents": names})
        return {one["found"]["name"]: one["found"] for one in answer if "found" in one}

    async def commit(self, writes: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """All of the writes or none, in one call."""
        answer = await self._call("commit", self._collection(writes[0]["update"]["name"]), {"writes": writes})
        return answer["writeResults"]

    def _collection(self, name: str) -> str:
        return name[len(self._db.root) + 1 :].split("/")[0]

    async def _call(self, method: str, collection: str, body: Dict[str, Any]) -> Any:
        begun, found = time.monotonic(), None
        try:
            answer = await self._db.call(method, body)
            found = sum("document" in one or "found" in one for one in answer) if isinstance(answer, list) else None
            return answer
        finally:
            log.info(
                json.dumps(
                    {
                        "message": "firestore",
                        "operation": method,
                        "collection": collection,
                        "uid": self._uid,
                        "record": self._record,
                        "documents": found,
                        "ms": round((time.monotonic() - begun) * 1000, 1),
                    }
                )
            )


def equal(field: str, value: Dict[str, Any]) -> Dict[str, Any]:
    return {"fieldFilter": {"field": {"fieldPath": field}, "op": "EQUAL", "value": value}}


def contains(field: str, value: Dict[str, Any]) -> Dict[str, Any]:
    return {"fieldFilter": {"field": {"fieldPath": field}, "op": "ARRAY_CONTAINS", "value": value}}


def both(*filters: Dict[str, Any]) -> Dict[str, Any]:
    return {"compositeFilter": {"op": "AND", "filters": list(filters)}}


def text(value: str) -> Dict[str, Any]:
    return {"stringValue": value}


def texts(values: List[str]) -> Dict[str, Any]:
    return {"arrayValue": {"values": [text(v) for v in values]}}


def plain(value: Dict[str, Any]) -> Any:
    """A value of Firestore's as JSON has it; only the types that are stored here."""
    if "arrayValue" in value:
        return [plain(v) for v in value["arrayValue"].get("values", [])]
    return next(iter(value.values()))
