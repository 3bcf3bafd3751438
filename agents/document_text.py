"""Gets the text out of what a client sends: text, or a file in base64. UTF-8 text types only."""

import base64
import hashlib
import html
import re
from collections.abc import Sequence
from typing import Any, NotRequired

from langchain_core.messages import BaseMessage, HumanMessage
from pydantic import TypeAdapter
from typing_extensions import TypedDict


class Document(TypedDict):
    """`text`, or `base64` with the bytes of a file. There is no path: the file is the client's."""

    name: str
    text: NotRequired[str]
    base64: NotRequired[str]
    mime_type: NotRequired[str]


DOCUMENTS = TypeAdapter(list[Document])
TYPES = {
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
}
MAX_LENGTH = 1_000_000


def text_of(document: Document) -> str:
    """The text of a document, or `ValueError` with its name and what is wrong with it."""
    name = document["name"]
    # The ending first: front ends and conversions are careless with the other.
    kind = TYPES.get(name.rpartition(".")[2].lower()) or document.get("mime_type")
    if kind is None and "." not in name and "text" in document:
        kind = "text/plain"
    if kind not in TYPES.values():
        raise ValueError(f"{name}: cannot read {kind or 'this type'}, only {', '.join(TYPES)}.")
    text = document.get("text")
    if text is None:
        try:
            text = base64.b64decode(document.get("base64", ""), validate=True).decode("utf-8-sig")
        except ValueError as fault:
            raise ValueError(f"{name}: this is not UTF-8 text in base64.") from fault
    if kind == "text/html":
        text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", text)
        text = html.unescape(text)
    if not text.strip():
        raise ValueError(f"{name}: there is no text in it.")
    if len(text) > MAX_LENGTH:
        raise ValueError(f"{name}: longer than {MAX_LENGTH:,} characters.")
    return text


def attached(messages: Sequence[BaseMessage]) -> list[Document]:
    """The files inside the last message, as chat front ends send them."""
    found: list[Document] = []
    last = messages[-1] if messages else None
    for block in last.content_blocks if isinstance(last, HumanMessage) else []:
        if block["type"] == "text":
            continue
        part: dict[str, Any] = {**block, **block.get("extras", {})}
        data = part.get("text") or part.get("base64") or ""
        name = part.get("filename") or part.get("title") or f"attachment-{digest(data)[:8]}"
        document = Document(name=name, mime_type=part.get("mime_type") or block["type"])
        document["text" if "text" in part else "base64"] = data
        found.append(document)
    return found


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
