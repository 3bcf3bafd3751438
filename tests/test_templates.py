"""Templates and what comes of them."""

from typing import Any

import pytest

from clew.checkpointing.postgres import Database, Principal
from clew.runtime import errors, ids, sessions, templates

BODY: dict[str, Any] = {
    "graph_id": "assistant",
    "kind": "support",
    "context": {"system_prompt": "你是客服", "model": "m"},
    "metadata": {"line": 1},
    "tags": ["support"],
}


async def test_row_21_a_session_made_from_a_template_knows_which_version(db: Database) -> None:
    who = Principal.owner(await db.owner("acme", "alice"))
    first = await templates.create(db, who, who.owner_from, name="客服", body=BODY)
    second = await templates.update(
        db, who, first.template_id, body={**BODY, "context": {"model": "n"}}
    )
    assert (first.version, second.version) == (1, 2)
    renamed = await templates.update(db, who, first.template_id, name="new name")
    assert (renamed.version, renamed.body) == (2, second.body)

    old = await templates.get(db, who, first.template_id, 1)
    fields = templates.apply(
        old, {"title": "T", "context": {"model": "mine"}, "tags": ["x"], "kind": None}
    )
    made = await sessions.create(db, who, who.owner_from, **fields)
    assert made.template == {"template_id": first.template_id, "version": 1}
    assert (made.graph_id, made.kind, made.title) == ("assistant", "support", "T")
    assert made.context == {"system_prompt": "你是客服", "model": "mine"}
    assert made.tags == ["support", "x"]
    assert made.metadata == {"line": 1}

    back = await templates.restore(db, who, made.thread_id, second)
    assert back.context == {"model": "n"}
    assert (back.title, back.tags) == ("T", ["support", "x"])


async def test_templates_of_others_are_seen_where_shared_and_never_changed(db: Database) -> None:
    alice, bob, stranger = [
        Principal.owner(await db.owner(tenant, name))
        for tenant, name in (("acme", "alice"), ("acme", "bob"), ("umbrella", "x"))
    ]
    made = await templates.create(db, alice, alice.owner_from, name="t", body=BODY)
    for who in (bob, stranger):
        with pytest.raises(errors.NotFound):
            await templates.get(db, who, made.template_id)
        with pytest.raises(errors.NotFound):
            await templates.update(db, who, made.template_id, name="mine")
    await templates.update(db, alice, made.template_id, shared=True)
    assert (await templates.get(db, bob, made.template_id)).body == made.body
    assert [t.template_id for t in await templates.search(db, bob)] == [made.template_id]
    with pytest.raises(errors.Forbidden):
        await templates.update(db, bob, made.template_id, body={})
    with pytest.raises(errors.Forbidden):
        await templates.delete(db, bob, made.template_id)
    with pytest.raises(errors.NotFound):
        await templates.get(db, stranger, made.template_id)
    assert await templates.search(db, stranger) == []
    await templates.delete(db, alice, made.template_id)
    assert await templates.search(db, alice) == []


@pytest.mark.parametrize(
    "body",
    [{"unknown": 1}, {"tags": "x"}, {"tags": [1]}, {"title": 1}, {"context": []}],
)
async def test_a_body_is_what_a_session_has(db: Database, body: dict[str, Any]) -> None:
    who = Principal.owner(await db.owner("acme", "alice"))
    with pytest.raises(errors.Invalid):
        await templates.create(db, who, who.owner_from, name="t", body=body)
    for unknown in (ids.mint(), "x"):
        with pytest.raises(errors.NotFound):
            await templates.get(db, who, unknown)
