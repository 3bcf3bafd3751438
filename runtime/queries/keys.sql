-- name: create_key
insert into clew.api_key (key_id, owner_id, digest, name, role, scopes, expires_at)
values (%(key_id)s, %(owner_id)s, %(digest)s, %(name)s, %(role)s, %(scopes)s,
    now() + %(lifetime)s::interval)
returning *

-- name: find_key
-- The use is noted once a minute at most, so that a busy key does not write at every request.
with found as (
    select k.*, o.name as owner, t.name as tenant
    from clew.api_key k
    join clew.owner o using (owner_id)
    join clew.tenant t using (tenant_id)
    where k.digest = %(digest)s and k.revoked_at is null
        and (k.expires_at is null or k.expires_at > now())),
noted as (
    update clew.api_key k set last_used_at = now() from found
    where k.key_id = found.key_id
        and (k.last_used_at is null or k.last_used_at < now() - interval '1 minute'))
select * from found

-- name: list_keys
select * from clew.api_key order by created_at desc, key_id limit %(limit)s

-- name: revoke_key
update clew.api_key set revoked_at = coalesce(revoked_at, now())
where key_id = %(key_id)s returning *
