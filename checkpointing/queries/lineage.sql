-- The moves of a head.

-- name: add_head
-- No row: the id is taken, whoever has it.
with made as (
    insert into clew.head (thread_id, owner_id, lineage_id)
    values (
        %(thread_id)s, %(owner_id)s,
        coalesce(
            %(lineage_id)s::bigint,
            nextval(pg_get_serial_sequence('clew.lineage', 'lineage_id'))
        )
    )
    on conflict do nothing
    returning thread_id, owner_id, lineage_id, epoch
), line as (
    insert into clew.lineage (lineage_id, owner_id, thread_id, kind) overriding system value
    select lineage_id, owner_id, thread_id, 'root' from made
    where %(lineage_id)s::bigint is null
)
select thread_id, owner_id, lineage_id, epoch from made

-- name: get_head
select thread_id, owner_id, lineage_id, epoch from clew.head where thread_id = %(thread_id)s

-- name: hold_head
-- Waits for the writes that are under way and keeps others out until the transaction ends.
select thread_id, owner_id, lineage_id, epoch, now() as now from clew.head
where thread_id = %(thread_id)s
for update

-- name: bump
update clew.head set epoch = epoch + 1
where thread_id = %(thread_id)s and epoch = coalesce(%(epoch)s::bigint, epoch)
returning thread_id, owner_id, lineage_id, epoch

-- name: switch
update clew.head set epoch = epoch + 1, lineage_id = %(lineage_id)s
where thread_id = %(thread_id)s
returning thread_id, owner_id, lineage_id, epoch

-- name: branch
-- A fork or a restore, whole; migration 0004 has the steps.
select * from clew.branch(
    %(source)s::text, %(target)s::text, %(scope)s::text, %(lineage_id)s::bigint,
    %(checkpoint_id)s::uuid, %(until)s::bigint, %(epoch)s::bigint, %(actor)s::text,
    %(reason)s::text
)

-- name: hold_lineage_shared
-- What is forked from is not pruned meanwhile.
select lineage_id, thread_id from clew.lineage where lineage_id = %(lineage_id)s for key share

-- name: moment
select coalesce(pg_sequence_last_value('clew.moment'), 0) as moment

-- name: add_move
insert into clew.move (owner_id, thread_id, kind, from_id, to_id, checkpoint_id, actor, reason)
values (
    %(owner_id)s, %(thread_id)s, %(kind)s, %(from_id)s, %(to_id)s, %(checkpoint_id)s::uuid,
    %(actor)s, %(reason)s
)

-- name: drop_head
delete from clew.head where thread_id = %(thread_id)s

-- name: disown
-- Once a session is purged its lineages are nobody's; the newest first, for children go first.
with gone as (
    update clew.lineage set thread_id = null where thread_id = %(thread_id)s returning lineage_id
)
select lineage_id from gone order by lineage_id desc
