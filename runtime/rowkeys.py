"""What runs and sessions keep sealed beside checkpoints, brought under the newest key: after a
rotation, and when encryption begins. Each table is gone through once, in the order of its key, a
page at a time and each in a transaction of its own, so it may be cut off and run again.
"""

import json
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from psycopg.rows import DictRow

from clew.checkpointing.encryption import Keyring
from clew.checkpointing.errors import EncryptionError
from clew.checkpointing.postgres import SERVICE, Database
from clew.checkpointing.sealed import MAGIC, Seals, Unopened, apart
from clew.runtime import errors, words
from clew.runtime.sql import queries

log = logging.getLogger(__name__)

_PAGE = 200

Progress = Callable[[int], None]


def _silent(_: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """Rows with something sealed. A query reads those to be sealed that come after a key, and one
    writes them."""

    name: str
    table: str
    key: tuple[str, ...]
    bodies: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()  # JSON: it does not show under which key, and all is sealed


KINDS = (
    Kind("runs", "run", ("run_id",), ("request",)),
    Kind("events", "event", ("thread_id", "epoch", "first_n", "kind", "created_at"), ("body",)),
    Kind("crons", "cron", ("cron_id",), ("request",)),
    Kind("webhooks", "webhook", ("run_id",), ("state",)),
    Kind(
        "questions",
        "interrupt",
        ("thread_id", "interrupt_id"),
        ("value", "response_schema", "on_deadline"),
    ),
    Kind("sessions", "session", ("thread_id",), documents=("interrupts", "error")),
    Kind("errors", "run", ("run_id",), documents=("error",)),
)
# All that `in_use` looks at.
COLUMNS = {(kind.table, name) for kind in KINDS for name in (*kind.bodies, *kind.documents)}


async def reseal(db: Database, keyring: Keyring, progress: Progress = _silent) -> int:
    """Seal every row that is plain, or under another key; how many were. Goes through all of them
    before it raises what stood in the way of some. `db` may be one that opens them by itself, or
    not. What is written meanwhile, behind it, is its writer's to seal."""
    seals = Seals(keyring)
    prefix = {"prefix": seals.prefix, "length": len(seals.prefix), "page": _PAGE}
    done = 0
    failed: list[EncryptionError] = []
    for kind in KINDS:
        after: DictRow = dict.fromkeys(kind.key)
        while True:
            async with db.transaction(SERVICE) as conn:
                place = {f"after_{name}": after[name] for name in kind.key}
                cursor = await conn.execute(queries[f"{kind.name}_to_seal"], prefix | place)
                with apart():
                    rows = await cursor.fetchall()
                for row in rows:
                    try:
                        fresh = _fresh(seals, kind, row)
                    except EncryptionError as error:
                        failed.append(error)
                    else:
                        await conn.execute(queries[f"seal_{kind.name}"], fresh)
                        done += 1
            if not rows:
                break
            after = rows[-1]
            progress(done)
    await _forget_words(db)
    if failed:
        raise type(failed[0])(f"{failed[0]}; {len(failed)} rows were left as they were")
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


def _fresh(seals: Seals, kind: Kind, row: DictRow) -> DictRow:
    """The row, sealed anew."""
    fresh = dict(row)
    for name in (*kind.bodies, *kind.documents):
        value = row[name]
        if isinstance(value, Unopened):
            raise value.error
        if value is None:
            continue
        if name in kind.bodies:
            fresh[name] = seals.seal(seals.open(value))
        else:  # as text, either way
            fresh[name] = json.dumps(seals.close(seals.loads(value.encode())))
    return fresh


async def in_use(db: Database) -> dict[str, int]:
    """How many values need each key of the settings."""
    values = {"magic": MAGIC, "length": len(MAGIC)}
    rows = await db.fetch(SERVICE, queries["row_keys_in_use"], values)
    return {row["key_id"].decode(errors="replace"): row["values"] for row in rows}


async def demand(db: Database, known: Collection[str]) -> None:
    """Refuse to begin where the newest of what is stored needs a key that is not among these. It is
    only a look: `in_use` goes through everything."""
    for row in await db.fetch(SERVICE, queries["newest_keys"]):
        if (key := row["key"].decode(errors="replace")) not in known:
            raise errors.ConfigError(
                f"The database has a {row['kind']} that is encrypted under key {key!r}: "
                "CLEW_ENCRYPTION_KEYS has to name it, behind the newest."
            )


async def complain(db: Database) -> None:
    """Say what is due and left for a process that has its key."""
    for row in await db.fetch(SERVICE, queries["withheld"], {"opens": db.opens}):
        log.error(
            "%s %s waits for a process that has key %r: CLEW_ENCRYPTION_KEYS does not name it here",
            row["kind"],
            row["id"],
            row["key"].decode(errors="replace"),
        )
