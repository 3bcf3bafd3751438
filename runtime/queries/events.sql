-- name: append_events
-- One flush of many runs. Rows of a session whose epoch has moved on drop out alone; the share lock
-- is what makes a claim that comes in between wait, or this wait for it.
with live as materialized (
    -- One by one, as a join might read the heads of everybody.
    select h.* from (
        select distinct thread_id collate "C" as thread_id
        from unnest(%(thread_ids)s::text[]) as thread_id order by 1) t, lateral (
        select thread_id, epoch, owner_id from clew.head where thread_id = t.thread_id for share) h
)
insert into clew.event (
    thread_id, epoch, first_n, last_n, owner_id, run_id, v2, kind, codec, body)
select t.thread_id, t.epoch, t.first_n, t.last_n, live.owner_id, t.run_id, t.v2, t.kind, t.codec,
    t.body
from unnest(
    %(thread_ids)s::text[], %(epochs)s::bigint[], %(firsts)s::integer[], %(lasts)s::integer[],
    %(run_ids)s::uuid[], %(v2s)s::boolean[], %(kinds)s::smallint[], %(codecs)s::smallint[],
    %(bodies)s::bytea[])
    as t (thread_id, epoch, first_n, last_n, run_id, v2, kind, codec, body)
join live on live.thread_id = t.thread_id and live.epoch = t.epoch
returning thread_id, epoch, owner_id

-- name: read_events
-- In the order of their ids. A new subscriber is spared the bulk of runs other than `brief_but`. As
-- much as a reader can hold: what belongs together (one stretch, by kind) is never cut in two. The
-- sizes of the rows of a page come to less than `bytes` only if it was not cut there.
select run_id, epoch, first_n, last_n, v2, kind, codec, body, octet_length(body) as size from (
    select e.run_id, e.epoch, e.first_n, e.last_n, e.v2, e.kind, e.codec, e.body,
        sum(octet_length(e.body)) over (order by e.epoch, e.first_n)
        - sum(octet_length(e.body)) over (partition by e.epoch, e.first_n) as before
    from (
        select * from clew.event e
        where e.thread_id = %(thread_id)s
            and e.epoch >= %(epoch)s and (e.epoch > %(epoch)s or e.last_n > %(n)s)
            and (%(run_id)s::uuid is null or e.run_id = %(run_id)s)
            and (%(brief_but)s::uuid is null or e.kind in (0, 2) or e.run_id = %(brief_but)s)
        order by e.epoch, e.first_n, e.last_n, e.kind limit %(limit)s) e) held
where before < %(bytes)s
order by epoch, first_n, last_n, kind

-- name: newest_event
select epoch, last_n from clew.event where thread_id = %(thread_id)s
order by epoch desc, last_n desc limit 1

-- name: stream_status
-- Whether more can be expected of a run.
select r.status, r.epoch from clew.run r where r.run_id = %(run_id)s and r.thread_id = %(thread_id)s

-- name: last_run
-- The run that was the last to start, and the epoch of the last that was over when the newest run
-- was made, which may be waiting to start yet.
select r.run_id, r.epoch, (
    select max(o.epoch) from clew.run o
    where o.thread_id = r.thread_id and o.ended_at <= (
        select n.created_at from clew.run n
        where n.thread_id = r.thread_id and (n.attempt > 0 or n.due_at <= now())
        order by n.run_no desc limit 1
    )
) as over
from clew.run r where r.thread_id = %(thread_id)s and r.attempt > 0
order by r.started_at desc limit 1

-- name: rows_to_compact
select v2, epoch, first_n, last_n, kind, codec, body, created_at from clew.event
where thread_id = %(thread_id)s and run_id = %(run_id)s
order by epoch, first_n, kind

-- name: compact_rows
-- Under the time of the rows they replace, so that they expire with their day. Where those are gone,
-- so is the session. The owner is theirs as well: it may have changed since they were read.
with gone as (
    delete from clew.event where thread_id = %(thread_id)s and run_id = %(run_id)s
    returning owner_id
)
insert into clew.event (
    thread_id, epoch, first_n, last_n, owner_id, run_id, v2, kind, codec, body, created_at)
select %(thread_id)s, t.epoch, t.first_n, t.last_n, whose.owner_id, %(run_id)s, %(v2)s, t.kind,
    t.codec, t.body, %(created_at)s
from (select owner_id from gone limit 1) whose, unnest(
    %(epochs)s::bigint[], %(firsts)s::integer[], %(lasts)s::integer[], %(kinds)s::smallint[],
    %(codecs)s::smallint[], %(bodies)s::bytea[]) as t (epoch, first_n, last_n, kind, codec, body)

-- name: keep_partitions
select clew.keep_event_partitions(2, %(retention)s, now()) as dropped

-- name: expire_events_of_agents
-- An agent whose metadata says so keeps what its runs streamed for so many minutes from their end;
-- bounded, too. Where no agent says anything, nothing else is looked at, and of runs only those whose
-- days are not gone. What a run streamed lies in the days from its start to its end: an hour to both
-- sides is for a clock that was put right. `lateral` has them looked up one by one, and `offset 0`.
with short as materialized (
    select a.assistant_id, now() - interval '1 minute'
        * greatest(least((a.metadata ->> 'event_retention')::numeric, 1e9), 0)::float8 as before
    from clew.assistant a
    where case when jsonb_typeof(a.metadata -> 'event_retention') = 'number' then true end
)
delete from clew.event e using (
    select c.ctid, c.tableoid
    from short, lateral (
        select r.thread_id, r.run_id, r.created_at, r.ended_at from clew.run r
        where r.assistant_id = short.assistant_id and r.ended_at < short.before
            and r.ended_at > now() - %(retention)s::interval - interval '1 day' offset 0) r,
    lateral (
        select c.ctid, c.tableoid from clew.event c
        where c.thread_id = r.thread_id and c.run_id = r.run_id and c.created_at
            between r.created_at - interval '1 hour' and r.ended_at + interval '1 hour' offset 0) c
    limit %(limit)s) old
where e.ctid = old.ctid and e.tableoid = old.tableoid

-- name: mixed_runs
-- Runs that are over and were not put together, as where their worker died at that moment: their
-- tokens lie among the rest. All at once: an index for it would cost every flush, whose rows are of
-- this kind, and without one each look reads the log.
select distinct c.thread_id, c.run_id from clew.event c
where c.kind = 2 and c.created_at < now() - %(retention)s::interval
    and not exists (select from clew.run r
        where r.run_id = c.run_id and r.status in ('pending', 'running') offset 0)
limit %(limit)s

-- name: expire_tokens
-- Tokens may have a shorter life than the rest; bounded, so that it never holds anyone up.
delete from clew.event e using (
    select c.ctid, c.tableoid from clew.event c
    where c.kind = 1 and c.created_at < now() - %(retention)s::interval limit %(limit)s) old
where e.ctid = old.ctid and e.tableoid = old.tableoid
