-- name: lineage_keys
-- What is needed to open what these lineages hold. One without a key was written in clear.
select lineage_id, owner_id, key_id, wrapped_key
from clew.lineage
where lineage_id = any(%(lineage_ids)s)

-- name: give_key
-- The first to write gives a lineage its key; whoever comes second finds it there.
update clew.lineage
set key_id = %(key_id)s, wrapped_key = %(wrapped_key)s
where lineage_id = %(lineage_id)s and wrapped_key is null
returning lineage_id

-- name: rewrap_keys
-- Each only if nobody else rewrapped it meanwhile.
update clew.lineage l
set key_id = %(key_id)s, wrapped_key = n.wrapped_key
from unnest(%(lineage_ids)s::bigint[], %(old_keys)b::bytea[], %(new_keys)b::bytea[])
    as n (lineage_id, old_key, wrapped_key)
where l.lineage_id = n.lineage_id and l.wrapped_key = n.old_key

-- name: keys_to_rewrap
-- A page of what is not under the newest key yet.
select lineage_id, owner_id, key_id, wrapped_key
from clew.lineage
where lineage_id > %(after)s and wrapped_key is not null and key_id <> %(key_id)s
order by lineage_id
limit %(page)s

-- name: keys_in_use
-- Which keys something stored still needs: the others may leave the settings.
select key_id, count(*) as lineages
from clew.lineage
group by key_id
order by key_id

-- name: plain_lineages
-- Lineages with anything in clear. The first bit of a body says whether it is encrypted.
select l.lineage_id, l.owner_id
from clew.lineage l
where exists (select from clew.item i where i.lineage_id = l.lineage_id and get_byte(i.body, 0) < 128)
    or exists (select from clew.write w where w.lineage_id = l.lineage_id and get_byte(w.body, 0) < 128)
    or exists (select from clew.label b where b.lineage_id = l.lineage_id and get_byte(b.body, 0) < 128)
order by l.lineage_id

-- name: hold_lineage
-- Neither a fork nor a write nor a prune while its bodies change. Head first, as writers do.
with head as (select from clew.head where lineage_id = %(lineage_id)s for update)
select lineage_id, (select count(*) from head) as heads
from clew.lineage
where lineage_id = %(lineage_id)s
for update

-- name: plain_items
-- A page, so that memory does not grow with the session.
select stream, number, body
from clew.item
where lineage_id = %(lineage_id)s and get_byte(body, 0) < 128
order by stream, number
limit %(page)s

-- name: plain_writes
select checkpoint_id, task_id, slot, ns, channel, body
from clew.write
where lineage_id = %(lineage_id)s and get_byte(body, 0) < 128
order by checkpoint_id, task_id, slot, ns
limit %(page)s

-- name: plain_labels
select thread_id, name, body
from clew.label
where lineage_id = %(lineage_id)s and get_byte(body, 0) < 128

-- name: replace_item
update clew.item
set body = %(body)s
where lineage_id = %(lineage_id)s and stream = %(stream)s and number = %(number)s

-- name: replace_write
update clew.write
set body = %(body)s
where lineage_id = %(lineage_id)s and checkpoint_id = %(checkpoint_id)s
    and task_id = %(task_id)s and slot = %(slot)s and ns = %(ns)s

-- name: replace_label
update clew.label
set body = %(body)s
where thread_id = %(thread_id)s and name = %(name)s
