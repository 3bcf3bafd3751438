-- name: stock_tables
-- Whether the tables of langgraph-checkpoint-postgres are on the search path, as it needs them.
select count(*) = 4 as there
from information_schema.columns
where table_schema = any(current_schemas(false)::text[])
    and (table_name, column_name) in (('checkpoints', 'metadata'), ('checkpoint_blobs', 'version'),
        ('checkpoint_writes', 'task_path'), ('checkpoint_writes', 'idx'))

-- name: stock_threads
select distinct thread_id from checkpoints order by thread_id

-- name: stock_has_thread
select thread_id from checkpoints where thread_id = %(thread_id)s limit 1

-- name: stock_page
-- In the order of ids, which is that of time, all namespaces together.
select checkpoint_ns as ns, checkpoint_id, parent_checkpoint_id as parent_id, checkpoint, metadata
from checkpoints
where thread_id = %(thread_id)s
    and (checkpoint_id, checkpoint_ns) > (%(after_id)s, %(after_ns)s)
order by checkpoint_id, checkpoint_ns
limit %(page)s

-- name: stock_parents
-- What tells whether a child of theirs was put by another run, and what it changed.
select checkpoint_ns as ns, checkpoint_id, checkpoint -> 'channel_versions' as versions,
    metadata ->> 'run_id' as run_id
from checkpoints
where thread_id = %(thread_id)s and checkpoint_id = any(%(checkpoint_ids)s)

-- name: stock_blobs
select b.checkpoint_ns as ns, b.channel, b.version, b.type, b.blob
from unnest(%(namespaces)s::text[], %(channels)s::text[], %(versions)s::text[])
    as w (ns, channel, version)
join checkpoint_blobs b on b.thread_id = %(thread_id)s and b.checkpoint_ns = w.ns
    and b.channel = w.channel and b.version = w.version
where b.type <> 'empty'

-- name: stock_writes
select checkpoint_ns as ns, checkpoint_id, task_id, task_path, idx, channel, type, blob
from checkpoint_writes
where thread_id = %(thread_id)s and checkpoint_id = any(%(checkpoint_ids)s)
order by task_path, task_id, idx

-- name: stock_add_write
insert into checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx,
    channel, type, blob)
values (%(thread_id)s, %(ns)s, %(checkpoint_id)s, %(task_id)s, %(task_path)s, %(idx)s,
    %(channel)s, %(type)s, %(blob)s)

-- name: take_name
-- What was imported under a name of its own gets the one it is for, all at once.
with named as (
    update clew.lineage set thread_id = %(target)s where thread_id = %(thread_id)s
)
update clew.head set thread_id = %(target)s where thread_id = %(thread_id)s

-- name: take_leftovers
-- Imports that a crash cut off.
select h.thread_id
from clew.head h
join clew.lineage l using (lineage_id)
where starts_with(h.thread_id, %(prefix)s) and l.created_at < now() - interval '1 day'
