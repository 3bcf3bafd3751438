-- name: due_expired
-- One at a time, and none that another sweeper or a starting run holds.
select thread_id, owner_id, ttl_strategy from clew.session
where expires_at <= now() and status <> 'busy' and deleted_at is null
    and (%(thin)s or ttl_strategy = 'delete') and thread_id <> all(%(skip)s)
order by expires_at limit 1 for update skip locked

-- name: due_deleted
select thread_id, owner_id from clew.session
where (deleted_at <= now() - %(undo_window)s::interval or (temporary and deleted_at is not null))
    and status <> 'busy' and thread_id <> all(%(skip)s)
    -- A temporary session stays until those who wait to be called have heard what it made.
    and not (temporary and exists (
        select from clew.webhook w
        where w.thread_id = session.thread_id and w.given_up_at is null))
order by deleted_at limit 1 for update skip locked

-- name: announce_expired
insert into clew.outbox (owner_id, kind, thread_id) values (%(owner_id)s, 'session.expired', %(thread_id)s)

-- name: thinned
-- It lives on with its latest checkpoint, and its next activity gives it a new term.
update clew.session set expires_at = null where thread_id = %(thread_id)s

-- name: heads_of
select thread_id from clew.head where thread_id = any(%(thread_ids)s) order by thread_id

-- name: lock_sessions
-- In one order, so that two who lock the same ones cannot wait for each other.
select thread_id from clew.session where thread_id = any(%(thread_ids)s) order by thread_id for update
