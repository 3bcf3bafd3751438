-- name: look_at_queue
-- All of it from partial indexes that are as small as the queue, and from Postgres's own counters.
with waiting as (
    select count(*) as pending, min(due_at) as oldest from clew.run
    where status = 'pending' and due_at <= now()
)
select w.pending,
    (select count(*) from clew.run where status = 'running') as running,
    greatest(0, coalesce(extract(epoch from now() - w.oldest), 0))::float8 as oldest_pending_seconds,
    (select count(*) from clew.webhook where given_up_at is null) as webhooks_pending,
    (select jsonb_object_agg(relname, n_dead_tup) from pg_stat_user_tables
        where schemaname = 'clew' and relname in ('run', 'session', 'head', 'worker')) as dead_rows
from waiting w
