-- name: lock_owner
-- Creations that count wait for each other, one owner's at a time. A statement of its own, so that
-- the next one sees what the last holder of the lock committed.
select owner_id from clew.owner where owner_id = %(owner_id)s for no key update

-- name: create_session_within_limits
-- Under the owner's lock: take the latest that fits, or make room, or refuse; then insert.
with latest as materialized (
    select thread_id from clew.session_state
    where %(reuse)s and owner_id = %(owner_id)s and state in ('active', 'idle') and not temporary
        and graph_id is not distinct from %(graph_id)s
        and (%(assistant_id)s::uuid is null or assistant_id = %(assistant_id)s)
        and (%(kind)s::text is null or kind = %(kind)s)
        and clew.allows(metadata, %(allowed)s)
    order by last_active_at desc, thread_id desc limit 1
),
needed as materialized (
    select not exists (select from latest)
        and not exists (select from clew.session where thread_id = %(thread_id)s) as needed
),
living as materialized (
    select thread_id from clew.session_state
    where %(sessions)s::bigint is not null and owner_id = %(owner_id)s
        and state in ('active', 'idle') and not temporary
),
-- Locked, so that none of them begins a run meanwhile; one that is just being claimed stays.
excess as materialized (
    select thread_id, state from clew.session_state
    where %(sessions)s::bigint is not null and %(policy)s <> 'reject' and owner_id = %(owner_id)s
        and state in ('active', 'idle') and not temporary and status <> 'busy'
        and (select needed from needed)
    order by last_active_at, thread_id
    limit (select greatest(count(*) + 1 - %(sessions)s::bigint, 0) from living)
    for no key update skip locked
),
room as materialized (
    select needed and (%(sessions)s::bigint is null or
        (select count(*) from living) - (select count(*) from excess) < %(sessions)s) as room
    from needed
),
evicted as (
    update clew.session s set
        archived_at = case when %(policy)s = 'archive_oldest' then now() else s.archived_at end,
        deleted_at = case when %(policy)s = 'delete_oldest' then now() else s.deleted_at end,
        version = s.version + 1, updated_at = now()
    from excess e
    where s.thread_id = e.thread_id and (select room from room)
    returning s.thread_id
),
noted as (
    insert into clew.audit (owner_id, thread_id, actor, move, from_state, to_state, detail)
    select %(owner_id)s, e.thread_id, 'limit',
        case when %(policy)s = 'archive_oldest' then 'archive' else 'delete' end, e.state,
        case when %(policy)s = 'archive_oldest' then 'archived' else 'deleted' end,
        jsonb_build_object('limit', %(sessions)s::bigint)
    from excess e join evicted using (thread_id)
),
made as (
    insert into clew.session (
        thread_id, owner_id, graph_id, assistant_id, kind, title, description, tags, metadata,
        config, context, resources, template, temporary, parent_thread_id, ttl, ttl_sliding,
        ttl_waiting, ttl_strategy, expires_at, idle_after)
    select
        %(thread_id)s, %(owner_id)s, %(graph_id)s, %(assistant_id)s, %(kind)s, %(title)s,
        %(description)s, %(tags)s, %(metadata)s, %(config)s, %(context)s, %(resources)s,
        %(template)s, %(temporary)s, %(parent_thread_id)s, %(ttl)s, %(ttl_sliding)s,
        %(ttl_waiting)s, %(ttl_strategy)s, now() + %(ttl)s::interval,
        coalesce(%(idle_after)s, interval '30 minutes')
    from room where room
    on conflict (thread_id) do nothing
    returning thread_id
)
select (select thread_id from latest) as latest, exists (select from made) as made,
    needed.needed and not room.room as full, (select count(*) from living) as living
from needed, room

-- name: count_in_flight
select count(*) as runs from clew.run where owner_id = %(owner_id)s and status in ('pending', 'running')
