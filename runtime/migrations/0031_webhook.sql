-- Webhooks: calls to others, when a run is over and when something happened to a session.
--
-- A run's call is put down by a trigger, in the transaction that ends the run, so no way to end one
-- forgets it. What the run made is read from its checkpoints when the call is made; only where it
-- kept none does the row hold it. All of it goes when the run does.

alter table clew.run add column webhook text;

create table clew.webhook (
    run_id      uuid primary key references clew.run on delete cascade,
    owner_id    bigint not null,
    thread_id   text not null,
    url         text not null,
    state       bytea,                       -- the values of a run without checkpoints, as JSON
    attempts    integer not null default 0,
    due_at      timestamptz not null default now(),
    fault       text,                        -- why the last attempt failed
    given_up_at timestamptz,
    created_at  timestamptz not null default now()
);
call clew.protect('clew.webhook');
create index webhook_due on clew.webhook (due_at) where given_up_at is null;
create index webhook_of_thread on clew.webhook (thread_id);

create function clew.run_tell() returns trigger language plpgsql as $$
begin
    insert into clew.webhook (run_id, owner_id, thread_id, url)
    values (new.run_id, new.owner_id, new.thread_id, new.webhook)
    on conflict do nothing;
    return null;
end
$$;

create trigger run_tell after update on clew.run for each row
    when (new.webhook is not null and old.status in ('pending', 'running')
        and new.status in ('success', 'error', 'timeout', 'interrupted'))
    execute function clew.run_tell();

-- Who wants to be called about sessions. A subscription is a place in the outbox that moves on as
-- its receiver takes what comes after it, in order.
create table clew.subscription (
    subscription_id uuid primary key,
    owner_id    bigint not null,
    reach_from  bigint not null,             -- whose sessions: what its maker could see
    reach_to    bigint not null,
    url         text not null,
    kinds       text[],                      -- null: all
    xid         xid8 not null,
    outbox_id   bigint not null default 0,
    attempts    integer not null default 0,  -- since it last went on
    due_at      timestamptz not null default now(),
    fault       text,
    created_at  timestamptz not null default now()
);
call clew.protect('clew.subscription');
create index subscription_due on clew.subscription (due_at);
create index subscription_of_owner on clew.subscription (owner_id, created_at desc);
