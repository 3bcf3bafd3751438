-- name: move_session
-- Every move in one guarded statement, with its audit row: what is not allowed from the state that
-- the row is in changes nothing. The row is locked first, so `state` is what it is now.
with before as materialized (
    select thread_id, owner_id, state, status, deleted_at from clew.session_state
    where thread_id = %(thread_id)s and clew.allows(metadata, %(allowed)s)
    for update
),
moved as (
    update clew.session s set
        archived_at = case %(move)s
            when 'archive' then now() when 'unarchive' then null else s.archived_at end,
        deleted_at = case %(move)s
            when 'delete' then now() when 'undelete' then null else s.deleted_at end,
        last_active_at = case when %(move)s in ('unarchive', 'undelete', 'touch')
            then now() else s.last_active_at end,
        expires_at = case when %(move)s = 'touch'
            then now() + coalesce(%(ttl)s, s.ttl) else s.expires_at end,
        ttl = case when %(move)s = 'touch' then coalesce(%(ttl)s, s.ttl) else s.ttl end,
        updated_at = case when %(move)s = 'touch' then s.updated_at else now() end,
        version = case when %(move)s = 'touch' then s.version else s.version + 1 end
    from before b
    where s.thread_id = b.thread_id
        and b.state = any(%(sources)s)
        and (%(busy)s or b.status <> 'busy')
        and (%(undo_window)s::interval is null or b.deleted_at > now() - %(undo_window)s)
    returning s.thread_id
),
noted as (
    insert into clew.audit (owner_id, thread_id, actor, move, from_state, to_state, detail)
    select b.owner_id, b.thread_id, %(actor)s, %(move)s, b.state, %(target)s, %(detail)s
    from before b join moved using (thread_id)
    where %(move)s <> 'touch' or %(ttl)s::interval is not null
)
select b.state, b.status, exists (select from moved) as moved from before b

-- name: audit_log
select * from (
    select audit_id, owner_id, thread_id, actor, move, from_state, to_state, detail, made_at
    from clew.audit
    where %(thread_id)s::text is null or thread_id = %(thread_id)s
    union all
    -- Moves of a head are kept by the checkpoints themselves.
    select -move_id, owner_id, thread_id, coalesce(actor, ''),
        case kind when 'purge' then 'clear' else kind end, null, null,
        jsonb_strip_nulls(jsonb_build_object(
            'checkpoint_id', checkpoint_id, 'from', from_id, 'to', to_id, 'reason', reason)),
        made_at
    from clew.move
    -- Where nothing is left to go to the session has ended, which has a row of its own above.
    where (kind <> 'purge' or to_id is not null)
        and (%(thread_id)s::text is null or thread_id = %(thread_id)s)) log
where %(before)s::timestamptz is null
    or (made_at, audit_id) < (%(before)s::timestamptz, %(before_id)s::bigint)
order by made_at desc, audit_id desc limit %(limit)s

-- name: note_audit
insert into clew.audit (owner_id, thread_id, actor, move, from_state, to_state, detail)
values (%(owner_id)s, %(thread_id)s, %(actor)s, %(move)s, %(from_state)s, %(to_state)s, %(detail)s)

-- name: outbox_after
-- Only what is older than every open transaction, so that nothing appears behind a reader.
select xid::text as xid, outbox_id, owner_id, kind, thread_id, run_id, data, created_at
from clew.outbox
where (xid, outbox_id) > (%(xid)s::text::xid8, %(outbox_id)s)
    and xid < pg_snapshot_xmin(pg_current_snapshot())
    and not coalesce(pg_visible_in_snapshot(xid, %(since)s::text::pg_snapshot), false)
    and (%(owner_id)s::bigint is null or owner_id = %(owner_id)s)
    and (%(thread_id)s::text is null or thread_id = %(thread_id)s)
order by xid, outbox_id limit %(limit)s

-- name: outbox_end
-- Where a reader starts that wants only what is still to come.
select pg_snapshot_xmin(pg_current_snapshot())::text as xid,
    pg_current_snapshot()::text as since

-- name: hold_reader
-- For as long as the transaction lasts; takes no transaction id, so it holds up no other reader.
select pg_try_advisory_xact_lock(1668048248, hashtext(%(name)s)) as held

-- name: reader_place
select xid::text as xid, outbox_id from clew.reader where name = %(name)s

-- name: move_reader
insert into clew.reader (name, xid, outbox_id)
values (%(name)s, %(xid)s::text::xid8, %(outbox_id)s)
on conflict (name) do update set xid = excluded.xid, outbox_id = excluded.outbox_id

-- name: trim_outbox
with old as (
    select xid, outbox_id from clew.outbox
    where created_at < now() - %(retention)s::interval
    order by created_at limit %(limit)s for update skip locked)
delete from clew.outbox o using old where o.xid = old.xid and o.outbox_id = old.outbox_id
