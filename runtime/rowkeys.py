"""What runs and sessions keep sealed beside checkpoints, brought under the newest key: after a
rotation, and when encryption begins. A page at a time, each in a transaction of its own, so it may
be cut off and run again.
"""

import json
from collections.abc import Callable
from typing import Any

from clew.checkpointing.encryption import Keyring
from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.sealed import MAGIC, Seals
from clew.runtime import words
from clew.runtime.sql import queries

_PAGE = 200
# Each with a query that reads what is not under the newest key, and one that writes it.
_KINDS = ("runs", "events", "crons", "webhooks", "questions")

Progress = Callable[[int], None]


def _silent(_: int) -> None: ...


async def reseal(db: Database, keyring: Keyring, progress: Progress = _silent) -> int:
    """Seal every row that is plain, or under another key; how many were. `db` may be one that opens
    them by itself, or not."""
    seals = Seals(keyring)
    prefix = {"prefix": seals.prefix, "length": len(seals.prefix), "page": _PAGE}
    done = 0
    for kind in _KINDS:
        while True:
            async with db.transaction(SERVICE) as conn:
                cursor = await conn.execute(queries[f"{kind}_to_seal"], prefix)
                rows = await cursor.fetchall()
                for row in rows:
                    fresh = {
                        name: seals.seal(seals.open(value)) if name in _BODIES and value else value
                        for name, value in row.items()
                    }
                    await conn.execute(queries[f"seal_{kind}"], fresh)
            if not rows:
                break
            done += len(rows)
            progress(done)
    for kind, (key, names) in _DOCUMENTS.items():
        after: Any = None
        while True:
            async with db.transaction(SERVICE) as conn:
                cursor = await conn.execute(
                    queries[f"{kind}_to_seal"], {"after": after, "page": _PAGE}
                )
                rows = await cursor.fetchall()
                for row in rows:
                    fresh = {name: _sealed(seals, row[name]) for name in names}
                    await conn.execute(queries[f"seal_{kind}"], {**row, **fresh})
            if not rows:
                break
            after = rows[-1][key]
            done += len(rows)
            progress(done)
    await _forget_words(db)
    return done


async def _forget_words(db: Database) -> None:
    """What was said is not to be found in the index of words either: only titles are."""
    after: str | None = None
    while rows := await db.fetch(
        SERVICE, queries["words_to_forget"], {"after": after, "page": _PAGE}
    ):
        after = rows[-1]["thread_id"]
        async with db.transaction(SERVICE) as conn:
            for row in rows:
                texts = [text for text in (row["title"], row["description"]) if text]
                kept = {"words": words.index(row["owner_id"], texts), **row}
                await conn.execute(queries["keep_words"], kept)


# JSON, which does not show under which key it is: all of it is sealed anew.
_DOCUMENTS = {"sessions": ("thread_id", ("interrupts", "error")), "errors": ("run_id", ("error",))}
_BODIES = frozenset({"request", "body", "state", "value", "response_schema", "on_deadline"})


def _sealed(seals: Seals, document: Any) -> str | None:
    """As text: as JSON it would be somebody's own words that look sealed."""
    return None if document is None else json.dumps(seals.close(seals.disclose(document)))


async def in_use(db: Database) -> dict[str, int]:
    """How many rows need each key of the settings."""
    values = {"magic": MAGIC, "length": len(MAGIC)}
    rows = await db.fetch(SERVICE, queries["row_keys_in_use"], values)
    return {row["key_id"]: row["rows"] for row in rows}
