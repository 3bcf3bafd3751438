-- name: lock_free_head
-- Not worth waiting for: a session that is busy comes round again.
select thread_id, owner_id, lineage_id, epoch, now() as now
from clew.head where thread_id = %(thread_id)s and retain_at <= now()
for update skip locked

-- name: lock_lineages
-- A fork holds its source `for key share`: it comes before this or sees what is left after.
select lineage_id, parent_id, fork_id, kind
from clew.lineage where thread_id = %(thread_id)s
order by lineage_id
for update

-- name: family
-- What was forked from these lineages, and from those, and so on.
with recursive down as (
    select lineage_id, thread_id, parent_id, scope, fork_id, fork_parent, moment
    from clew.lineage where parent_id = any(%(lineage_ids)s)
    union
    select l.lineage_id, l.thread_id, l.parent_id, l.scope, l.fork_id, l.fork_parent, l.moment
    from down join clew.lineage l on l.parent_id = down.lineage_id
)
select * from down order by lineage_id

-- name: retained_rows
-- Everything there is to know of a session's own rows but their values.
select c.lineage_id, c.seq, c.ns, c.checkpoint_id, c.parent_id, c.root_id, c.run_id, c.entry,
    c.created_at, c.ranges, c.state, c.seeds is not null as has_seeds,
    c.metadata -> 'counters_since_delta_snapshot' as counters, c.metadata -> 'parents' as parents,
    pg_column_size(c.*) as bytes, coalesce(w.writes, 0) as writes, coalesce(w.asked, false) as asked,
    coalesce(w.failed, false) as failed, coalesce(w.ordinary, 0) as ordinary
from clew.checkpoint c
left join (
    select lineage_id, checkpoint_id, ns, count(*) as writes,
        bool_or(slot < 0 and (-slot) %% 8 = 3) as asked,
        bool_or(slot < 0 and (-slot) %% 8 = 1) as failed,
        count(*) filter (where slot >= 0) as ordinary
    from clew.write
    where lineage_id = any(%(lineage_ids)s)
    group by lineage_id, checkpoint_id, ns
) w using (lineage_id, checkpoint_id, ns)
where c.lineage_id = any(%(lineage_ids)s)
order by c.seq

-- name: marked_checkpoints
select checkpoint_id from clew.pin
where thread_id = %(thread_id)s and (expires_at is null or expires_at > now())
union
select checkpoint_id from clew.label where thread_id = %(thread_id)s

-- name: drop_checkpoints
delete from clew.checkpoint c
using unnest(%(lineage_ids)s::bigint[], %(ns)s::text[], %(seqs)s::bigint[])
    as d (lineage_id, ns, seq)
where c.lineage_id = d.lineage_id and c.ns = d.ns and c.seq = d.seq

-- name: relink_checkpoints
-- What comes after a gap now follows what comes before it, and says of it what the gap said.
update clew.checkpoint c set parent_id = d.parent_id, entry = d.entry
from unnest(%(lineage_ids)s::bigint[], %(ns)s::text[], %(seqs)s::bigint[], %(parents)s::uuid[],
        %(entries)s::bigint[])
    as d (lineage_id, ns, seq, parent_id, entry)
where c.lineage_id = d.lineage_id and c.ns = d.ns and c.seq = d.seq

-- name: count_writes
-- What `drop_writes` is going to delete. `until` of null is all of a checkpoint's writes; without
-- `every`, only the ordinary ones.
select count(*) as rows, coalesce(sum(pg_column_size(w.body) + 120), 0)::bigint as bytes
from clew.write w
join unnest(%(lineage_ids)s::bigint[], %(checkpoint_ids)s::uuid[], %(ns)s::text[],
        %(after)s::bigint[], %(every)s::boolean[])
    as d (lineage_id, checkpoint_id, ns, after, every)
    on w.lineage_id = d.lineage_id and w.checkpoint_id = d.checkpoint_id and w.ns = d.ns
where w.seq > d.after and (d.every or w.slot >= 0)

-- name: drop_writes
with gone as (
    delete from clew.write w
    using unnest(%(lineage_ids)s::bigint[], %(checkpoint_ids)s::uuid[], %(ns)s::text[],
            %(after)s::bigint[], %(every)s::boolean[])
        as d (lineage_id, checkpoint_id, ns, after, every)
    where w.lineage_id = d.lineage_id and w.checkpoint_id = d.checkpoint_id and w.ns = d.ns
        and w.seq > d.after and (d.every or w.slot >= 0)
    returning pg_column_size(w.body) + 120 as bytes
)
select count(*) as rows, coalesce(sum(bytes), 0)::bigint as bytes from gone

-- name: stray_ranges
-- What rows outside of the session refer to: forks of it, and forks of those.
select c.lineage_id, c.ranges
from clew.checkpoint c
where c.lineage_id = any(%(lineage_ids)s) and c.ranges is not null

-- name: count_items
-- What `drop_items` is going to delete.
with live as (
    select lineage_id, stream, range_agg(int8range(first, first + size)) as numbers
    from unnest(%(of)s::bigint[], %(streams)s::integer[], %(firsts)s::bigint[], %(sizes)s::bigint[])
        as r (lineage_id, stream, first, size)
    group by lineage_id, stream
)
select count(*) as rows, coalesce(sum(pg_column_size(i.body) + 64), 0)::bigint as bytes
from clew.item i
where i.lineage_id = any(%(lineage_ids)s) and not exists (
    select from live l
    where l.lineage_id = i.lineage_id and l.stream = i.stream and l.numbers @> i.number)

-- name: drop_items
-- Items that nothing which stays refers to.
with live as (
    select lineage_id, stream, range_agg(int8range(first, first + size)) as numbers
    from unnest(%(of)s::bigint[], %(streams)s::integer[], %(firsts)s::bigint[], %(sizes)s::bigint[])
        as r (lineage_id, stream, first, size)
    group by lineage_id, stream
), gone as (
    delete from clew.item i
    where i.lineage_id = any(%(lineage_ids)s) and not exists (
        select from live l
        where l.lineage_id = i.lineage_id and l.stream = i.stream and l.numbers @> i.number)
    returning pg_column_size(i.body) + 64 as bytes
)
select count(*) as rows, coalesce(sum(bytes), 0)::bigint as bytes from gone

-- name: drop_lines
-- Lines that nothing is left of. What was restored from them cannot be undone any more.
with gone as (
    delete from clew.lineage where lineage_id = any(%(lineage_ids)s) returning lineage_id
)
update clew.lineage l set source_id = null
from gone where l.source_id = gone.lineage_id

-- name: due_heads
-- A page of those that are due, onward from the last one of the page before.
select thread_id, retain_at from clew.head
where retain_at <= now() and (
    %(after)s::timestamptz is null
    or (retain_at, thread_id) > (%(after)s::timestamptz, %(after_id)s::text)
)
order by retain_at, thread_id
limit %(limit)s

-- name: look_again
update clew.head set retain_at = now() + %(pause)s where thread_id = %(thread_id)s

-- name: begin_again
-- A session on a new and empty lineage, its epoch going on.
with line as (
    insert into clew.lineage (owner_id, thread_id, kind)
    select owner_id, thread_id, 'root' from clew.head where thread_id = %(thread_id)s
    returning lineage_id, thread_id
)
update clew.head h set lineage_id = line.lineage_id
from line where h.thread_id = line.thread_id
returning h.lineage_id
