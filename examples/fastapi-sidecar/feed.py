"""Posts of organisations, their feeds, and an inbox of notifications.

Who may see which feed is in policy.yaml. What is left here is what the policy
cannot know: what a post may hold, and which documents a feed is made of.
"""

import re
import uuid
from datetime import datetime
from typing import Any, Dict, List, Literal, Optional

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from pydantic import BaseModel, Field

from caller import Caller, caller
from firestore import Conflict, Database, Firestore, both, contains, equal, plain, text, texts

router = APIRouter()

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
# JSON can hold halves of characters, of which no UTF-8 can be made.
TEXT = re.compile(r"[^\ud800-\udfff]*")
# A uid that can be the name of a document: no slash, not of dots, not reserved.
UID = re.compile(r"(?!\.{1,2}$)(?!__.*__$)[^/\x00-\x1f\ud800-\udfff]{1,128}")
ID = re.compile(r"[0-9a-f]{32}")
CURSOR = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z)_([0-9a-f]{32})")


class NewPost(BaseModel):
    text: str = Field(min_length=1, max_length=10_000)
    visibility: Literal["public", "org"] = "org"
    tags: List[str] = []
    mentions: List[str] = []


def database(request: Request) -> Database:
    return request.app.state.database


def firestore(who: Caller = Depends(caller), db: Database = Depends(database)) -> Firestore:
    """The database for one request, in its caller's name."""
    return Firestore(db, who.uid, who.record)


def fits(pattern: "re.Pattern[str]", value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise HTTPException(status_code=422, detail=f"not {what}")
    return value


def org_name(org: str = Path()) -> str:
    return fits(NAME, org, "the name of an organisation")


def tag_name(tag: str = Path()) -> str:
    return fits(NAME, tag, "a tag")


def notification_id(id: str = Path()) -> str:
    return fits(ID, id, "the id of a notification")


class Page:
    """Which part of a feed is asked for. A cursor is a position in it and gives
    no access: the feed's own filters apply behind it, too."""

    def __init__(self, limit: int = Query(50, ge=1, le=100), cursor: Optional[str] = Query(None, max_length=80)) -> None:
        self.limit, self.after = limit, None
        if cursor is not None:
            m = CURSOR.fullmatch(cursor)
            try:
                datetime.fromisoformat(m[1] if m else "")
            except ValueError:
                raise HTTPException(status_code=422, detail="not a cursor of this service")
            self.after = (m[1], m[2])

    async def of(self, db: Firestore, collection: str, where: Dict[str, Any]) -> Dict[str, Any]:
        after = None
        if self.after:
            after = [{"timestampValue": self.after[0]}, {"referenceValue": db.name(collection, self.after[1])}]
        # One more than asked for tells whether there is a next page.
        found = await db.query(collection, where, after, self.limit + 1)
        items = [seen(d) for d in found[: self.limit]]
        more = len(found) > self.limit
        return {"items": items, "cursor": f"{items[-1]['createdAt']}_{items[-1]['id']}" if more else None}


def seen(document: Dict[str, Any]) -> Dict[str, Any]:
    fields = {name: plain(v) for name, v in document["fields"].items()}
    return {"id": document["name"].rsplit("/", 1)[1], **fields}


@router.get("/v1/orgs/{org}/posts")
async def org_feed(org: str = Depends(org_name), page: Page = Depends(), db: Firestore = Depends(firestore)):
    return await page.of(db, "posts", equal("orgId", text(org)))


@router.get("/v1/users/{uid}/posts")
async def own_posts(uid: str, page: Page = Depends(), db: Firestore = Depends(firestore)):
    return await page.of(db, "posts", equal("authorId", text(uid)))


@router.get("/v1/posts")
async def visible_posts(page: Page = Depends(), db: Firestore = Depends(firestore)):
    return await page.of(db, "posts", equal("visibility", text("public")))


@router.get("/v1/tags/{tag}/posts")
async def tag_feed(tag: str = Depends(tag_name), page: Page = Depends(), db: Firestore = Depends(firestore)):
    # Everybody may read this feed: only a public post can have tags (see post).
    return await page.of(db, "posts", contains("tags", text(tag)))


@router.get("/v1/users/{uid}/notifications")
async def inbox(uid: str, page: Page = Depends(), db: Firestore = Depends(firestore)):
    return await page.of(db, "notifications", both(equal("uid", text(uid)), equal("read", {"booleanValue": False})))


@router.post("/v1/orgs/{org}/posts", status_code=201)
async def post(
    new: NewPost, org: str = Depends(org_name), who: Caller = Depends(caller), db: Firestore = Depends(firestore)
):
    """Writes a post and the notifications of whom it mentions, all or none."""
    tags, mentions = sorted(set(new.tags)), sorted(set(new.mentions))
    if len(tags) > 10 or len(mentions) > 10:
        raise HTTPException(status_code=422, detail="at most 10 tags and 10 mentions")
    if tags and new.visibility != "public":
        raise HTTPException(status_code=422, detail="tags are for everybody to find: a post of the organisation has none")
    fits(TEXT, new.text, "a text")
    for tag in tags:
        fits(NAME, tag, "a tag")
    await members(db, org, [fits(UID, uid, "a uid") for uid in mentions])
    id = uuid.uuid4().hex
    fields = {
        "orgId": text(org),
        "authorId": text(who.uid),
        "visibility": text(new.visibility),
        "text": text(new.text),
        "tags": texts(tags),
    }
    writes = [created(db.name("posts", id), fields)]
    for uid in mentions:
        about = {"uid": text(uid), "read": {"booleanValue": False}, "postId": text(id), "from": text(who.uid)}
        writes.append(created(db.name("notifications", uuid.uuid4().hex), about))
    results = await db.commit(writes)
    return {"id": id, "createdAt": results[0]["transformResults"][0]["timestampValue"]}


def created(name: str, fields: Dict[str, Any]) -> Dict[str, Any]:
    """The write of a document that must be new. Its time is the database's, so
    that clocks of instances do not matter to the order."""
    return {
        "update": {"name": name, "fields": fields},
        "updateTransforms": [{"fieldPath": "createdAt", "setToServerValue": "REQUEST_TIME"}],
        "currentDocument": {"exists": False},
    }


async def members(db: Firestore, org: str, uids: List[str]) -> None:
    """Refuses to notify people outside of the organisation, by the documents
    that the policy reads."""
    if not uids:
        return
    names = [db.name("memberships", uid) for uid in uids]
    found = await db.get(names)
    for uid, name in zip(uids, names):
        orgs = plain(found.get(name, {}).get("fields", {}).get("orgs", texts([])))
        if not isinstance(orgs, list) or org not in orgs:
            raise HTTPException(status_code=422, detail="only members of the organisation can be mentioned")


@router.post("/v1/users/{uid}/notifications/{id}/read", status_code=204)
async def mark_read(uid: str, id: str = Depends(notification_id), db: Firestore = Depends(firestore)):
    name = db.name("notifications", id)
    there = (await db.get([name])).get(name)
    if there is None or plain(there["fields"]["uid"]) != uid:
        # Another's is as one that is not there.
        raise HTTPException(status_code=404, detail="no such notification")
    try:
        await db.commit(
            [
                {
                    "update": {"name": name, "fields": {"read": {"booleanValue": True}}},
                    "updateMask": {"fieldPaths": ["read"]},
                    "currentDocument": {"exists": True},
                }
            ]
        )
    except Conflict:
        raise HTTPException(status_code=404, detail="no such notification")
