-- What a session sees of its history: its own rows, then its ancestors' as far as they are its.

-- name: chain
-- A lineage and its ancestors. A parent is always older, so this ends; one that is missing shows
-- as a null row.
with recursive up as (
    select %(lineage_id)s::bigint as lineage_id, 0 as depth
    union all
    select l.parent_id, up.depth + 1
    from up join clew.lineage l using (lineage_id)
    where l.parent_id is not null
)
select
    up.depth, up.lineage_id as wanted, l.lineage_id, l.owner_id, l.thread_id, l.kind, l.scope,
    l.parent_id, l.source_id, l.fork_id,
    l.fork_parent, l.fork_seq, l.moment, l.cut
from up left join clew.lineage l using (lineage_id)
order by up.depth

-- name: past
-- Where a session stands, and its lineage with its ancestors, as `chain` has them.
with recursive up as (
    select
        h.lineage_id, 0 as depth, h.lineage_id as line, h.sweep,
        coalesce(pg_sequence_last_value('clew.moment'), 0) as clock
    from clew.head h where h.thread_id = %(thread_id)s
    union all
    select l.parent_id, up.depth + 1, up.line, up.sweep, up.clock
    from up join clew.lineage l using (lineage_id)
    where l.parent_id is not null
)
select
    up.line, up.sweep, up.clock,
    up.depth, up.lineage_id as wanted, l.lineage_id, l.owner_id, l.thread_id, l.kind, l.scope,
    l.parent_id, l.source_id, l.fork_id,
    l.fork_parent, l.fork_seq, l.moment, l.cut
from up left join clew.lineage l using (lineage_id)
order by up.depth

-- name: list_own
select
    lineage_id, seq, ns, checkpoint_id::text, parent_id::text, root_id::text, run_id::text,
    step, source, created_at, ranges, state, metadata
from clew.checkpoint
where lineage_id = %(lineage_id)s
    and ns = coalesce(%(ns)s::text, ns)
    and seq < coalesce(%(before)s::bigint, 9223372036854775807)
    and seq <= coalesce(%(until)s::bigint, 9223372036854775807)
    and (%(before_id)s::uuid is null or checkpoint_id < %(before_id)s::uuid)
    and (%(checkpoint_id)s::uuid is null or checkpoint_id = %(checkpoint_id)s::uuid)
    and (%(source)s::text is null or source = %(source)s::text)
    and (%(step)s::integer is null or step = %(step)s::integer)
    and (%(run_id)s::uuid is null or run_id = %(run_id)s::uuid)
    and (%(rest)s::jsonb is null or metadata @> %(rest)s::jsonb)
order by lineage_id desc, seq desc
limit %(size)s

-- name: own_ids
-- What a lineage has itself, so that it is not shown again from an ancestor.
select ns, checkpoint_id::text from clew.checkpoint
where lineage_id = %(lineage_id)s and ns = coalesce(%(ns)s::text, ns)

-- name: oldest_own
select parent_id::text from clew.checkpoint
where lineage_id = %(lineage_id)s and ns = %(ns)s and seq <= %(until)s
order by lineage_id, ns, seq limit 1

-- name: walk
-- Up the parents from a checkpoint of one lineage, as far as it goes there. A parent is always
-- written before its child, so rows that point in a circle end it too.
with recursive path as (
    (select
        lineage_id, seq, ns, checkpoint_id, parent_id, root_id, run_id, step, source, created_at,
        ranges, state, metadata, 1 as steps
    from clew.checkpoint
    where lineage_id = %(lineage_id)s and checkpoint_id = %(checkpoint_id)s::uuid
        and ns = %(ns)s and seq <= coalesce(%(until)s::bigint, 9223372036854775807))
    union all
    select
        c.lineage_id, c.seq, c.ns, c.checkpoint_id, c.parent_id, c.root_id, c.run_id, c.step,
        c.source, c.created_at, c.ranges, c.state, c.metadata, p.steps + 1
    from path p
    join clew.checkpoint c
        on c.lineage_id = p.lineage_id and c.checkpoint_id = p.parent_id and c.ns = p.ns
        and c.seq < p.seq
    where p.steps < %(size)s
)
select
    lineage_id, seq, ns, checkpoint_id::text, parent_id::text, root_id::text, run_id::text,
    step, source, created_at, ranges, state, metadata
from path

-- name: on_path
-- Whether the way back from a checkpoint leads through another. It leaves a lineage wherever a
-- parent is not of it: at its first row, or at a branch that began at an ancestor's checkpoint.
with recursive path as (
    select
        %(lineage_id)s::bigint as lineage_id, %(from_id)s::uuid as want,
        9223372036854775807::bigint as seq
    union all
    select
        case when c.seq is null then l.parent_id else p.lineage_id end,
        case when c.seq is null then p.want else c.parent_id end,
        case when c.seq is null then p.seq else c.seq end
    from path p
    left join clew.checkpoint c
        on c.lineage_id = p.lineage_id and c.checkpoint_id = p.want and c.ns = ''
        and c.seq < p.seq
    left join clew.lineage l on c.seq is null and l.lineage_id = p.lineage_id
    where p.want <> %(checkpoint_id)s::uuid and p.lineage_id is not null and p.seq > %(floor)s
)
select exists (select from path where want = %(checkpoint_id)s::uuid) as found

-- name: find
-- A checkpoint in whichever of these lineages has it, the nearest first.
select
    c.lineage_id, c.seq, c.ns, c.checkpoint_id::text, c.parent_id::text, c.root_id::text,
    c.run_id::text, c.step, c.source, c.created_at, c.ranges, c.state, c.metadata
from unnest(%(lineages)s::bigint[]) with ordinality as l (lineage_id, depth)
cross join lateral (
    select * from clew.checkpoint
    where lineage_id = l.lineage_id and checkpoint_id = %(checkpoint_id)s::uuid and ns = %(ns)s
    offset 0
) c
order by l.depth

-- name: newest_under
-- The newest of a subgraph's namespace in one lineage, of the calls made before a root
-- checkpoint, or under it up to the cut.
select
    c.lineage_id, c.seq, c.ns, c.checkpoint_id::text, c.parent_id::text, c.root_id::text,
    c.run_id::text, c.step, c.source, c.created_at, c.ranges, c.state, c.metadata
from clew.checkpoint c
left join clew.checkpoint r
    on r.lineage_id = c.lineage_id and r.checkpoint_id = c.root_id and r.ns = ''
where c.lineage_id = %(lineage_id)s and c.ns = %(ns)s
    and c.seq <= coalesce(%(until)s::bigint, 9223372036854775807)
    and case
        when c.root_id = %(fork_id)s::uuid
            then c.seq <= coalesce(%(cut)s::bigint, 9223372036854775807)
        when r.seq is null then c.seq < coalesce(%(fork_seq)s::bigint, 9223372036854775807)
        else r.seq < coalesce(%(fork_seq)s::bigint, 9223372036854775807)
    end
order by c.lineage_id desc, c.ns desc, c.seq desc limit 1

-- name: under_roots
-- The subgraph rows of these root checkpoints.
select
    lineage_id, seq, ns, checkpoint_id::text, parent_id::text, root_id::text, run_id::text,
    step, source, created_at, ranges, state, metadata
from clew.checkpoint
where lineage_id = %(lineage_id)s and ns <> '' and root_id = any(%(roots)s::uuid[])
    and seq <= coalesce(%(until)s::bigint, 9223372036854775807)

-- name: seq_of
-- When a checkpoint was written, in these lineages.
select lineage_id, seq, ns from clew.checkpoint
where lineage_id = any(%(lineages)s::bigint[]) and checkpoint_id = %(checkpoint_id)s::uuid

-- name: threads
select thread_id from clew.head order by thread_id
