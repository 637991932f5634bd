"""A FastAPI service behind sidegate.

It verifies no tokens, signs no URLs and logs no access: the gateway in front of
it does that. What is left is the service itself. Who calls stands in headers
that the gateway sets, and removes from whatever the caller sent; so nobody but
the gateway may reach this process: it listens on 127.0.0.1, beside the gateway
(see README.md).
"""

import logging
import sys
from typing import Dict

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

import feed
from caller import Caller, caller
from firestore import Database, Unavailable

# Each query of Firestore is a line of JSON on standard output.
logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s")
logging.getLogger("firestore").setLevel(logging.INFO)

app = FastAPI(title="Notes and posts, behind sidegate")
app.include_router(feed.router)


@app.on_event("startup")
async def connect() -> None:
    app.state.database = Database()


@app.on_event("shutdown")
async def disconnect() -> None:
    await app.state.database.close()


@app.exception_handler(Unavailable)
async def unavailable(_: Request, __: Unavailable) -> JSONResponse:
    return JSONResponse({"detail": "the database gave no answer"}, status_code=503, headers={"Retry-After": "1"})


# Notes are kept in memory, and posts in Firestore: see feed.py.
notes: Dict[str, Dict[str, str]] = {}


class Note(BaseModel):
    text: str = Field(max_length=10_000)


@app.get("/v1/me")
def me(who: Caller = Depends(caller)):
    return {"uid": who.uid, "email": who.email, "roles": who.roles}


# That {uid} is the caller's own, or the caller an admin who reads, is the
# policy's business: a request for which it is not so does not come this far.
@app.get("/v1/users/{uid}/notes/{name}")
def read_note(uid: str, name: str):
    try:
        return {"owner": uid, "name": name, "text": notes[uid][name]}
    except KeyError:
        raise HTTPException(status_code=404, detail="no such note")


@app.put("/v1/users/{uid}/notes/{name}", status_code=204)
def write_note(uid: str, name: str, note: Note):
    notes.setdefault(uid, {})[name] = note.text


@app.get("/v1/admin/notes")
def count_notes(who: Caller = Depends(caller)):
    return {"asked_by": who.uid, "notes": {uid: len(of) for uid, of in notes.items()}}
