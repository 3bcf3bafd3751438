-- name: session_lines
-- The head's lineage and its ancestors; with `every`, all lineages that the session ever was on.
with recursive line as (
    select l.lineage_id, l.parent_id
    from clew.head h
    join clew.lineage l on l.lineage_id = h.lineage_id or (%(every)s and l.thread_id = h.thread_id)
    where h.thread_id = %(thread_id)s
    union
    select p.lineage_id, p.parent_id
    from line join clew.lineage p on p.lineage_id = line.parent_id
)
select l.lineage_id, l.kind, l.scope, l.parent_id, l.source_id, l.fork_id, l.fork_parent, l.moment,
    l.created_at, l.thread_id is not distinct from %(thread_id)s as own, h.lineage_id as head_id
from line join clew.lineage l using (lineage_id)
join clew.head h on h.thread_id = %(thread_id)s
order by l.lineage_id

-- name: find_entry
-- The nearest of these lineages that has the checkpoint: a copy at the start of a fork comes first.
select lineage_id, seq, ns
from clew.checkpoint
where lineage_id = any(%(lineage_ids)s) and checkpoint_id = %(checkpoint_id)s and ns = %(ns)s
order by lineage_id desc
limit 1

-- name: tip_of_lineage
select checkpoint_id, seq, step, ranges, state
from clew.checkpoint
where lineage_id = %(lineage_id)s and ns = ''
order by seq desc
limit 1

-- name: list_lines
-- A page of whole lineages. Each is read backwards by itself, so that a page costs a page. A
-- checkpoint that is in two of them, as fork point and as its copy, is hidden in one.
select c.*
from unnest(%(lineage_ids)s::bigint[], %(bounds)s::bigint[], %(hidden)s::uuid[])
    as v (lineage_id, bound, hidden)
cross join lateral (
    select c.lineage_id, c.seq, c.checkpoint_id, c.parent_id, c.root_id, c.run_id, c.step, c.source,
        c.ns, c.created_at, c.metadata, c.ranges, c.state, pg_column_size(c.*) as bytes
    from clew.checkpoint c
    where c.lineage_id = v.lineage_id and c.ns = %(ns)s and c.seq <= v.bound
        and c.checkpoint_id is distinct from v.hidden
        and (c.ns = '' or c.root_id is distinct from v.hidden)
        and (%(before)s::bigint is null or c.seq < %(before)s)
        and (%(before_id)s::uuid is null or c.checkpoint_id < %(before_id)s)
        and (%(source)s::text is null or c.source = %(source)s)
        and (%(step)s::integer is null or c.step = %(step)s)
        and (%(run_id)s::uuid is null or c.run_id = %(run_id)s)
        and (%(metadata)s::jsonb is null or c.metadata @> %(metadata)s)
    order by c.seq desc
    limit %(limit)s
) c
order by c.seq desc
limit %(limit)s

-- name: list_path
-- Ancestors, parent by parent: in the same lineage, else in the nearest one above it. `reach`
-- bounds the walk where no filter can make it longer than the page.
with recursive path as (
    select c.lineage_id, c.seq, c.checkpoint_id, c.parent_id, 0 as depth
    from unnest(%(from_lineages)s::bigint[], %(from_ids)s::uuid[]) as s (lineage_id, checkpoint_id)
    cross join lateral (
        select * from clew.checkpoint c
        where c.lineage_id = any(%(chain)s) and c.lineage_id <= s.lineage_id
            and c.checkpoint_id = s.checkpoint_id and c.ns = ''
        order by c.lineage_id desc
        limit 1
    ) c
    union all
    select coalesce(own.lineage_id, up.lineage_id), coalesce(own.seq, up.seq),
        path.parent_id, coalesce(own.parent_id, up.parent_id), path.depth + 1
    from path
    left join clew.checkpoint own on own.lineage_id = path.lineage_id
        and own.checkpoint_id = path.parent_id and own.ns = ''
    left join lateral (
        select c.lineage_id, c.seq, c.parent_id
        from clew.checkpoint c
        where own.lineage_id is null and c.lineage_id = any(%(chain)s)
            and c.lineage_id < path.lineage_id and c.checkpoint_id = path.parent_id and c.ns = ''
        order by c.lineage_id desc
        limit 1
    ) up on true
    where path.parent_id is not null
        and (%(reach)s::integer is null or path.depth < %(reach)s)
        and (own.lineage_id is not null or up.lineage_id is not null)
), step as (
    select distinct lineage_id, checkpoint_id from path
)
select c.lineage_id, c.seq, c.checkpoint_id, c.parent_id, c.root_id, c.run_id, c.step, c.source,
    c.ns, c.created_at, c.metadata, c.ranges, c.state, pg_column_size(c.*) as bytes
from step
join clew.checkpoint c on c.lineage_id = step.lineage_id and c.ns = %(ns)s
    and case when %(ns)s = '' then c.checkpoint_id else c.root_id end = step.checkpoint_id
where (%(before)s::bigint is null or c.seq < %(before)s)
    and (%(before_id)s::uuid is null or c.checkpoint_id < %(before_id)s)
    and (%(source)s::text is null or c.source = %(source)s)
    and (%(step)s::integer is null or c.step = %(step)s)
    and (%(run_id)s::uuid is null or c.run_id = %(run_id)s)
    and (%(metadata)s::jsonb is null or c.metadata @> %(metadata)s)
order by c.seq desc
limit %(limit)s

-- name: marks_of_entries
-- Labels, live pins, and what was written under each of these checkpoints.
select p.number,
    (select array_agg(b.name order by b.name) from clew.label b
        where b.thread_id = %(thread_id)s and b.checkpoint_id = p.checkpoint_id) as labels,
    exists (select from clew.pin n
        where n.thread_id = %(thread_id)s and n.checkpoint_id = p.checkpoint_id
            and (n.expires_at is null or n.expires_at > now())) as pinned,
    w.bytes, w.asked, w.failed
from unnest(%(lineage_ids)s::bigint[], %(checkpoint_ids)s::uuid[], %(ns)s::text[])
    with ordinality as p (lineage_id, checkpoint_id, ns, number)
cross join lateral (
    select coalesce(sum(pg_column_size(w.body) + 96), 0)::bigint as bytes,
        coalesce(bool_or(w.slot < 0 and (-w.slot) %% 8 = 3), false) as asked,
        coalesce(bool_or(w.slot < 0 and (-w.slot) %% 8 = 1), false) as failed
    from clew.write w
    where w.lineage_id = p.lineage_id and w.checkpoint_id = p.checkpoint_id and w.ns = p.ns
) w
order by p.number

-- name: ranges_of_parents
-- What the parents refer to, to tell what each checkpoint brought.
select p.number, c.lineage_id, c.ranges
from unnest(%(lineage_ids)s::bigint[], %(checkpoint_ids)s::uuid[], %(ns)s::text[])
    with ordinality as p (lineage_id, checkpoint_id, ns, number)
cross join lateral (
    select c.lineage_id, c.ranges
    from unnest(%(chain)s::bigint[]) as l (lineage_id)
    cross join lateral (
        select * from clew.checkpoint
        where lineage_id = l.lineage_id and checkpoint_id = p.checkpoint_id and ns = p.ns
        offset 0
    ) c
    where l.lineage_id <= p.lineage_id
    order by l.lineage_id desc
    limit 1
) c

-- name: bytes_of_ranges
select r.number, sum(pg_column_size(i.body) + 56)::bigint as bytes
from unnest(%(numbers)s::integer[], %(lineage_ids)s::bigint[], %(streams)s::integer[],
        %(firsts)s::bigint[], %(lasts)s::bigint[])
    as r (number, lineage_id, stream, first, last)
join clew.item i on i.lineage_id = r.lineage_id and i.stream = r.stream
    and i.number between r.first and r.last
group by r.number

-- name: moves_of_session
select move_id, kind, from_id, to_id, checkpoint_id, actor, reason, made_at
from clew.move
where thread_id = %(thread_id)s
order by move_id

-- name: counts_of_lines
-- How much each line has of its own: checkpoints of the root graph, and which one is its newest.
select v.lineage_id, n.checkpoints, t.checkpoint_id as tip
from unnest(%(lineage_ids)s::bigint[]) as v (lineage_id)
cross join lateral (
    select count(*) as checkpoints from clew.checkpoint c
    where c.lineage_id = v.lineage_id and c.ns = ''
) n
left join lateral (
    select c.checkpoint_id from clew.checkpoint c
    where c.lineage_id = v.lineage_id and c.ns = ''
    order by c.seq desc
    limit 1
) t on true

-- name: root_row
select lineage_id, seq, checkpoint_id, parent_id, root_id, run_id, step, source, ns, created_at,
    metadata, ranges, state
from clew.checkpoint
where lineage_id = %(lineage_id)s and ns = '' and seq = %(seq)s
