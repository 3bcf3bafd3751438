-- name: cached_results
select c.ns, c.key, c.key_id, c.body
from unnest(%(namespaces)s::text[], %(keys)s::text[]) as wanted (ns, key)
join clew.node_cache c using (ns, key)
where c.owner_id = %(owner_id)s and c.expires_at > now()

-- name: cache_results
-- In one order, so that two runs that keep the same results cannot wait for each other.
insert into clew.node_cache (owner_id, ns, key, key_id, body, expires_at)
select %(owner_id)s, t.ns, t.key, %(key_id)s, t.body, now() + t.life
from unnest(%(namespaces)s::text[], %(keys)s::text[], %(bodies)s::bytea[], %(lives)s::interval[])
    as t (ns, key, body, life)
order by t.ns, t.key
on conflict (owner_id, ns, key) do update set
    key_id = excluded.key_id, body = excluded.body, expires_at = excluded.expires_at

-- name: clear_cached_results
delete from clew.node_cache
where owner_id = %(owner_id)s
    and (%(namespaces)s::text[] is null or ns = any(%(namespaces)s::text[]))

-- name: sweep_expired_results
with old as materialized (
    select owner_id, ns, key from clew.node_cache
    where expires_at <= now() order by expires_at limit %(limit)s for update skip locked
)
delete from clew.node_cache c using old
where (c.owner_id, c.ns, c.key) = (old.owner_id, old.ns, old.key)

-- name: sweep_surplus_results
-- Of an owner who keeps more than his share, what would expire first.
with full_owner as materialized (
    select owner_id from clew.node_cache group by owner_id having count(*) > %(share)s limit 100
),
old as materialized (
    select s.owner_id, s.ns, s.key from full_owner f cross join lateral (
        select owner_id, ns, key from clew.node_cache c where c.owner_id = f.owner_id
        order by c.expires_at desc offset %(share)s) s
    limit %(limit)s
)
delete from clew.node_cache c using old
where (c.owner_id, c.ns, c.key) = (old.owner_id, old.ns, old.key)
