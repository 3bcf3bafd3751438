-- name: next_lock_key
select nextval('clew.lock_key') as lock_key

-- name: notify
-- Alone in its transaction, which takes a lock of the whole server.
select pg_notify('clew', line) from unnest(%(lines)s::text[]) line

-- name: enlist_worker
insert into clew.worker (name, lock_key, lease_until)
values (%(name)s, %(lock_key)s, now() + %(lease)s) returning worker_id

-- name: renew_lease
-- No row: somebody declared this worker dead and took its runs.
update clew.worker set
    heartbeat_at = now(), lease_until = now() + %(lease)s, lock_key = %(lock_key)s
where worker_id = %(worker_id)s returning worker_id

-- name: held_runs
-- What the worker has according to the database, and what it was asked to stop.
select run_id, epoch, cancel, cancel_reason from clew.run
where worker_id = %(worker_id)s and status = 'running'

-- name: discharge_worker
-- A worker that leaves hands its runs back; those of a worker that died go the same way.
with gone as (
    delete from clew.worker where worker_id = %(worker_id)s returning worker_id
)
update clew.run r set status = 'pending', worker_id = null, updated_at = now()
from gone where r.worker_id = gone.worker_id and r.status = 'running'
returning r.run_id

-- name: reap_workers
-- A worker is dead when its lease has run out; or, long before that, when it has been silent for
-- more than a second and no longer holds the lock that lives as long as its connection. Right
-- after the server itself started everybody is silent and without a lock, and it says nothing.
with silent as materialized (
    select w.worker_id, w.lock_key, w.lease_until from clew.worker w
    where w.heartbeat_at < now() - interval '1 second' and w.worker_id <> %(worker_id)s
    for update skip locked
),
dead as materialized (
    select s.worker_id, s.lease_until <= now() as lapsed from silent s
    where case
        when now() - pg_postmaster_start_time() < interval '3 seconds' then false
        when s.lease_until <= now() then true
        when s.lock_key is not null then pg_try_advisory_xact_lock(1668048247, s.lock_key)
        else false end
),
gone as (
    delete from clew.worker w using dead where w.worker_id = dead.worker_id
    returning w.worker_id, dead.lapsed
)
update clew.run r set
    status = 'pending', worker_id = null, crashes = r.crashes + 1, updated_at = now()
from gone where r.worker_id = gone.worker_id and r.status = 'running'
returning r.run_id, gone.worker_id, gone.lapsed

-- name: claim_runs
-- The oldest due run of each session that nothing runs in. Moving the epoch on waits for writes of
-- the last holder that are under way, and nothing that it writes later lands. Heads are locked in
-- one order, so that claims and flushes do not deadlock. `offset 0` and `lateral` have everything
-- looked up one by one: as a join it would read the runs and heads of everybody. A request under a
-- key that this process lacks is left for one that has it, and so is what waits behind it.
with me as materialized (
    select worker_id from clew.worker where worker_id = %(worker_id)s and lease_until > now()
),
next as materialized (
    select r.run_id, r.thread_id, r.owner_id from clew.run r
    where r.status = 'pending' and r.due_at <= now() and exists (select from me)
        and not exists (
            select from clew.run o where o.thread_id = r.thread_id and o.status = 'running' offset 0)
        and not exists (
            select from clew.run o where o.thread_id = r.thread_id and o.status = 'pending'
                and (o.due_at, o.run_no) < (r.due_at, r.run_no) offset 0)
        and clew.opens(r.request, %(opens)s::bytea[])
    order by r.due_at, r.run_no limit %(limit)s
    for update of r skip locked
),
opened as (
    insert into clew.lineage (owner_id, thread_id, kind)
    select n.owner_id, n.thread_id, 'root' from next n
    where not exists (select from clew.head h where h.thread_id = n.thread_id offset 0)
    returning lineage_id, owner_id, thread_id
),
first_head as (
    insert into clew.head as h (thread_id, owner_id, lineage_id, epoch)
    select thread_id, owner_id, lineage_id, 1 from opened
    on conflict (thread_id) do update set epoch = h.epoch + 1
    returning thread_id, epoch
),
held as materialized (
    select h.thread_id from (select thread_id from next order by thread_id collate "C") n, lateral (
        select thread_id from clew.head where thread_id = n.thread_id for update) h
),
bumped as (
    update clew.head h set epoch = h.epoch + 1 from held where h.thread_id = held.thread_id
    returning h.thread_id, h.epoch
),
turn as (
    select *, false as used from first_head union all select *, true from bumped
),
started as (
    update clew.run r set
        status = 'running', worker_id = %(worker_id)s, epoch = turn.epoch,
        attempt = r.attempt + 1, started_at = now(), updated_at = now(),
        moment = coalesce(r.moment, pg_sequence_last_value('clew.moment'), 0),
        mends = turn.used and turn.epoch - 1 is distinct from (
            select s.settled_epoch from clew.session s where s.thread_id = r.thread_id)
    from next n join turn on turn.thread_id = n.thread_id
    where r.run_id = n.run_id and r.status = 'pending'
    returning r.*
),
announced as (
    insert into clew.event (
        thread_id, epoch, first_n, last_n, owner_id, run_id, v2, kind, codec, body)
    select thread_id, epoch, 1, 1, owner_id, run_id, protocol = 'v2', 0, 0,
        clew.opening(run_id, protocol, graph_id, attempt, started_at)
    from started
),
told as (
    insert into clew.outbox (owner_id, kind, thread_id, run_id, data)
    select owner_id, 'run.started', thread_id, run_id, jsonb_build_object('graph_id', graph_id)
    from started
)
select * from started order by due_at, run_no

-- name: next_due
-- How long until there is something to claim, for a worker that found nothing.
select min(due_at) - now() as wait from clew.run where status = 'pending' and due_at > now()

-- name: release_run
-- Given back unfinished: the next attempt goes on from the last checkpoint, and what was streamed up
-- to there is told by nobody else. Nothing of it where the run is no longer this worker's.
with mine as (
    update clew.run set
        status = 'pending', worker_id = null, crashes = crashes + %(crashed)s, updated_at = now()
    where run_id = %(run_id)s and epoch = %(epoch)s and worker_id = %(worker_id)s
        and status = 'running'
    returning run_id, thread_id, owner_id, epoch, protocol
),
logged as (
    insert into clew.event (
        thread_id, epoch, first_n, last_n, owner_id, run_id, v2, kind, codec, body)
    select m.thread_id, m.epoch, t.first_n, t.last_n, m.owner_id, m.run_id, m.protocol = 'v2',
        t.kind, t.codec, t.body
    from mine m, unnest(
        %(firsts)s::integer[], %(lasts)s::integer[], %(kinds)s::smallint[], %(codecs)s::smallint[],
        %(bodies)s::bytea[]) as t (first_n, last_n, kind, codec, body)
)
select run_id from mine

-- name: lock_session_of_run
select s.thread_id from clew.session s where s.thread_id = %(thread_id)s for no key update

-- name: finish_run
-- Everything that the end of a run changes: its row, the last of its events, its questions, the
-- session. All or nothing, and nothing where the run is no longer this worker's.
with mine as materialized (
    select r.run_id, r.thread_id, r.owner_id, r.epoch, r.protocol from clew.run r
    where r.run_id = %(run_id)s and r.epoch = %(epoch)s and r.worker_id = %(worker_id)s
        and r.status = 'running'
    for update
),
ended as (
    update clew.run r set
        status = %(status)s, worker_id = null, error = %(error)s, rest = %(rest)s,
        ended_at = now(), updated_at = now()
    from mine where r.run_id = mine.run_id
    returning r.thread_id, r.cancel, r.cancel_reason, r.updated_at, r.ended_at
),
superseded as (
    delete from clew.event e using mine
    where %(replaces)s and e.thread_id = mine.thread_id and e.run_id = mine.run_id
),
logged as (
    insert into clew.event (
        thread_id, epoch, first_n, last_n, owner_id, run_id, v2, kind, codec, body)
    select m.thread_id, m.epoch, t.first_n, t.last_n, m.owner_id, m.run_id, m.protocol = 'v2',
        t.kind, t.codec, t.body
    from mine m, unnest(
        %(firsts)s::integer[], %(lasts)s::integer[], %(kinds)s::smallint[], %(codecs)s::smallint[],
        %(bodies)s::bytea[]) as t (first_n, last_n, kind, codec, body)
),
questions as materialized (
    select * from unnest(
        %(interrupt_ids)s::text[], %(namespaces)s::text[], %(interrupt_values)s::bytea[],
        %(schemas)s::bytea[], %(deadlines)s::timestamptz[], %(defaults)s::bytea[])
        as t (interrupt_id, namespace, value, response_schema, deadline_at, on_deadline)
),
retired as (
    -- A graph that would not stop still holds the epoch: it ends here.
    update clew.head h set epoch = h.epoch + 1 from mine
    where %(retire)s and h.thread_id = mine.thread_id and h.epoch = mine.epoch
),
closed as (
    update clew.interrupt i set
        outcome = case when i.answered_by is not null or %(resumed)s then 'answered' else 'dropped' end,
        answered_at = now(), answered_by = coalesce(i.answered_by, mine.run_id)
    from mine
    where %(settles)s and i.thread_id = mine.thread_id and i.outcome is null
        and i.interrupt_id <> all (select interrupt_id from questions)
),
asked as (
    insert into clew.interrupt as i (
        thread_id, interrupt_id, owner_id, run_id, namespace, value, response_schema,
        deadline_at, on_deadline)
    select m.thread_id, q.interrupt_id, m.owner_id, m.run_id,
        coalesce(string_to_array(nullif(q.namespace, ''), '|'), '{}'), q.value, q.response_schema,
        coalesce(q.deadline_at, now() + %(interrupt_timeout)s::interval),
        coalesce(q.on_deadline, %(interrupt_default)s)
    from mine m, questions q
    on conflict (thread_id, interrupt_id) do update set
        run_id = excluded.run_id, value = excluded.value,
        response_schema = excluded.response_schema, namespace = excluded.namespace,
        created_at = case when i.outcome is null then i.created_at else now() end,
        deadline_at = case when i.outcome is null then i.deadline_at else excluded.deadline_at end,
        on_deadline = case when i.outcome is null then i.on_deadline else excluded.on_deadline end,
        answered_at = null, answered_by = null, outcome = null
),
settled as (
    update clew.session s set
        status = case when exists (
            select from clew.run o
            where o.thread_id = s.thread_id and o.status = 'pending') then 'busy' else %(rest)s end,
        settled_epoch = case when %(status)s = 'success' and %(rest)s = 'idle' and not %(retire)s
            then mine.epoch end,
        error = %(session_error)s,
        interrupts = case when %(settles)s then %(interrupts)s::jsonb else s.interrupts end,
        message_count = coalesce(%(message_count)s::integer, s.message_count),
        bytes = s.bytes + %(bytes)s::bigint,
        deleted_at = case when s.temporary and %(forget)s then now() else s.deleted_at end,
        updated_at = now(), state_updated_at = now(), last_active_at = now()
    from mine where s.thread_id = mine.thread_id
)
-- What its worker does not know yet.
select ended.cancel, ended.cancel_reason, ended.updated_at, ended.ended_at, exists (
    select from clew.run o where o.thread_id = ended.thread_id and o.status = 'pending'
        and o.due_at <= now()) as waits
from ended

-- name: roll_back_run
-- The run was never there. Its checkpoints have gone before, under the same epoch.
with mine as materialized (
    select r.run_id, r.thread_id from clew.run r
    where r.run_id = %(run_id)s and r.epoch = %(epoch)s and r.worker_id = %(worker_id)s
        and r.status = 'running'
    for update
),
removed as (
    delete from clew.run r using mine where r.run_id = mine.run_id returning r.thread_id
),
forgotten as (
    delete from clew.event e using mine
    where e.thread_id = mine.thread_id and e.run_id = mine.run_id
),
settled as (
    update clew.session s set
        status = case
            when exists (
                select from clew.run o
                where o.thread_id = s.thread_id and o.status = 'pending') then 'busy'
            else coalesce((
                select o.rest from clew.run o, mine
                where o.thread_id = s.thread_id and o.rest is not null and o.run_id <> mine.run_id
                order by o.ended_at desc limit 1), 'idle') end,
        updated_at = now(), state_updated_at = now(), last_active_at = now()
    from mine where s.thread_id = mine.thread_id
)
select thread_id from removed

-- name: take_back_writes
-- What a run wrote beside checkpoints that are not its own, since it was first started: answers to
-- questions, the work of tasks that an answer set going. Only under the run's own epoch.
delete from clew.write w
using clew.run r, clew.head h
where r.run_id = %(run_id)s and r.status = 'running' and r.epoch = %(epoch)s
    and h.thread_id = r.thread_id and h.epoch = r.epoch
    and w.lineage_id = h.lineage_id and w.seq > r.moment
