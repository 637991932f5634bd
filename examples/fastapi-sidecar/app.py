"""A FastAPI service behind sidegate.

It verifies no tokens, signs no URLs, logs no access and imports no cloud SDK:
the gateway in front of it does that. What is left is the service itself. Who
calls stands in headers that the gateway sets, and removes from whatever the
caller sent; so nobody but the gateway may reach this process: it listens on
127.0.0.1, beside the gateway (see README.md).
"""

from dataclasses import dataclass
from typing import Dict, List, Optional
from urllib.parse import unquote

from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, Field


@dataclass(frozen=True)
class Caller:
    """Whom the gateway has verified."""

    uid: str
    email: Optional[str]  # only an address that the issuer has verified
    roles: List[str]


def caller(
    x_sidegate_uid: Optional[str] = Header(default=None),
    x_sidegate_email: Optional[str] = Header(default=None),
    x_sidegate_roles: Optional[str] = Header(default=None),
) -> Caller:
    """Reads the identity headers. Their values are percent-encoded, so that any
    uid fits into a header and two uids never look the same in one."""
    if not x_sidegate_uid:
        # A route that the policy opened to everybody, or a request past the
        # gateway: here nobody is nobody.
        raise HTTPException(status_code=401, detail="no identity from the gateway")
    return Caller(
        uid=unquote(x_sidegate_uid),
        email=unquote(x_sidegate_email) if x_sidegate_email else None,
        roles=[unquote(role) for role in (x_sidegate_roles or "").split(",") if role],
    )


app = FastAPI(title="Notes, behind sidegate")

# The service's data; a real one has a database here.
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
