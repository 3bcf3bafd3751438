-- Moving sessions through their history from outside a run: restore, undo, fork, copy, import.

-- name: hold_session
-- Whoever starts or ends a run holds the same row, so nothing begins while it is held.
select thread_id from clew.session where thread_id = %(thread_id)s for no key update

-- name: held_session
-- A statement of its own: it sees what the last holder of the row committed.
select s.*, exists (
    select from clew.run r where r.thread_id = s.thread_id and r.status in ('pending', 'running')
) as in_flight
from clew.session_state s
where s.thread_id = %(thread_id)s and clew.allows(s.metadata, %(allowed)s)

-- name: settle_session
-- How a session stands after its head was moved or its state was edited. A run that began since
-- has its own say. `counts` is off for what belongs to the making of a session.
update clew.session set
    status = case when %(in_flight)s then status else %(status)s end,
    interrupts = case when %(in_flight)s then interrupts else %(interrupts)s end,
    error = case when %(in_flight)s then error else %(error)s end,
    graph_id = coalesce(graph_id, %(graph_id)s),
    message_count = coalesce(%(message_count)s::integer, message_count),
    updated_at = now(), state_updated_at = now(), last_active_at = now(),
    version = version + %(counts)s::integer
where thread_id = %(thread_id)s

-- name: inherit_session
-- What a fork takes along that is not given to new sessions: how much was said, its policy, and
-- the words it is found by, which begin with the id of the owner that both have.
with policy as (
    update clew.session f set retention = s.retention, message_count = s.message_count
    from clew.session s
    where f.thread_id = %(thread_id)s and s.thread_id = %(source_id)s
)
update clew.session_term f set words = s.words
from clew.session_term s
where f.thread_id = %(thread_id)s and s.thread_id = %(source_id)s and s.owner_id = f.owner_id

-- name: stage_session
-- A session that is only there for a copy to be made from it. Should that die half way, it expires.
insert into clew.session (thread_id, owner_id, temporary, ttl, ttl_sliding, expires_at)
values (%(thread_id)s, %(owner_id)s, true, interval '6 hours', false, now() + interval '6 hours')

-- name: shrink_session
-- What was removed of its history no longer counts; `empty` is a session that was cleared. Not an
-- activity of the session: it keeps its place in lists.
update clew.session set
    bytes = case when %(empty)s then 0 else greatest(0, bytes - %(bytes)s::bigint) end,
    message_count = case when %(empty)s then 0 else message_count end, version = version + 1
where thread_id = %(thread_id)s

-- name: weigh_session
update clew.session set bytes = %(bytes)s where thread_id = %(thread_id)s

-- name: get_retention
select retention from clew.session where thread_id = %(thread_id)s

-- name: set_retention
update clew.session set retention = %(retention)s, updated_at = now(), version = version + 1
where thread_id = %(thread_id)s returning owner_id

-- name: is_session_quiet
select not exists (
    select from clew.run where thread_id = %(thread_id)s and status in ('pending', 'running')
) as quiet

-- name: bytes_of_session
-- What lies in the session's own storage: what it sees of its parent's counts there, not here.
with own as materialized (
    select lineage_id from clew.lineage where thread_id = %(thread_id)s
)
select c.*, w.*, i.* from (
    select count(*) as checkpoints, coalesce(sum(pg_column_size(c.*)), 0)::bigint as checkpoint_bytes
    from clew.checkpoint c where c.lineage_id in (select lineage_id from own)
) c, (
    select count(*) as writes, coalesce(sum(pg_column_size(w.body) + 96), 0)::bigint as write_bytes
    from clew.write w where w.lineage_id in (select lineage_id from own)
) w, (
    select count(*) as items, coalesce(sum(pg_column_size(i.body) + 56), 0)::bigint as item_bytes
    from clew.item i where i.lineage_id in (select lineage_id from own)
) i

-- name: bytes_of_streams
select i.stream, count(*) as items, sum(pg_column_size(i.body) + 56)::bigint as bytes
from clew.item i join clew.lineage l using (lineage_id)
where l.thread_id = %(thread_id)s
group by i.stream

-- name: layouts_of_session
-- The newest layout of each namespace of each line names the channels that the line ever had.
select distinct on (c.lineage_id, c.ns) c.lineage_id, c.ns, c.state, c.ranges
from clew.checkpoint c join clew.lineage l using (lineage_id)
where l.thread_id = %(thread_id)s
order by c.lineage_id, c.ns, c.seq desc
limit 2000
