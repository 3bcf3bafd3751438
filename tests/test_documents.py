"""What callers write, as it is kept."""

from typing import Any

import pytest
from psycopg import sql

from clew.checkpointing.postgres import Database, Principal
from clew.checkpointing.secrets import REDACTED
from clew.runtime import assistants, documents, errors, search, sessions
from clew.runtime.search import Wanted


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


async def test_row_29_secrets_in_metadata_and_config_are_never_written(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    given: dict[str, Any] = {
        "keep": "me",
        "db": {"password": "hunter2", "url": "postgres://u:hunter2@h/d"},
        "headers": [{"name": "Authorization", "value": "hunter2"}],
        "note": "sk-hunter2hunter2hunter2",
    }
    made = await sessions.create(
        db, who, who.owner_from, metadata=given, config={"configurable": given}, context=given
    )
    await sessions.patch(db, who, made.thread_id, {"metadata": {"api_key": "hunter2"}})
    agent = await assistants.create(
        db, who, who.owner_from, graph_id="g", metadata=given, context=given
    )
    await assistants.update(db, who, agent.assistant_id, config={"api_key": "hunter2"})
    for table in ("session", "session_term", "outbox", "audit", "assistant", "assistant_version"):
        everything = sql.SQL("select t::text as row from clew.{} t").format(sql.Identifier(table))
        async with db.work(who) as conn:
            rows = await (await conn.execute(everything)).fetchall()
        assert not [row for row in rows if "hunter2" in row["row"]]
    found = await sessions.get(db, who, made.thread_id)
    assert found.metadata["keep"] == "me"
    assert found.metadata["db"]["password"] == REDACTED


async def test_what_is_nested_as_deep_as_may_be_is_stored_and_found(db: Database) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    deep = {"a": nested(documents.LEVELS - 2)}
    made = await sessions.create(db, who, who.owner_from, metadata=deep)
    patched = await sessions.patch(db, who, made.thread_id, {"metadata": deep})
    assert patched.metadata == deep
    found = await sessions.search(db, who, metadata=deep)
    assert [session.thread_id for session in found.items] == [made.thread_id]


@pytest.mark.parametrize(
    "value",
    [{"a": "\x00"}, {"\x00": 1}, {"a": "\ud800"}, {"a": float("nan")}, {"a": float("inf")},
     {"a": nested(5000)}, {"a": nested(63)}, {"a": 10**5000}, {"a": object()}],
    ids=["nul", "nul key", "surrogate", "nan", "infinity", "deep", "too deep", "long number",
         "object"],
)  # fmt: skip
async def test_what_cannot_be_stored_is_refused_wherever_it_is_sent(
    db: Database, value: dict[str, Any]
) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    made = await sessions.create(db, who, who.owner_from)
    for attempt in (
        sessions.create(db, who, who.owner_from, metadata=value),
        sessions.create(db, who, who.owner_from, config=value),
        sessions.patch(db, who, made.thread_id, {"metadata": value}),
        sessions.search(db, who, metadata=value),
        sessions.count(db, who, metadata=value),
        search.page(db, who, Wanted(metadata=value)),
        assistants.create(db, who, who.owner_from, graph_id="g", context=value),
        assistants.search(db, who, metadata=value),
    ):
        with pytest.raises(errors.Invalid):
            await attempt


@pytest.mark.parametrize(
    "given",
    [{"title": "x" * 501}, {"description": "x" * 10_001}, {"tags": ["x" * 101]},
     {"tags": [str(n) for n in range(65)]}, {"kind": "x" * 201}, {"graph_id": "x" * 201},
     {"metadata": {"x": "字" * 100_000}}],
)  # fmt: skip
async def test_what_is_too_large_is_refused_by_name(db: Database, given: Any) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    made = await sessions.create(db, who, who.owner_from)
    with pytest.raises(errors.TooLarge):
        await sessions.create(db, who, who.owner_from, **given)
    with pytest.raises(errors.TooLarge):
        await sessions.patch(db, who, made.thread_id, given)


@pytest.mark.parametrize("value", ["\x00", "a\ud800", "\udfff"])
async def test_texts_of_characters_that_are_none_are_refused(db: Database, value: str) -> None:
    who = Principal.owner(await db.owner("default", "alice"))
    for given in ({"title": value}, {"tags": [value]}, {"kind": value}):
        with pytest.raises(errors.Invalid):
            await sessions.create(db, who, who.owner_from, **given)  # pyright: ignore[reportArgumentType]
    with pytest.raises(errors.Invalid):
        await search.page(db, who, Wanted(kind=value))


def test_a_backslash_is_no_nul() -> None:
    documents.document("x", {"a": "\\u0000", "b": "\\\\u0000"})
    with pytest.raises(errors.Invalid):
        documents.document("x", {"a": "\\\x00"})


def test_row_22_tags_are_kept_once_in_order() -> None:
    assert documents.tags(["b", "a", "b", "标签"]) == ["b", "a", "标签"]
    with pytest.raises(errors.Invalid):
        documents.tags([""])
