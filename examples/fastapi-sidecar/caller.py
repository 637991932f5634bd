"""Who calls, as the gateway says."""

from dataclasses import dataclass
from typing import List, Optional
from urllib.parse import unquote

from fastapi import Header, HTTPException


@dataclass(frozen=True)
class Caller:
    """Whom the gateway has verified."""

    uid: str
    email: Optional[str]  # only an address that the issuer has verified
    roles: List[str]
    record: str  # of this request, in the gateway's audit log


def caller(
    x_sidegate_uid: Optional[str] = Header(default=None),
    x_sidegate_email: Optional[str] = Header(default=None),
    x_sidegate_roles: Optional[str] = Header(default=None),
    x_request_id: str = Header(default=""),
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
        record=x_request_id,
    )
