-- name: size_of_rows
-- What a session stores itself: on its own lines, the abandoned ones included. What it shares with
-- the session it was forked from is counted there.
select l.lineages,
    (select count(*) from clew.checkpoint c where c.lineage_id = any(l.lineages)) as checkpoints,
    (select coalesce(sum(pg_column_size(c.*)), 0) from clew.checkpoint c
        where c.lineage_id = any(l.lineages))::bigint as checkpoint_bytes,
    (select count(*) from clew.write w where w.lineage_id = any(l.lineages)) as writes,
    (select coalesce(sum(pg_column_size(w.body) + 120), 0) from clew.write w
        where w.lineage_id = any(l.lineages))::bigint as write_bytes
from (
    select coalesce(array_agg(lineage_id), '{}') as lineages
    from clew.lineage where thread_id = %(thread_id)s
) l

-- name: size_of_streams
select i.stream, count(*) as items, sum(pg_column_size(i.body) + 64)::bigint as bytes
from clew.item i
where i.lineage_id = any(%(lineage_ids)s)
group by i.stream

-- name: newest_layouts
-- One row of each namespace tells the names of its channels.
select distinct on (c.ns) c.ns, c.lineage_id, c.ranges, c.state
from clew.checkpoint c
where c.lineage_id = any(%(lineage_ids)s)
order by c.ns, c.lineage_id desc, c.seq desc
