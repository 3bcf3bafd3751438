"""The proof that the database itself keeps owners apart, made before anything is served.

A login may be a superuser, bypass row security, or own the tables; each has its own way to be
exempt from the rule. So the rule is not trusted but tried: a foreign row is planted and looked
for, and every table with an owner is checked to be under the rule.
"""

from clew.checkpointing.errors import IsolationError
from clew.checkpointing.postgres import SERVICE, Database, Principal

_UNPROTECTED = """
select c.relname from pg_class c
    join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'clew'
    join pg_attribute a on a.attrelid = c.oid and a.attname = 'owner_id' and not a.attisdropped
    where c.relkind in ('r', 'p') and not (c.relrowsecurity and c.relforcerowsecurity)
"""


async def prove(db: Database) -> None:
    """Raise `IsolationError` unless a row of one owner is invisible to another."""
    bare = await db.fetch(SERVICE, _UNPROTECTED)
    if bare:
        names = ", ".join(row["relname"] for row in bare)
        raise IsolationError(f"these tables are not under row-level security: {names}")
    planted = await db.owner("clew", "isolation-probe")
    neighbour = Principal.owner(planted + 1)
    look = "select 1 from clew.owner where owner_id = %s"
    if not await db.fetch(Principal.owner(planted), look, [planted]):
        raise IsolationError("an owner cannot see its own rows: check the grants of this login")
    if await db.fetch(neighbour, look, [planted]):
        raise IsolationError("row-level security does not hold: another owner's row is visible")
    async with db.connection() as conn:
        cursor = await conn.execute("select count(*) as rows from clew.owner")
        row = await cursor.fetchone()
        if row and row["rows"] and not db.drops_role:
            raise IsolationError("row-level security does not hold: rows are visible to nobody")
