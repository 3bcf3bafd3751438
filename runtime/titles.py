"""A session's title from the first thing said in it: by a model, or by its first words."""

import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import documents, errors, messages, search, sessions
from clew.runtime.sessions import Filter, Session
from clew.runtime.settings import Settings
from clew.runtime.sql import queries

log = logging.getLogger(__name__)

# From the first words said to a title.
Writer = Callable[[str], Awaitable[str]]

LONGEST = 60
SECONDS = 20.0

_SPACE = re.compile(r"\s+")
_SENTENCE = re.compile(r"^(.{8,}?)(?:[.!?](?=\s)|[。！？])")
_MARKS = re.compile(r"[#*_`>~]+")
_WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uff60]")

_ASK = (
    "Write a title of at most eight words for a conversation that begins with the message below, "
    "in the language of the message. Answer with the title alone: no quotes, no full stop."
)


async def first_words(text: str) -> str:
    """The first sentence, or as much of it as a title holds."""
    text = _SPACE.sub(" ", _MARKS.sub("", text)).strip()
    if match := _SENTENCE.match(text):
        text = match[1]
    room = LONGEST // 2 if len(_WIDE.findall(text)) > len(text) // 2 else LONGEST
    if len(text) <= room:
        return text
    cut = text[: room - 1]
    head, space, _ = cut.rpartition(" ")
    return (head if space and len(head) > room // 2 else cut).rstrip(" ,;:，；：") + "…"


def writer(settings: Settings) -> Writer | None:
    """How titles are written here; None where they are not."""
    if settings.titles == "off":
        return None
    return by_model(settings.title_model) if settings.titles == "model" else first_words


def by_model(name: str) -> Writer:
    """Titles by a model of an OpenAI-compatible endpoint; its first words where that fails."""
    # Imported late: it takes a second, and most servers title without it.
    from langchain_openai import ChatOpenAI  # noqa: PLC0415

    model = ChatOpenAI(model=name, timeout=SECONDS, max_retries=1, temperature=0)

    async def write(text: str) -> str:
        try:
            reply = await model.ainvoke([("system", _ASK), ("user", text[:4000])])
        except Exception as error:  # noqa: BLE001  (any failure of a provider; a title is no reason to fail)
            log.warning("no title from the model: %s", type(error).__name__)
            return await first_words(text)
        title = _SPACE.sub(" ", reply.text).strip(" \"'“”«»「」『』")
        return title[: documents.TITLE] or await first_words(text)

    return write


async def of(db: Database, who: Principal, thread_id: str, write: Writer) -> str | None:
    """The title that a session's first message gives; None where nothing was said yet."""
    found = await messages.page(db, who, thread_id, limit=10)
    for item in found.items:
        if item.message.get("type") == "human" or item.message.get("role") == "user":
            text = messages.text_of(item.message).replace("\x00", "")
            if text.strip():
                return await write(text.encode("utf-8", "replace").decode())
    return None


async def give(
    db: Database,
    who: Principal,
    thread_id: str,
    write: Writer,
    *,
    allowed: Filter | None = None,
) -> Session:
    """Title a session anew from what was said in it."""
    await sessions.get(db, who, thread_id, allowed=allowed)
    title = await of(db, who, thread_id, write)
    if title is None:
        raise errors.Conflict("nothing was said in this session that would give it a title")
    return await sessions.patch(db, who, thread_id, {"title": title}, allowed=allowed)


async def fill(db: Database, who: Principal, thread_id: str, write: Writer) -> None:
    """Title a session that nobody has given a title."""
    title = await of(db, who, thread_id, write)
    if title is None:
        return
    values: dict[str, Any] = {"thread_id": thread_id, "title": title, "replace": False}
    if await db.execute(who, queries["title_session"], values):
        await search.index(db, who, thread_id, [title])
