-- Who owns what. Every row that belongs to a session carries an owner_id, and one rule, written
-- once here, decides who may touch it.
--
-- An owner id is the tenant's number in the high 32 bits and the owner's in the low ones, so a
-- principal of any kind is a range of ids: one owner is [id, id], the admin of a tenant the
-- tenant's whole range, the service everything. A transaction that has not said who it works for
-- reads back null (or '' on a used connection) and sees nothing.

create table clew.tenant (
    tenant_id  integer generated always as identity primary key,
    name       text not null unique check (name <> ''),
    created_at timestamptz not null default now()
);

create sequence clew.owner_number as bigint maxvalue 4294967295;

create table clew.owner (
    owner_id   bigint primary key,
    tenant_id  integer not null references clew.tenant,
    name       text not null check (name <> ''),
    created_at timestamptz not null default now(),
    unique (tenant_id, name)
);

create function clew.owner_from() returns bigint language sql stable parallel safe
    return nullif(current_setting('clew.owner_from', true), '')::bigint;

create function clew.owner_to() returns bigint language sql stable parallel safe
    return nullif(current_setting('clew.owner_to', true), '')::bigint;

-- Puts a table under the rule. Called for each table that has an owner_id.
create procedure clew.protect(relation regclass) language plpgsql as $$
begin
    execute format('alter table %s enable row level security', relation);
    execute format('alter table %s force row level security', relation);
    execute format(
        'create policy owner_only on %s using (owner_id between clew.owner_from() and clew.owner_to())',
        relation);
end
$$;

call clew.protect('clew.owner');

-- Finds or makes an owner. Called under the service's principal, the only one that may see all
-- of them; two processes that meet the same new owner get one id.
create function clew.owner_id(tenant text, owner text) returns bigint language plpgsql as $$
declare
    number integer;
    found_id bigint;
begin
    select o.owner_id into found_id
        from clew.owner o join clew.tenant t using (tenant_id)
        where t.name = owner_id.tenant and o.name = owner_id.owner;
    if found then
        return found_id;
    end if;
    insert into clew.tenant (name) values (tenant) on conflict do nothing;
    select t.tenant_id into number from clew.tenant t where t.name = owner_id.tenant;
    insert into clew.owner (owner_id, tenant_id, name)
        values ((number::bigint << 32) | nextval('clew.owner_number'), number, owner)
        on conflict do nothing;
    select o.owner_id into found_id
        from clew.owner o where o.tenant_id = number and o.name = owner_id.owner;
    return found_id;
end
$$;
