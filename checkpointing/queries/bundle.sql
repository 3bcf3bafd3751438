-- name: bundle_lineages
-- The session's own lines of storage and all that they go back to.
with recursive reached as (
    select l.*
    from clew.lineage l
    where l.lineage_id = %(lineage_id)s or (%(whole)s and l.thread_id = %(thread_id)s)
    union
    select p.*
    from reached r
    join clew.lineage p on p.lineage_id = r.parent_id
)
select lineage_id, thread_id, kind, scope, parent_id, source_id, fork_id, fork_parent, fork_seq,
    moment, cut, created_at
from reached
order by lineage_id

-- name: bundle_skeleton
-- Enough of each checkpoint to decide whether it belongs to the session's history.
select checkpoint_id, parent_id, root_id, ns, seq, entry, ranges
from clew.checkpoint
where lineage_id = %(lineage_id)s and seq <= coalesce(%(until)s, seq)

-- name: bundle_write_clock
select checkpoint_id, ns, seq, slot, octet_length(body) as bytes
from clew.write
where lineage_id = %(lineage_id)s and seq <= coalesce(%(until)s, seq)

-- name: bundle_items
-- A page of one stream, from a number on: so many rows, or so many bytes.
select number, body
from (
    select number, body,
        sum(octet_length(body)) over (order by number) - octet_length(body) as before
    from clew.item
    where lineage_id = %(lineage_id)s and stream = %(stream)s
        and number between %(first)s and %(last)s
    order by number
    limit %(page)s
) page
where before < 1000000
order by number

-- name: bundle_checkpoints
-- Metadata as text: exactly as stored, whatever its numbers look like.
select checkpoint_id, parent_id, root_id, run_id, ns, seq, entry, created_at, step, source, ranges,
    seeds, state, metadata::text
from clew.checkpoint
where lineage_id = %(lineage_id)s and checkpoint_id = any(%(checkpoint_ids)s)

-- name: bundle_writes
select checkpoint_id, task_id, slot, ns, channel, path, seq, body
from clew.write
where lineage_id = %(lineage_id)s and checkpoint_id = any(%(checkpoint_ids)s)
    and seq <= coalesce(%(until)s, seq)
order by seq, task_id, slot

-- name: bundle_labels
select thread_id, name, checkpoint_id, actor, body, labelled_at
from clew.label
where thread_id = %(thread_id)s
order by name

-- name: bundle_pins
select checkpoint_id, actor, reason, pinned_at, expires_at
from clew.pin
where thread_id = %(thread_id)s
order by checkpoint_id

-- name: bundle_clock
-- Ticks for everything that is imported: all of it is earlier than whatever comes next.
select min(tick) as first from (
    select nextval('clew.moment') as tick from generate_series(1, %(ticks)s)
) ticks

-- name: bundle_add_head
-- No row: the id is taken, whoever has it.
insert into clew.head (thread_id, owner_id, lineage_id)
values (%(thread_id)s, %(owner_id)s, 0)
on conflict do nothing
returning thread_id

-- name: bundle_set_head
update clew.head set lineage_id = %(lineage_id)s where thread_id = %(thread_id)s

-- name: bundle_add_lineage
insert into clew.lineage (owner_id, thread_id, kind, scope, parent_id, source_id, fork_id,
    fork_parent, fork_seq, moment, cut, created_at)
values (%(owner_id)s, %(thread_id)s, %(kind)s, %(scope)s, %(parent_id)s, null, %(fork_id)s,
    %(fork_parent)s, %(fork_seq)s, %(moment)s, %(cut)s, %(created_at)s)
returning lineage_id

-- name: bundle_set_source
update clew.lineage set source_id = %(source_id)s where lineage_id = %(lineage_id)s

-- name: bundle_add_items
insert into clew.item (lineage_id, owner_id, stream, number, body)
select %(lineage_id)s, %(owner_id)s, %(stream)s, %(first)s + ordinality - 1, body
from unnest(%(bodies)b::bytea[]) with ordinality as b (body, ordinality)

-- name: bundle_add_checkpoint
insert into clew.checkpoint (lineage_id, seq, owner_id, entry, created_at, checkpoint_id,
    parent_id, root_id, run_id, step, source, ns, ranges, seeds, state, metadata)
values (%(lineage_id)s, %(seq)s, %(owner_id)s, %(entry)s, %(created_at)s, %(checkpoint_id)s,
    %(parent_id)s, %(root_id)s, %(run_id)s, %(step)s, %(source)s, %(ns)s, %(ranges)s, %(seeds)s,
    %(state)s, %(metadata)s::jsonb)

-- name: bundle_add_write
insert into clew.write (lineage_id, owner_id, seq, slot, checkpoint_id, task_id, ns, channel, path,
    body)
values (%(lineage_id)s, %(owner_id)s, %(seq)s, %(slot)s, %(checkpoint_id)s, %(task_id)s, %(ns)s,
    %(channel)s, %(path)s, %(body)s)

-- name: bundle_add_label
insert into clew.label (thread_id, name, checkpoint_id, owner_id, actor, body, lineage_id,
    labelled_at)
values (%(thread_id)s, %(name)s, %(checkpoint_id)s, %(owner_id)s, %(actor)s, %(body)s,
    %(lineage_id)s, %(labelled_at)s)

-- name: bundle_add_pin
insert into clew.pin (thread_id, checkpoint_id, owner_id, actor, reason, pinned_at, expires_at)
values (%(thread_id)s, %(checkpoint_id)s, %(owner_id)s, %(actor)s, %(reason)s, %(pinned_at)s,
    %(expires_at)s)

-- name: bundle_move
-- The audit row of an import.
insert into clew.move (owner_id, thread_id, kind, to_id, actor, reason)
values (%(owner_id)s, %(thread_id)s, 'copy', %(to_id)s, %(actor)s, %(reason)s)
