-- name: pin
-- Pinned again: the newest reason and expiry count. The head names the owner.
insert into clew.pin (thread_id, checkpoint_id, owner_id, actor, reason, expires_at)
select thread_id, %(checkpoint_id)s, owner_id, %(actor)s, %(reason)s, %(expires_at)s
from clew.head where thread_id = %(thread_id)s
on conflict (thread_id, checkpoint_id) do update set
    actor = excluded.actor, reason = excluded.reason, expires_at = excluded.expires_at,
    pinned_at = now()
returning checkpoint_id, actor, reason, pinned_at, expires_at

-- name: unpin
delete from clew.pin
where thread_id = %(thread_id)s and checkpoint_id = %(checkpoint_id)s

-- name: list_pins
-- One that has expired holds nothing any more and is not shown.
select checkpoint_id, actor, reason, pinned_at, expires_at
from clew.pin
where thread_id = %(thread_id)s and (expires_at is null or expires_at > now())
order by pinned_at, checkpoint_id

-- name: label
-- Where the name is taken nothing happens, unless it is to move or is there already.
insert into clew.label (thread_id, name, checkpoint_id, owner_id, actor, body, lineage_id)
select thread_id, %(name)s, %(checkpoint_id)s, owner_id, %(actor)s, %(body)s, lineage_id
from clew.head where thread_id = %(thread_id)s
on conflict (thread_id, name) do update set
    checkpoint_id = excluded.checkpoint_id, actor = excluded.actor, labelled_at = now(),
    lineage_id = case when excluded.body is null and label.checkpoint_id = excluded.checkpoint_id
        then label.lineage_id else excluded.lineage_id end,
    body = case when excluded.body is null and label.checkpoint_id = excluded.checkpoint_id
        then label.body else excluded.body end
where %(move)s or label.checkpoint_id = excluded.checkpoint_id
returning name, checkpoint_id, actor, labelled_at, body, lineage_id

-- name: unlabel
delete from clew.label where thread_id = %(thread_id)s and name = %(name)s

-- name: list_labels
select name, checkpoint_id, actor, labelled_at, body is not null as has_data
from clew.label
where thread_id = %(thread_id)s and (%(name)s::text is null or name = %(name)s)
order by labelled_at, name

-- name: label_body
select body, lineage_id, owner_id from clew.label
where thread_id = %(thread_id)s and name = %(name)s

-- name: forget_marks
-- All marks of a session whose checkpoints are all gone.
with pins as (delete from clew.pin where thread_id = %(thread_id)s)
delete from clew.label where thread_id = %(thread_id)s

-- name: is_at_rest
-- Whether nothing is pending at a checkpoint: no write and no subgraph that ran under it.
select not exists (
        select from clew.write where lineage_id = %(lineage_id)s and checkpoint_id = %(checkpoint_id)s
    ) and not exists (
        select from clew.checkpoint
        where lineage_id = %(lineage_id)s and root_id = %(checkpoint_id)s and ns <> ''
    ) as at_rest

-- name: repeat_checkpoint
-- The same values once more, as a checkpoint of its own: nothing but the row is written.
insert into clew.checkpoint (
    lineage_id, owner_id, entry, created_at, checkpoint_id, parent_id, step, source, ns, ranges,
    seeds, state, metadata)
select lineage_id, owner_id, coalesce(pg_sequence_last_value('clew.moment'), 0), now(),
    %(new_id)s, checkpoint_id, coalesce(step, 0) + 1, 'update', ns, ranges, seeds, %(state)s,
    metadata
from clew.checkpoint
where lineage_id = %(lineage_id)s and checkpoint_id = %(checkpoint_id)s and ns = ''
