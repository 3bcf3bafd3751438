-- name: claim_webhooks
-- Whoever claims one has a minute; if nothing is heard of it by then, it is anybody's again.
with next as materialized (
    select run_id from clew.webhook
    where given_up_at is null and due_at <= now() and (%(local)s or not starts_with(url, '/'))
    order by due_at limit %(limit)s for update skip locked
)
update clew.webhook w set attempts = w.attempts + 1, due_at = now() + interval '1 minute'
from next where w.run_id = next.run_id
returning w.run_id, w.thread_id, w.owner_id, w.url, w.state, w.attempts

-- name: keep_webhook_state
-- In the transaction that ended the run, for one that leaves no checkpoints behind.
update clew.webhook set state = %(state)s where run_id = %(run_id)s

-- name: webhook_taken
delete from clew.webhook where run_id = %(run_id)s

-- name: webhook_refused
-- Each wait is four times the last: eight attempts span most of a working day.
update clew.webhook set
    fault = %(fault)s,
    given_up_at = case when %(final)s or attempts >= %(most)s then now() end,
    due_at = now() + least(interval '6 hours', interval '5 seconds' * power(4, attempts - 1))
        * (0.9 + random() * 0.2)
where run_id = %(run_id)s
returning given_up_at is not null as given_up

-- name: drop_webhooks
delete from clew.webhook where given_up_at is null

-- name: create_subscription
-- From the end of the outbox on: nobody is told of what was before.
insert into clew.subscription (
    subscription_id, owner_id, reach_from, reach_to, url, kinds, xid)
select %(subscription_id)s, %(owner_id)s, %(reach_from)s, %(reach_to)s, %(url)s, %(kinds)s,
    pg_snapshot_xmin(pg_current_snapshot())
where (select count(*) from clew.subscription where owner_id = %(owner_id)s) < %(most)s
returning subscription_id, owner_id, url, kinds, attempts, fault, created_at

-- name: list_subscriptions
select subscription_id, owner_id, url, kinds, attempts, fault, created_at
from clew.subscription order by created_at desc, subscription_id desc limit %(limit)s

-- name: delete_subscription
delete from clew.subscription where subscription_id = %(subscription_id)s

-- name: claim_subscriptions
-- Only those for which there is something. Of one owner the outbox has an index; of a whole tenant,
-- or of everybody, it is read in its own order.
with next as materialized (
    select s.subscription_id from clew.subscription s
    where s.due_at <= now() and (%(local)s or not starts_with(s.url, '/'))
        and case when s.reach_from = s.reach_to
            then exists (
                select from clew.outbox o
                where o.owner_id = s.reach_from and (o.xid, o.outbox_id) > (s.xid, s.outbox_id)
                    and o.xid < pg_snapshot_xmin(pg_current_snapshot())
                    and not pg_visible_in_snapshot(o.xid, s.since))
            else exists (
                select from clew.outbox o
                where (o.xid, o.outbox_id) > (s.xid, s.outbox_id)
                    and o.owner_id between s.reach_from and s.reach_to
                    and o.xid < pg_snapshot_xmin(pg_current_snapshot())
                    and not pg_visible_in_snapshot(o.xid, s.since)) end
    order by s.due_at limit %(limit)s for update of s skip locked
)
update clew.subscription s set attempts = s.attempts + 1, due_at = now() + interval '1 minute'
from next where s.subscription_id = next.subscription_id
returning s.subscription_id, s.reach_from, s.reach_to, s.url, s.kinds, s.xid::text as xid,
    s.outbox_id, s.since::text as since, s.attempts

-- name: subscription_went_on
-- One happening was taken. No row: it was deleted, or somebody else has gone on from further back.
update clew.subscription set
    xid = %(xid)s::text::xid8, outbox_id = %(outbox_id)s, attempts = 1, fault = null,
    due_at = now() + interval '1 minute'
where subscription_id = %(subscription_id)s
    and (xid, outbox_id) < (%(xid)s::text::xid8, %(outbox_id)s)
returning subscription_id

-- name: subscription_rests
-- All was taken that there was, or the receiver refused: then it waits longer each time.
update clew.subscription set
    fault = %(fault)s,
    attempts = case when %(fault)s::text is null then 0 else attempts end,
    due_at = case when %(fault)s::text is null then now() else
        now() + least(interval '1 hour', interval '5 seconds' * power(4, least(attempts - 1, 10)))
            * (0.9 + random() * 0.2) end
where subscription_id = %(subscription_id)s
