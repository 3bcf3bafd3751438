-- name: create_share
insert into clew.share (
    share_id, thread_id, owner_id, grantee_from, grantee_to, grantee, role, checkpoint_id, actor,
    expires_at)
select %(share_id)s, s.thread_id, s.owner_id, %(grantee_from)s, %(grantee_to)s, %(grantee)s,
    %(role)s, %(checkpoint_id)s, %(actor)s, now() + %(lifetime)s::interval
from clew.session_state s
where s.thread_id = %(thread_id)s and s.state in ('active', 'idle', 'archived')
    and clew.allows(s.metadata, %(allowed)s)
returning *

-- name: shares_of_session
-- Those of the owner's own sessions; what others gave is not listed here.
select * from clew.share
where thread_id = %(thread_id)s and owner_id between clew.owner_from() and clew.owner_to()
order by created_at desc, share_id

-- name: shares_given
select * from clew.share
where grantee_from <= %(owner_id)s and %(owner_id)s <= grantee_to and owner_id <> %(owner_id)s
    and revoked_at is null and (expires_at is null or expires_at > now())
order by created_at desc, share_id limit %(limit)s

-- name: share_for
-- The strongest live share of a session that this owner holds.
select * from clew.share
where thread_id = %(thread_id)s and grantee_from <= %(owner_id)s and %(owner_id)s <= grantee_to
    and revoked_at is null and (expires_at is null or expires_at > now())
order by role = 'writer' desc, checkpoint_id is null desc, created_at desc limit 1

-- name: revoke_share
update clew.share set revoked_at = coalesce(revoked_at, now())
where share_id = %(share_id)s and thread_id = %(thread_id)s
returning *
