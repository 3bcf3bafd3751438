import pytest
from psycopg.errors import UniqueViolation

from clew.checkpointing import isolation
from clew.checkpointing.errors import DatabaseUnreachable
from clew.checkpointing.postgres import SERVICE, Database, Principal


async def test_an_owner_has_one_id_however_often_it_is_met(db: Database) -> None:
    first = await db.owner("acme", "alice")
    assert await db.owner("acme", "alice") == first
    assert await db.owner("acme", "bob") != first
    assert await db.owner("other", "alice") != first


async def test_a_principal_sees_its_range_of_owners_and_nothing_else(db: Database) -> None:
    alice = await db.owner("acme", "alice")
    bob = await db.owner("acme", "bob")
    await db.owner("other", "alice")

    async def seen(who: Principal) -> set[int]:
        return {row["owner_id"] for row in await db.fetch(who, "select owner_id from clew.owner")}

    assert await seen(Principal.owner(alice)) == {alice}
    assert await seen(Principal.tenant_of(alice)) == {alice, bob}
    assert len(await seen(SERVICE)) == 3


async def test_the_principal_is_gone_after_its_transaction(db: Database) -> None:
    alice = await db.owner("acme", "alice")
    async with db.connection() as conn:
        async with conn.transaction():
            await db.become(conn, Principal.owner(alice))
        cursor = await conn.execute("select current_setting('clew.owner_from', true) as left_over")
        row = await cursor.fetchone()
    assert row is not None
    assert row["left_over"] in ("", None)


async def test_isolation_is_proved_for_this_login(db: Database) -> None:
    await isolation.prove(db)


async def test_a_table_without_the_rule_fails_the_proof(db: Database) -> None:
    async with db.connection() as conn:
        await conn.execute("create table clew.forgotten (owner_id bigint)")
    with pytest.raises(isolation.IsolationError, match="forgotten"):
        await isolation.prove(db)


async def test_an_unreachable_database_says_why() -> None:
    with pytest.raises(DatabaseUnreachable, match="refused"):
        async with Database.open("postgresql://nobody@127.0.0.1:1/nothing"):
            pass


async def test_an_error_at_commit_keeps_its_name_and_costs_no_connection(db: Database) -> None:
    async with db.connection() as conn:
        await conn.execute(
            "create table public.once (x int unique deferrable initially deferred);"
            "grant all on public.once to public"
        )
    with pytest.raises(UniqueViolation):
        await db.fetch(SERVICE, "insert into public.once values (1), (1) returning x")
    assert await db.fetch(SERVICE, "select x from public.once") == []


async def test_prepared_statements_outlive_what_makes_them_invalid(db: Database) -> None:
    db.prepares = True
    look = "select * from public.shape where %(x)s = 1"
    async with db.connection() as conn:
        await conn.execute(
            "create table public.shape (a int); grant all on public.shape to public;"
            "insert into public.shape values (1)"
        )
    for _ in range(5):
        assert await db.fetch(SERVICE, look, {"x": 1}) == [{"a": 1}]
    async with db.connection() as conn:
        await conn.execute("alter table public.shape add b int default 2")
    for _ in range(5):
        assert await db.fetch(SERVICE, look, {"x": 1}) == [{"a": 1, "b": 2}]
    async with db.connection() as conn:
        await conn.execute("deallocate all")
    for _ in range(5):
        assert await db.fetch(SERVICE, look, {"x": 1}) == [{"a": 1, "b": 2}]
