-- name: moment
-- Fire times are counted from the database's clock, the only one that all replicas share.
select now() as moment

-- name: create_cron
-- A thread that its maker cannot see has no crons: the foreign key alone would not ask who it is.
-- On a thread, a cron belongs to the thread's owner.
insert into clew.cron (
    cron_id, owner_id, assistant_id, thread_id, schedule, timezone, end_at, enabled,
    on_run_completed, request, metadata, caller, next_at)
select %(cron_id)s, coalesce(s.owner_id, %(owner_id)s), %(assistant_id)s, %(thread_id)s,
    %(schedule)s, %(timezone)s, %(end_at)s, %(enabled)s, %(on_run_completed)s, %(request)s,
    %(metadata)s, %(caller)s, %(next_at)s
from (values (1)) one left join clew.session s on s.thread_id = %(thread_id)s::text
where %(thread_id)s::text is null or s.thread_id is not null
returning *

-- name: get_cron
select * from clew.cron where cron_id = %(cron_id)s and clew.allows(metadata, %(allowed)s)

-- name: lock_cron
select *, now() as moment from clew.cron
where cron_id = %(cron_id)s and clew.allows(metadata, %(allowed)s) for update

-- name: update_cron
update clew.cron set
    schedule = %(schedule)s, timezone = %(timezone)s, end_at = %(end_at)s, enabled = %(enabled)s,
    on_run_completed = %(on_run_completed)s, request = %(request)s, metadata = %(metadata)s,
    next_at = %(next_at)s, updated_at = now()
where cron_id = %(cron_id)s returning *

-- name: delete_cron
delete from clew.cron where cron_id = %(cron_id)s and clew.allows(metadata, %(allowed)s)

-- name: search_crons
select * from clew.cron
where (%(assistant_id)s::uuid is null or assistant_id = %(assistant_id)s)
    and (%(thread_id)s::text is null or thread_id = %(thread_id)s)
    and (%(enabled)s::boolean is null or enabled = %(enabled)s)
    and (%(metadata)s::jsonb is null or metadata @> %(metadata)s)
    and clew.allows(metadata, %(allowed)s)
order by {order} limit %(limit)s offset %(offset)s

-- name: count_crons
select count(*) as crons from clew.cron
where (%(assistant_id)s::uuid is null or assistant_id = %(assistant_id)s)
    and (%(thread_id)s::text is null or thread_id = %(thread_id)s)
    and (%(enabled)s::boolean is null or enabled = %(enabled)s)
    and (%(metadata)s::jsonb is null or metadata @> %(metadata)s)
    and clew.allows(metadata, %(allowed)s)

-- name: due_crons
-- Only a look: who fires one claims it first. One under a key that this process lacks is left for
-- one that has it.
select * from clew.cron where next_at <= now() and clew.opens(request, %(opens)s::bytea[])
order by next_at limit %(limit)s

-- name: next_cron
select min(next_at) - now() as wait from clew.cron where clew.opens(request, %(opens)s::bytea[])

-- name: claim_cron
-- Nothing, if somebody else has fired it or is at it, or if it was changed meanwhile.
select now() as moment from clew.cron
where cron_id = %(cron_id)s and next_at = %(fire_at)s and updated_at = %(updated_at)s
for update skip locked

-- name: move_cron_on
-- A cron that has had its last fire time stays, for its maker to see or to prolong.
update clew.cron set next_at = %(next_at)s
where cron_id = %(cron_id)s and next_at = %(fire_at)s and updated_at = %(updated_at)s
