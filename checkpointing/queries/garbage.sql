-- What may go, and what must stay because someone still sees it.

-- name: children
select lineage_id, scope, fork_id::text, fork_parent::text, moment, cut, thread_id
from clew.lineage where parent_id = %(lineage_id)s

-- name: hold_lineage_alone
-- Nobody forks from it until the transaction ends.
select lineage_id, parent_id, thread_id, fork_id::text, fork_parent::text
from clew.lineage where lineage_id = %(lineage_id)s
for update

-- name: skeletons
-- Every row of a lineage, as far as deciding about it needs.
select seq, entry, ns, checkpoint_id::text, parent_id::text, root_id::text, run_id, state, ranges,
    metadata -> 'counters_since_delta_snapshot' as counters
from clew.checkpoint where lineage_id = %(lineage_id)s
order by seq

-- name: drop_rows
with gone as (
    select * from unnest(%(nss)s::text[], %(ids)s::uuid[]) as g (ns, checkpoint_id)
), writes as (
    delete from clew.write w using gone g
    where w.lineage_id = %(lineage_id)s and w.checkpoint_id = g.checkpoint_id and w.ns = g.ns
)
delete from clew.checkpoint c using gone g
where c.lineage_id = %(lineage_id)s and c.checkpoint_id = g.checkpoint_id and c.ns = g.ns

-- name: relink
-- A row whose parent went points at the nearest one that stayed.
update clew.checkpoint c set parent_id = r.parent_id
from unnest(%(nss)s::text[], %(ids)s::uuid[], %(parents)s::uuid[])
    as r (ns, checkpoint_id, parent_id)
where c.lineage_id = %(lineage_id)s and c.checkpoint_id = r.checkpoint_id and c.ns = r.ns

-- name: drop_late_writes
-- What a run that is deleted had written to a checkpoint that stays.
delete from clew.write w
using unnest(%(nss)s::text[], %(ids)s::uuid[], %(cuts)s::bigint[]) as r (ns, checkpoint_id, cut)
where w.lineage_id = %(lineage_id)s and w.checkpoint_id = r.checkpoint_id and w.ns = r.ns
    and w.seq > r.cut

-- name: drop_unseen_writes
-- Of a dead lineage: what no child can see.
delete from clew.write where lineage_id = %(lineage_id)s and seq > %(until)s

-- name: stray_writes
-- Writes whose checkpoint never came or has gone, of a lineage that nobody writes to.
delete from clew.write w
where w.lineage_id = %(lineage_id)s and not exists (
    select from clew.checkpoint c
    where c.lineage_id = w.lineage_id and c.checkpoint_id = w.checkpoint_id and c.ns = w.ns
)

-- name: sweep_items
-- Every item of a lineage that no row of it or of its descendants refers to. The ranges of each
-- stream are merged first, so that each item is looked up once.
with recursive family as (
    select %(lineage_id)s::bigint as lineage_id
    union
    select l.lineage_id from family f join clew.lineage l on l.parent_id = f.lineage_id
), spans as (
    select
        (c.ranges[k + 1] >> 32)::integer as stream,
        range_agg(int8range(
            c.ranges[k + 2], c.ranges[k + 2] + (c.ranges[k + 1] & 4294967295)
        )) as numbers
    from family f
    join clew.checkpoint c using (lineage_id)
    cross join lateral generate_series(1, cardinality(c.ranges), 3) as k
    where coalesce(nullif(c.ranges[k], 0), c.lineage_id) = %(lineage_id)s
    group by 1
)
delete from clew.item i
where i.lineage_id = %(lineage_id)s and not exists (
    select from spans s where s.stream = i.stream and s.numbers @> i.number
)

-- name: bump_sweep
-- What any process remembers of these sessions' storage is void from here on. Locks their heads,
-- so that no write is under way while something it may refer to is removed.
update clew.head h set sweep = sweep + 1
where h.lineage_id = any(%(lineages)s::bigint[])
    or h.thread_id = any(%(threads)s::text[])

-- name: drop_lineage
with items as (delete from clew.item where lineage_id = %(lineage_id)s),
writes as (delete from clew.write where lineage_id = %(lineage_id)s),
checkpoints as (delete from clew.checkpoint where lineage_id = %(lineage_id)s)
delete from clew.lineage where lineage_id = %(lineage_id)s
returning parent_id

-- name: dead_lineages
-- Nobody's, and nobody's parent.
select l.lineage_id from clew.lineage l
where l.thread_id is null
    and not exists (select from clew.lineage c where c.parent_id = l.lineage_id)
order by l.lineage_id desc limit %(limit)s

-- name: lineages_of_runs
select distinct l.lineage_id, l.thread_id
from clew.checkpoint c join clew.lineage l using (lineage_id)
where c.run_id = any(%(run_ids)s::uuid[])
order by l.lineage_id desc

-- name: hold_heads
-- Of several sessions at once, in one order for everyone.
select thread_id from clew.head where thread_id = any(%(threads)s::text[])
order by thread_id
for update

-- name: hold_lineages_of_runs
-- Dead ones too, from child to parent, as `trim` goes.
select lineage_id from clew.lineage
where (thread_id is null or thread_id = any(%(threads)s::text[])) and lineage_id in (
    select c.lineage_id from clew.checkpoint c where c.run_id = any(%(run_ids)s::uuid[])
)
order by lineage_id desc
for update

-- name: forget_past
-- Cuts a line off from its older history and from what it was restored from. It keeps its
-- parent, whose items it may refer to. Not one that another session's history goes back through.
with recursive through as (
    select c.parent_id as lineage_id
    from clew.lineage p join clew.lineage c on c.parent_id = p.lineage_id
    where p.lineage_id = any(%(lineages)s::bigint[]) and c.thread_id is distinct from p.thread_id
    union
    select l.parent_id from through t join clew.lineage l using (lineage_id)
    where l.parent_id is not null
)
update clew.lineage set
    scope = 'path', fork_id = null, fork_parent = null, moment = 0, source_id = null
where lineage_id = any(%(lineages)s::bigint[])
    and lineage_id not in (select lineage_id from through)

-- name: forget_sources
-- Of a line that was restored from another, hardly anything is left there to undo it to.
update clew.lineage set source_id = null
where lineage_id = any(%(lineages)s::bigint[]) and kind = 'restore'
