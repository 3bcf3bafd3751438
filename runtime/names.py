"""Owners and tenants by name, for those who see all of them."""

from collections.abc import Iterable

from clew.checkpointing.postgres import SERVICE, Database, Principal
from clew.runtime import erasure, errors
from clew.runtime.sql import queries


async def reach(db: Database, tenant: str | None, owner: str | None) -> Principal:
    """The principal that sees the sessions of these and no others: of one owner, of a tenant, or
    with neither of all. Names that are not known are `NotFound`."""
    if owner is not None:
        try:
            return Principal.owner(await erasure.find(db, tenant or "default", owner))
        except errors.NotFound:
            raise errors.NotFound(
                f"there is no owner {owner!r} in the tenant {tenant or 'default'!r}"
            ) from None
    if tenant is None:
        return SERVICE
    row = await db.one(SERVICE, queries["tenant_named"], {"tenant": tenant})
    if row is None:
        raise errors.NotFound(f"there is no tenant {tenant!r}")
    return Principal.tenant_of(row["tenant_id"] << 32)


async def split(db: Database, tenant: str | None, owner: str) -> tuple[str, str]:
    """Tenant and name of an owner. Where no tenant is said, `tenant/owner` as `of` shows it stands
    for the two, unless somebody of the default tenant is called just that."""
    whole, (first, slash, rest) = (tenant or "default", owner), owner.partition("/")
    if tenant is None and slash:
        for place in (whole, (first, rest)):
            try:
                await erasure.find(db, *place)
            except errors.NotFound:
                continue
            return place
    return whole


async def of(db: Database, owner_ids: Iterable[int]) -> dict[int, str]:
    """`tenant/owner` of each."""
    wanted = list(set(owner_ids))
    tenants: dict[int, str] = {}
    for tenant_id in {owner_id >> 32 for owner_id in wanted}:
        row = await db.one(SERVICE, queries["name_of_tenant"], {"tenant_id": tenant_id})
        tenants[tenant_id] = row["name"] if row else str(tenant_id)
    rows = await db.fetch(SERVICE, queries["names_of_owners"], {"owner_ids": wanted})
    return {row["owner_id"]: f"{tenants[row['owner_id'] >> 32]}/{row['name']}" for row in rows}
