-- Crons: runs that come about by the clock, on a thread or each on a thread of its own.
--
-- `next_at` is the next fire time; null where there is none, because the cron is switched off or at
-- its end. Who starts a run moves it on in the same transaction, which is why a fire time has one
-- run, however many processes look at the clock.

create table clew.cron (
    cron_id      uuid primary key,
    owner_id     bigint not null,
    assistant_id uuid not null references clew.assistant on delete cascade,
    thread_id    text references clew.session on delete cascade,
    schedule     text not null,
    timezone     text,                       -- null: UTC
    end_at       timestamptz,
    enabled      boolean not null default true,
    on_run_completed text check (on_run_completed in ('delete', 'keep')),
    request      bytea not null,             -- what each run is asked for, as JSON
    metadata     jsonb not null default '{}',
    caller       jsonb,                      -- who made it; its runs are this user's
    next_at      timestamptz,
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    check ((thread_id is null) = (on_run_completed is not null))
);
call clew.protect('clew.cron');

create index cron_due on clew.cron (next_at) where next_at is not null;
create index cron_of_owner on clew.cron (owner_id, created_at desc, cron_id desc);
create index cron_of_thread on clew.cron (thread_id) where thread_id is not null;
create index cron_of_assistant on clew.cron (assistant_id);
