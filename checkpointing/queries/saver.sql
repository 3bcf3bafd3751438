-- What LangGraph's loop does, one statement each.

-- name: begin
-- The head of a session that has none, and its lineage. The lineage follows the head, so that
-- two processes that begin one session leave no second lineage behind.
with made as (
    insert into clew.head (thread_id, owner_id, lineage_id)
    values (
        %(thread_id)s, %(owner_id)s,
        nextval(pg_get_serial_sequence('clew.lineage', 'lineage_id'))
    )
    on conflict do nothing
    returning thread_id, owner_id, lineage_id
)
insert into clew.lineage (lineage_id, owner_id, thread_id, kind) overriding system value
select lineage_id, owner_id, thread_id, 'root' from made
returning lineage_id

-- name: put
-- `for share` waits for whoever is bumping the epoch, and makes them wait for us. The lineage and
-- the sweep are those that the ranges were made for; on any other, nothing lands.
with target as (
    select lineage_id, owner_id from clew.head
    where thread_id = %(thread_id)s
        and epoch = coalesce(%(epoch)s::bigint, epoch)
        and lineage_id = coalesce(%(lineage_id)s::bigint, lineage_id)
        and sweep = coalesce(%(sweep)s::bigint, sweep)
    for share
), stored as (
    insert into clew.item (lineage_id, owner_id, stream, number, body)
    select t.lineage_id, t.owner_id, i.stream, i.number, i.body
    from target t, unnest(
        %(streams)s::integer[], %(numbers)s::bigint[], %(bodies)b::bytea[]
    ) as i (stream, number, body)
)
insert into clew.checkpoint (
    lineage_id, owner_id, entry, created_at, checkpoint_id, parent_id, root_id, run_id, step,
    source, ns, ranges, seeds, state, metadata
)
select
    lineage_id, owner_id, %(entry)s::bigint, %(created_at)s::timestamptz,
    %(checkpoint_id)s::uuid, %(parent_id)s::uuid, %(root_id)s::uuid, %(run_id)s::uuid,
    %(step)s::integer, %(source)s::text, %(ns)s::text, %(ranges)s::bigint[], %(seeds)s::text[],
    %(state)s::bytea, %(metadata)s::jsonb
from target
on conflict (lineage_id, checkpoint_id, ns) do update set
    created_at = excluded.created_at, parent_id = excluded.parent_id,
    root_id = excluded.root_id, run_id = excluded.run_id, step = excluded.step,
    source = excluded.source, ranges = excluded.ranges, seeds = excluded.seeds,
    state = excluded.state, metadata = excluded.metadata
returning lineage_id

-- name: put_writes
-- Says which lineage it wrote to even where every write was there already.
with target as (
    select lineage_id, owner_id from clew.head
    where thread_id = %(thread_id)s and epoch = coalesce(%(epoch)s::bigint, epoch)
        and lineage_id = coalesce(%(lineage_id)s::bigint, lineage_id)
    for share
), said as (
    select t.lineage_id, t.owner_id, w.*, nextval('clew.moment') as seq
    from target t, unnest(
        %(slots)s::bigint[], %(channels)s::text[], %(bodies)b::bytea[]
    ) as w (slot, channel, body)
), stored as (
    insert into clew.write (
        lineage_id, owner_id, seq, slot, checkpoint_id, task_id, ns, channel, path, body
    )
    select
        lineage_id, owner_id, seq, case when slot < 0 then slot - 8 * seq else slot end,
        %(checkpoint_id)s::uuid, %(task_id)s::uuid, %(ns)s::text, channel, %(path)s::text, body
    from said
    on conflict do nothing
)
select lineage_id from target

-- name: standing
-- Why a statement landed nothing; also the clock, for a process that knows nothing yet.
select lineage_id, epoch, sweep, coalesce(pg_sequence_last_value('clew.moment'), 0) as clock
from clew.head where thread_id = %(thread_id)s

-- name: read_newest
-- The newest of a namespace with everything it holds. `offset 0` keeps the planner from turning
-- the look-ups into scans of tables of which it has no statistics yet. What items are compared with
-- is computed apart, behind such an `offset`: under row security a comparison with anything but a
-- bare column is kept out of the index condition, since `>>` and `+` are not leakproof.
select
    h.lineage_id as line, h.sweep,
    coalesce(pg_sequence_last_value('clew.moment'), 0) as clock,
    case when c.seq is null then (
        select l.parent_id from clew.lineage l where l.lineage_id = h.lineage_id
    ) end as parent_line,
    c.*, i.bodies, w.*
from clew.head h
left join lateral (
    select
        lineage_id, seq, ns, checkpoint_id::text, parent_id::text, root_id::text, run_id::text,
        step, source, created_at, ranges, state, metadata, checkpoint_id as id
    from clew.checkpoint
    where lineage_id = h.lineage_id and ns = %(ns)s
    order by lineage_id desc, ns desc, seq desc limit 1
) c on true
left join lateral (
    select array_agg(e.body order by k, e.number) as bodies
    from (
        select
            k, case c.ranges[k] when 0 then c.lineage_id else c.ranges[k] end as lineage_id,
            (c.ranges[k + 1] >> 32)::integer as stream, c.ranges[k + 2] as first,
            c.ranges[k + 2] + (c.ranges[k + 1] & 4294967295) as past
        from generate_series(1, cardinality(c.ranges), 3) as k
        offset 0
    ) r
    cross join lateral (
        select body, number from clew.item
        where lineage_id = r.lineage_id and stream = r.stream
            and number >= r.first and number < r.past
        offset 0
    ) e
) i on true
left join lateral (
    select
        array_agg(task_id::text) as tasks, array_agg(slot) as slots,
        array_agg(channel) as channels, array_agg(path) as paths, array_agg(body) as writes
    from clew.write
    where lineage_id = c.lineage_id and checkpoint_id = c.id and ns = c.ns
) w on true
where h.thread_id = %(thread_id)s

-- name: read_exact
-- As `read_newest`, for one checkpoint.
select
    h.lineage_id as line, h.sweep,
    coalesce(pg_sequence_last_value('clew.moment'), 0) as clock,
    case when c.seq is null then (
        select l.parent_id from clew.lineage l where l.lineage_id = h.lineage_id
    ) end as parent_line,
    c.*, i.bodies, w.*
from clew.head h
left join lateral (
    select
        lineage_id, seq, ns, checkpoint_id::text, parent_id::text, root_id::text, run_id::text,
        step, source, created_at, ranges, state, metadata, checkpoint_id as id
    from clew.checkpoint
    where lineage_id = h.lineage_id and checkpoint_id = %(checkpoint_id)s::uuid and ns = %(ns)s
) c on true
left join lateral (
    select array_agg(e.body order by k, e.number) as bodies
    from (
        select
            k, case c.ranges[k] when 0 then c.lineage_id else c.ranges[k] end as lineage_id,
            (c.ranges[k + 1] >> 32)::integer as stream, c.ranges[k + 2] as first,
            c.ranges[k + 2] + (c.ranges[k + 1] & 4294967295) as past
        from generate_series(1, cardinality(c.ranges), 3) as k
        offset 0
    ) r
    cross join lateral (
        select body, number from clew.item
        where lineage_id = r.lineage_id and stream = r.stream
            and number >= r.first and number < r.past
        offset 0
    ) e
) i on true
left join lateral (
    select
        array_agg(task_id::text) as tasks, array_agg(slot) as slots,
        array_agg(channel) as channels, array_agg(path) as paths, array_agg(body) as writes
    from clew.write
    where lineage_id = c.lineage_id and checkpoint_id = c.id and ns = c.ns
) w on true
where h.thread_id = %(thread_id)s

-- name: load_items
-- The union of what several checkpoints refer to, each item once.
select i.lineage_id, i.stream, i.number, i.body
from (
    select lineage_id, stream, first, first + size as past
    from unnest(
        %(lineages)s::bigint[], %(streams)s::integer[], %(firsts)s::bigint[], %(sizes)s::bigint[]
    ) as u (lineage_id, stream, first, size)
    offset 0
) r
cross join lateral (
    select lineage_id, stream, number, body from clew.item
    where lineage_id = r.lineage_id and stream = r.stream
        and number >= r.first and number < r.past
    offset 0
) i

-- name: load_writes
-- The pending writes of several checkpoints, none later than what is seen of their lineage.
select
    w.lineage_id, w.checkpoint_id::text, w.ns, w.task_id::text, w.slot, w.channel, w.path, w.body
from unnest(
    %(lineages)s::bigint[], %(checkpoints)s::uuid[], %(nss)s::text[], %(untils)s::bigint[]
) as c (lineage_id, checkpoint_id, ns, until)
cross join lateral (
    select * from clew.write
    where lineage_id = c.lineage_id and checkpoint_id = c.checkpoint_id and ns = c.ns
        and seq <= c.until
    offset 0
) w

-- name: layouts
-- Where values lie, newest first, for a put that goes on from a checkpoint this process never saw.
select lineage_id, seq, state, ranges from clew.checkpoint
where lineage_id = %(lineage_id)s and ns = %(ns)s
    and seq < coalesce(%(before)s::bigint, 9223372036854775807)
order by lineage_id desc, ns desc, seq desc limit %(size)s
