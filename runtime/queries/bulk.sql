-- name: delete_sessions_where
-- All that are not at work, each with its audit row; the rest is counted.
with chosen as materialized (
    select thread_id, owner_id, state, status from clew.session_state
    where state in ('active', 'idle', 'archived') and not temporary
        and (%(owner_id)s::bigint is null or owner_id = %(owner_id)s)
        and (%(graph_id)s::text is null or graph_id = %(graph_id)s)
        and clew.allows(metadata, %(allowed)s)
    order by thread_id for update
),
moved as (
    update clew.session s set deleted_at = now(), updated_at = now(), version = s.version + 1
    from chosen c where s.thread_id = c.thread_id and c.status <> 'busy'
    returning s.thread_id
),
noted as (
    insert into clew.audit (owner_id, thread_id, actor, move, from_state, to_state)
    select c.owner_id, c.thread_id, %(actor)s, 'delete', c.state, 'deleted'
    from chosen c join moved using (thread_id)
)
select count(m.thread_id) as deleted,
    coalesce(array_agg(c.thread_id) filter (where m.thread_id is null), '{}') as busy
from chosen c left join moved m using (thread_id)

-- name: sessions_of_owner
select thread_id from clew.session where owner_id = %(owner_id)s order by thread_id limit %(limit)s

-- name: owned_tables
-- Every table with an owner, children before the parents that they refer to.
with recursive owned as (
    select c.oid, c.relname::text as name from pg_class c
    join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'clew'
    join pg_attribute a on a.attrelid = c.oid and a.attname = 'owner_id' and not a.attisdropped
    where c.relkind in ('r', 'p') and not c.relispartition
),
depth as (
    select o.oid, o.name, 0 as depth from owned o
    union all
    select o.oid, o.name, d.depth + 1 from depth d
    join pg_constraint k on k.confrelid = d.oid and k.contype = 'f' and k.conrelid <> k.confrelid
    join owned o on o.oid = k.conrelid
    where d.depth < 10
)
select name, max(depth) as depth from depth group by name order by max(depth) desc, name

-- name: create_receipt
insert into clew.receipt (receipt_id, owner_id, subject, actor, removed, started_at)
values (%(receipt_id)s, %(owner_id)s, %(subject)s, %(actor)s, %(removed)s, %(started_at)s)
returning *

-- name: get_receipt
select * from clew.receipt where receipt_id = %(receipt_id)s

-- name: owner_named
select o.owner_id from clew.owner o join clew.tenant t using (tenant_id)
where t.name = %(tenant)s and o.name = %(owner)s
