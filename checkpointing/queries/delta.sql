-- name: delta_walk
-- Up the parents until each channel has been met where it is stored. A row that does not say
-- what it stores (no DeltaChannel was in play) is for the caller to look at.
with recursive up as (
    (select
        lineage_id, seq, ns, checkpoint_id, parent_id, ranges, state,
        case when seeds is null then '{}'::text[] else array(
            select unnest(%(channels)s::text[]) except select unnest(seeds)
        ) end as missing
    from clew.checkpoint
    where lineage_id = %(lineage_id)s and checkpoint_id = %(checkpoint_id)s::uuid
        and ns = %(ns)s and seq <= %(until)s)
    union all
    select
        c.lineage_id, c.seq, c.ns, c.checkpoint_id, c.parent_id, c.ranges, c.state,
        case when c.seeds is null then '{}'::text[] else array(
            select unnest(up.missing) except select unnest(c.seeds)
        ) end
    from up
    join clew.checkpoint c
        on c.lineage_id = up.lineage_id and c.checkpoint_id = up.parent_id and c.ns = up.ns
        and c.seq < up.seq
    where cardinality(up.missing) > 0
)
select lineage_id, seq, ns, checkpoint_id::text, parent_id::text, ranges, state from up

-- name: delta_writes
select w.lineage_id, w.checkpoint_id::text, w.ns, w.task_id::text, w.slot, w.channel, w.path,
    w.body
from unnest(
    %(lineages)s::bigint[], %(checkpoints)s::uuid[], %(nss)s::text[], %(untils)s::bigint[]
) as c (lineage_id, checkpoint_id, ns, until)
cross join lateral (
    select * from clew.write
    where lineage_id = c.lineage_id and checkpoint_id = c.checkpoint_id and ns = c.ns
        and seq <= c.until and slot >= 0 and channel = any(%(channels)s::text[])
    offset 0
) w
