-- name: get_store_items
-- Reading gives an item new life. Whoever else holds its row is giving it new life too, or a new
-- value, so nobody waits here; and a life that has hardly begun is not worth a write.
with wanted as (
    select * from unnest(%(namespaces)s::text[], %(keys)s::text[], %(refreshes)s::boolean[])
        with ordinality as w (namespace, key, refresh, place)
), refreshed as (
    update clew.store_item i set expires_at = now() + i.ttl
    where i.owner_id = %(owner_id)s and (i.namespace, i.key) in (
        select l.namespace, l.key
        from clew.store_item l join wanted w on w.namespace = l.namespace and w.key = l.key
        where l.owner_id = %(owner_id)s and w.refresh
            and l.expires_at > now() and l.expires_at < now() + l.ttl * 0.99
        for update of l skip locked)
)
select w.place - 1 as place, i.namespace, i.key, i.value, i.body, i.key_no, i.escaped,
    i.created_at, i.updated_at
from wanted w join clew.store_item i
    on i.owner_id = %(owner_id)s and i.namespace = w.namespace and i.key = w.key
where i.expires_at is null or i.expires_at > now()

-- name: search_store
with found as (
    select i.* from clew.store_found(
        %(owner_id)s, %(low)s, %(high)s, %(exact)s::jsonb, %(conditions)s::jsonb) i
    order by i.updated_at desc, i.namespace, i.key limit %(limit)s offset %(offset)s
), refreshed as (
    update clew.store_item i set expires_at = now() + i.ttl
    where %(refresh)s and i.owner_id = %(owner_id)s and (i.namespace, i.key) in (
        select l.namespace, l.key from clew.store_item l join found f using (namespace, key)
        where l.owner_id = %(owner_id)s
            and l.expires_at > now() and l.expires_at < now() + l.ttl * 0.99
        for update of l skip locked)
)
select namespace, key, value, body, key_no, escaped, created_at, updated_at, null::real as score
from found order by updated_at desc, namespace, key

-- name: search_store_words
-- The score is the share of the terms that an item has: all of them is 1.
with found as (
    select i.*, m.score from clew.store_found(
            %(owner_id)s, %(low)s, %(high)s, %(exact)s::jsonb, %(conditions)s::jsonb) i,
        lateral (
            select (count(*) filter (where i.words @@ term.term)) / count(*)::real as score
            from unnest(%(terms)s::text[]::tsquery[]) as term (term)) m
    where i.words @@ %(any_term)s::tsquery
    order by m.score desc, i.updated_at desc, i.namespace, i.key
    limit %(limit)s offset %(offset)s
), refreshed as (
    update clew.store_item i set expires_at = now() + i.ttl
    where %(refresh)s and i.owner_id = %(owner_id)s and (i.namespace, i.key) in (
        select l.namespace, l.key from clew.store_item l join found f using (namespace, key)
        where l.owner_id = %(owner_id)s
            and l.expires_at > now() and l.expires_at < now() + l.ttl * 0.99
        for update of l skip locked)
)
select namespace, key, value, body, key_no, escaped, created_at, updated_at, score
from found order by score desc, updated_at desc, namespace, key

-- name: search_store_vectors
-- Exact, for each owner has few enough items that no approximation pays. An item is as near as the
-- nearest of its vectors; those of another model say nothing.
with found as (
    select i.*, m.score from clew.store_found(
            %(owner_id)s, %(low)s, %(high)s, %(exact)s::jsonb, %(conditions)s::jsonb) i,
        lateral (
            select max(clew.store_product(v.embedding, %(probe)s::real[])) as score
            from clew.store_vector v
            where v.owner_id = i.owner_id and v.namespace = i.namespace and v.key = i.key) m
    where i.model = %(model)s and m.score is not null
    order by m.score desc, i.updated_at desc, i.namespace, i.key
    limit %(limit)s offset %(offset)s
), refreshed as (
    update clew.store_item i set expires_at = now() + i.ttl
    where %(refresh)s and i.owner_id = %(owner_id)s and (i.namespace, i.key) in (
        select l.namespace, l.key from clew.store_item l join found f using (namespace, key)
        where l.owner_id = %(owner_id)s
            and l.expires_at > now() and l.expires_at < now() + l.ttl * 0.99
        for update of l skip locked)
)
select namespace, key, value, body, key_no, escaped, created_at, updated_at, score
from found order by score desc, updated_at desc, namespace, key

-- name: list_store_namespaces
-- In the order of the labels, which is not that of the texts: a label may have characters that come
-- before the dot.
select array_to_string(n.labels, '.') || '.' as namespace
from (
    select distinct (string_to_array(rtrim(i.namespace, '.'), '.'))
            [:coalesce(%(max_depth)s::integer, 1000000)] as labels
    from clew.store_item i
    where i.owner_id = %(owner_id)s and i.namespace >= %(low)s and i.namespace < %(high)s
        and i.namespace ~ all(%(patterns)s::text[])
        and (i.expires_at is null or i.expires_at > now())
) n
order by n.labels collate "C" limit %(limit)s offset %(offset)s

-- name: hold_sessions_of_items
-- Before the items, as a purge takes them: two that lock in one order never wait for each other.
select 1 as held from clew.session
where thread_id = any(%(thread_ids)s::text[]) and owner_id = %(owner_id)s
order by thread_id for key share

-- name: put_store_item
-- In a session's namespace only where the session is the owner's: '' is nobody's, so the foreign
-- key refuses. What has expired is replaced as if it were gone.
with stale as (
    delete from clew.store_vector
    where owner_id = %(owner_id)s and namespace = %(namespace)s and key = %(key)s
)
insert into clew.store_item as i (
    owner_id, namespace, key, value, body, key_no, escaped, fields, words, model, ttl, expires_at,
    thread_id)
values (
    %(owner_id)s, %(namespace)s, %(key)s, %(value)s::jsonb, %(body)s, %(key_no)s, %(escaped)s,
    %(fields)s::jsonb, array_to_tsvector(%(words)s::text[]), %(model)s, %(ttl)s,
    now() + %(ttl)s::interval,
    case when %(thread_id)s::text is not null then coalesce((
        select s.thread_id from clew.session s
        where s.thread_id = %(thread_id)s and s.owner_id = %(owner_id)s), '') end)
on conflict (owner_id, namespace, key) do update set
    value = excluded.value, body = excluded.body, key_no = excluded.key_no,
    escaped = excluded.escaped, fields = excluded.fields, words = excluded.words,
    model = excluded.model, ttl = excluded.ttl, expires_at = excluded.expires_at,
    thread_id = excluded.thread_id, updated_at = now(),
    created_at = case when i.expires_at <= now() then now() else i.created_at end

-- name: put_store_vector
insert into clew.store_vector (owner_id, namespace, key, part, embedding)
values (%(owner_id)s, %(namespace)s, %(key)s, %(part)s, %(embedding)s::real[])

-- name: delete_store_item
delete from clew.store_item
where owner_id = %(owner_id)s and namespace = %(namespace)s and key = %(key)s

-- name: sweep_store
-- Materialized: a subquery that locks may be run again for each row, and the bound would not hold.
with due as materialized (
    select owner_id, namespace, key from clew.store_item
    where expires_at <= now() order by expires_at limit %(limit)s for update skip locked
)
delete from clew.store_item i using due d
where i.owner_id = d.owner_id and i.namespace = d.namespace and i.key = d.key

-- name: accelerate_store
select clew.store_accelerate() as fast

-- name: lead_reindexing
-- One process at a time: a model costs money.
select pg_try_advisory_xact_lock(hashtext('clew.store_item'), 0) as leads

-- name: unindexed_store_items
-- What was stored under another configuration of the index, or none.
select owner_id, namespace, key, value, escaped, fields, updated_at from clew.store_item
where (owner_id, namespace, key) > (%(owner_id)s, %(namespace)s::text, %(key)s::text)
    and model is distinct from %(model)s and value is not null
order by owner_id, namespace, key limit %(limit)s

-- name: index_store_item
-- Unless it was written meanwhile, which indexed it.
update clew.store_item set words = array_to_tsvector(%(words)s::text[]), model = %(model)s
where owner_id = %(owner_id)s and namespace = %(namespace)s and key = %(key)s
    and updated_at = %(updated_at)s

-- name: clear_store_vectors
delete from clew.store_vector
where owner_id = %(owner_id)s and namespace = %(namespace)s and key = %(key)s

-- name: store_keys
select key_no, owner_id, thread_id, key_id, wrapped_key from clew.store_key
where key_no = any(%(key_nos)s::bigint[])

-- name: give_store_key
-- A session's only where the session is the owner's.
insert into clew.store_key (owner_id, thread_id, key_id, wrapped_key)
select %(owner_id)s, %(thread_id)s, %(key_id)s, %(wrapped_key)s
where %(thread_id)s::text is null or exists (
    select from clew.session s where s.thread_id = %(thread_id)s and s.owner_id = %(owner_id)s)
on conflict do nothing

-- name: store_key_of
select key_no, owner_id, thread_id, key_id, wrapped_key from clew.store_key
where owner_id = %(owner_id)s and thread_id is not distinct from %(thread_id)s::text

-- name: store_keys_to_rewrap
select key_no, owner_id, thread_id, key_id, wrapped_key from clew.store_key
where key_no > %(after)s and key_id <> %(key_id)s order by key_no limit %(page)s

-- name: rewrap_store_key
-- Unless another process was quicker.
update clew.store_key set key_id = %(key_id)s, wrapped_key = %(new_key)s
where key_no = %(key_no)s and wrapped_key = %(old_key)s

-- name: store_keys_in_use
select key_id, count(*) as keys from clew.store_key group by key_id

-- name: plain_store_items
select owner_id, namespace, key, value, escaped, thread_id, updated_at from clew.store_item
where body is null order by owner_id, namespace, key limit %(page)s

-- name: seal_store_item
-- With what was made of the value, since it would tell the value.
with stale as (
    delete from clew.store_vector
    where owner_id = %(owner_id)s and namespace = %(namespace)s and key = %(key)s
)
update clew.store_item
set value = null, body = %(body)s, key_no = %(key_no)s, escaped = false, words = null, model = null
where owner_id = %(owner_id)s and namespace = %(namespace)s and key = %(key)s
    and updated_at = %(updated_at)s and body is null
