-- name: name_of_tenant
select name from clew.tenant where tenant_id = %(tenant_id)s

-- name: hold_for_transfer
select status from clew.session where thread_id = %(thread_id)s for update

-- name: hold_head_for_transfer
-- Before any row of it is touched: whoever writes holds this one first, too.
select from clew.head where thread_id = %(thread_id)s for update

-- name: hold_lineages_for_transfer
-- A fork holds its source `for key share`: it comes before this or sees whose it is after.
select from clew.lineage where thread_id = %(thread_id)s order by lineage_id for update

-- name: storage_is_shared
-- Whether another session's lines lead into this one's storage, or this one's into another's. A
-- statement of its own: it sees the forks that the lock was waited for.
select exists (
    select from clew.lineage mine
    where mine.thread_id = %(thread_id)s and (
        exists (select from clew.lineage child
            where child.parent_id = mine.lineage_id
                and child.thread_id is distinct from mine.thread_id)
        or exists (select from clew.lineage parent
            where parent.lineage_id = mine.parent_id
                and parent.thread_id is distinct from mine.thread_id))) as shared

-- name: transfer_storage
with lines as materialized (
    select lineage_id from clew.lineage where thread_id = %(thread_id)s),
checkpoints as (
    update clew.checkpoint c set owner_id = %(owner_id)s
    from lines where c.lineage_id = lines.lineage_id),
items as (
    update clew.item i set owner_id = %(owner_id)s
    from lines where i.lineage_id = lines.lineage_id)
update clew.write w set owner_id = %(owner_id)s
from lines where w.lineage_id = lines.lineage_id

-- name: go_on_from
update clew.head set epoch = %(epoch)s where thread_id = %(thread_id)s

-- name: transfer_words
-- Terms begin with whose they are.
update clew.session_term t set words = array_to_tsvector(array(
    select to_hex(%(owner_id)s::bigint) || 'w' || substr(word, length(to_hex(%(old_id)s::bigint)) + 2)
    from unnest(tsvector_to_array(t.words)) word))
where t.thread_id = %(thread_id)s

-- name: tables_of_sessions
select c.relname::text as name from pg_class c
join pg_namespace n on n.oid = c.relnamespace and n.nspname = 'clew'
join pg_attribute a on a.attrelid = c.oid and a.attname = 'owner_id' and not a.attisdropped
join pg_attribute t on t.attrelid = c.oid and t.attname = 'thread_id' and not t.attisdropped
where c.relkind in ('r', 'p') and not c.relispartition
order by c.relname = 'session' desc, c.relname

-- name: note_transfer
with counted as (
    update clew.session set version = version + 1, updated_at = now()
    where thread_id = %(thread_id)s)
insert into clew.audit (owner_id, thread_id, actor, move, detail)
values (%(owner_id)s, %(thread_id)s, %(actor)s, 'transfer', jsonb_build_object('owner', %(owner)s::text))
