-- name: make_temporary_session
-- A stateless run's session is there for the run alone.
insert into clew.session (thread_id, owner_id, graph_id, assistant_id, temporary)
values (%(thread_id)s, %(owner_id)s, %(graph_id)s, %(assistant_id)s, true)
on conflict (thread_id) do nothing

-- name: lock_session_for_run
-- Everything about the turns of one session is decided one after another. A statement of its own,
-- so that the next one sees what the last holder of the lock committed.
select thread_id from clew.session where thread_id = %(thread_id)s for no key update

-- name: create_run
-- One statement decides and does it all; `outcome` says what became of the request. A run starts
-- at once only where nothing runs and nothing older waits, so nobody is overtaken. Moving the
-- epoch on waits for the writes that are under way, and keeps those out that come later.
with session as materialized (
    select thread_id, owner_id, state, temporary from clew.session_state
    where thread_id = %(thread_id)s and clew.allows(metadata, %(allowed)s)
),
twin as materialized (
    select r.* from clew.run r join session s on r.owner_id = s.owner_id
    where r.idempotency_key = %(idempotency_key)s
),
flight as materialized (
    select run_id, status, worker_id, due_at from clew.run
    where thread_id = %(thread_id)s and status in ('pending', 'running')
),
decision as materialized (
    select s.thread_id, s.owner_id, case
        when exists (select from twin) then case
            when exists (select from twin where fingerprint = %(fingerprint)s
                and (thread_id = s.thread_id or s.temporary)) then 'repeated'
            else 'mismatch' end
        when s.state not in ('active', 'idle') then s.state
        when %(strategy)s = 'reject' and exists (select from flight) then 'busy'
        when (select count(*) from flight) >= %(per_session)s then 'full_session'
        when %(per_owner)s::integer is not null and (
            select count(*) from (
                select from clew.run r
                where r.owner_id = s.owner_id and r.status in ('pending', 'running')
                limit %(per_owner)s) as crowd) >= %(per_owner)s then 'full_owner'
        when %(worker_id)s::bigint is not null and %(after)s <= interval '0'
            and exists (select from clew.worker where worker_id = %(worker_id)s and lease_until > now())
            and not exists (select from flight where status = 'running' or due_at <= now())
            then 'started'
        else 'waiting' end as outcome
    from session s
),
opened as (
    insert into clew.lineage (owner_id, thread_id, kind)
    select d.owner_id, d.thread_id, 'root' from decision d
    where d.outcome = 'started'
        and not exists (select from clew.head h where h.thread_id = d.thread_id offset 0)
    returning lineage_id, owner_id, thread_id
),
first_head as (
    insert into clew.head as h (thread_id, owner_id, lineage_id, epoch)
    select thread_id, owner_id, lineage_id, 1 from opened
    on conflict (thread_id) do update set epoch = h.epoch + 1
    returning epoch
),
bumped as (
    update clew.head h set epoch = h.epoch + 1 from decision d
    where d.outcome = 'started' and h.thread_id = d.thread_id
    returning h.epoch
),
turn as (
    select epoch, false as used from first_head union all select epoch, true from bumped
),
stopped as (
    update clew.run r set
        cancel = coalesce(r.cancel, %(strategy)s),
        cancel_reason = coalesce(r.cancel_reason, %(reason)s),
        status = case when r.attempt = 0 then 'interrupted' else r.status end,
        ended_at = case when r.attempt = 0 then now() else r.ended_at end,
        updated_at = now()
    from decision d
    where d.outcome in ('started', 'waiting') and %(strategy)s in ('interrupt', 'rollback')
        and r.thread_id = d.thread_id and r.status in ('pending', 'running')
        and (r.attempt > 0 or %(strategy)s = 'interrupt')
    returning r.run_id
),
dropped as (
    delete from clew.run r using decision d
    where d.outcome in ('started', 'waiting') and %(strategy)s = 'rollback'
        and r.thread_id = d.thread_id and r.status = 'pending' and r.attempt = 0
    returning r.run_id
),
made as (
    insert into clew.run (
        run_id, thread_id, owner_id, assistant_id, graph_id, status, multitask_strategy, protocol,
        metadata, request, webhook, attempt, epoch, worker_id, idempotency_key, fingerprint, due_at,
        started_at, moment, mends)
    select %(run_id)s, d.thread_id, d.owner_id, %(assistant_id)s, %(graph_id)s,
        case when turn.epoch is not null then 'running' else 'pending' end,
        %(strategy)s, %(protocol)s, %(metadata)s, %(request)s, %(webhook)s,
        case when turn.epoch is not null then 1 else 0 end, turn.epoch,
        case when turn.epoch is not null then %(worker_id)s::bigint end,
        %(idempotency_key)s, %(fingerprint)s, now() + %(after)s,
        case when turn.epoch is not null then now() end,
        case when turn.epoch is not null
            then coalesce(pg_sequence_last_value('clew.moment'), 0) end,
        coalesce(turn.used, false) and turn.epoch - 1 is distinct from (
            select s.settled_epoch from clew.session s where s.thread_id = d.thread_id)
    from decision d left join turn on true
    where d.outcome in ('started', 'waiting')
    returning *
),
announced as (
    insert into clew.event (
        thread_id, epoch, first_n, last_n, owner_id, run_id, v2, kind, codec, body)
    select thread_id, epoch, 1, 1, owner_id, run_id, protocol = 'v2', 0, 0,
        clew.opening(run_id, protocol, graph_id, attempt, started_at)
    from made where epoch is not null
),
touched as (
    update clew.session s set
        status = 'busy', graph_id = %(graph_id)s, assistant_id = %(assistant_id)s,
        metadata = s.metadata || %(stamp)s,
        updated_at = now(), last_active_at = now()
    from made where s.thread_id = made.thread_id
)
select d.outcome, (select count(*) from stopped) as stopped, found.*
from decision d left join (select * from made union all select * from twin) found on true

-- name: get_run
select * from clew.run r
where r.run_id = %(run_id)s and (%(thread_id)s::text is null or r.thread_id = %(thread_id)s)
    and exists (select from clew.session s
        where s.thread_id = r.thread_id and clew.allows(s.metadata, %(allowed)s))

-- name: list_runs
-- Newest first. A thread that is not there and one without runs are told apart by the caller.
select * from clew.run r
where r.thread_id = %(thread_id)s and (%(status)s::text is null or r.status = %(status)s)
    and exists (select from clew.session s
        where s.thread_id = r.thread_id and clew.allows(s.metadata, %(allowed)s))
order by r.run_no desc limit %(limit)s offset %(offset)s

-- name: count_runs
select count(*) as runs from clew.run r
where r.thread_id = %(thread_id)s and (%(status)s::text is null or r.status = %(status)s)
    and exists (select from clew.session s
        where s.thread_id = r.thread_id and clew.allows(s.metadata, %(allowed)s))

-- name: lock_sessions_of_runs
-- In one order, so that two cancellations of the same sessions cannot wait for each other.
select s.thread_id from clew.session s
where (s.thread_id = %(thread_id)s
    or (%(thread_id)s::text is null and s.thread_id in (
        select r.thread_id from clew.run r
        where r.status in ('pending', 'running')
            and (%(run_ids)s::uuid[] is null or r.run_id = any(%(run_ids)s::uuid[])))))
    and clew.allows(s.metadata, %(allowed)s)
order by s.thread_id for no key update

-- name: cancel_runs
-- A run that never started is over at once. Any other is only asked: who runs it, or runs it next,
-- stops it and says so. A session that has nothing left in flight goes back to how the last run
-- left it.
with chosen as materialized (
    select r.* from clew.run r
    where r.thread_id = any(%(locked)s)
        and r.status in ('pending', 'running')
        and (%(run_ids)s::uuid[] is null or r.run_id = any(%(run_ids)s::uuid[]))
        and (%(status)s::text is null or %(status)s = 'all' or r.status = %(status)s)
    for update
),
dropped as (
    delete from clew.run r using chosen c
    where r.run_id = c.run_id and c.attempt = 0 and %(action)s = 'rollback'
    returning r.run_id
),
stopped as (
    update clew.run r set
        cancel = coalesce(r.cancel, %(action)s),
        cancel_reason = coalesce(r.cancel_reason, %(reason)s),
        status = case when c.attempt = 0 then 'interrupted' else r.status end,
        ended_at = case when c.attempt = 0 then now() else r.ended_at end,
        updated_at = now()
    from chosen c
    where r.run_id = c.run_id and (c.attempt > 0 or %(action)s = 'interrupt')
    returning r.*
),
freed as (
    select distinct c.thread_id from chosen c
    where not exists (
        select from clew.run o
        where o.thread_id = c.thread_id and o.status in ('pending', 'running')
            and o.run_id not in (select run_id from chosen where attempt = 0))
),
settled as (
    update clew.session s set
        status = coalesce((
            select r.rest from clew.run r
            where r.thread_id = s.thread_id and r.rest is not null
            order by r.ended_at desc limit 1), 'idle'),
        updated_at = now()
    from freed where s.thread_id = freed.thread_id
)
select * from stopped
union all
select * from chosen where run_id in (select run_id from dropped)

-- name: delete_run
-- Only what is over: a run in flight is cancelled first.
with chosen as materialized (
    select r.run_id, r.thread_id, r.status from clew.run r
    where r.run_id = %(run_id)s and r.thread_id = %(thread_id)s
        and exists (select from clew.session s
            where s.thread_id = r.thread_id and clew.allows(s.metadata, %(allowed)s))
    for update
),
removed as (
    delete from clew.run r using chosen c
    where r.run_id = c.run_id and c.status not in ('pending', 'running')
    returning r.run_id
),
forgotten as (
    delete from clew.event e using chosen c, removed
    where e.thread_id = c.thread_id and e.run_id = c.run_id
)
select c.status, exists (select from removed) as removed from chosen c
