-- Runs: one turn of a session each. At most one of a session runs at a time, by an index; who runs
-- it is a worker, and the run is that worker's for as long as it keeps its lease.
--
-- Locks are always taken in this order: session, run, head. Whoever creates, ends or cancels a run
-- holds the session's row, so that the rules about several turns are decided one after another.

-- A process that runs runs. The lease is the worker's, not each run's: it is one row to renew
-- however many runs there are. Belongs to no owner and says nothing about anyone's sessions.
create sequence clew.lock_key as integer;

create table clew.worker (
    worker_id    bigint generated always as identity primary key,
    name         text not null,              -- host and process, for people
    lock_key     integer,                    -- of an advisory lock that it holds while it lives
    started_at   timestamptz not null default now(),
    heartbeat_at timestamptz not null default now(),
    lease_until  timestamptz not null
);

create table clew.run (
    run_id       uuid primary key,
    run_no       bigint generated always as identity,
    thread_id    text not null references clew.session on delete cascade,
    owner_id     bigint not null,
    assistant_id uuid,
    graph_id     text not null,
    status       text not null
                 check (status in ('pending', 'running', 'success', 'error', 'timeout', 'interrupted')),
    multitask_strategy text not null default 'enqueue'
                 check (multitask_strategy in ('reject', 'enqueue', 'interrupt', 'rollback')),
    protocol     text not null default 'legacy' check (protocol in ('legacy', 'v2')),
    metadata     jsonb not null default '{}',
    request      bytea not null,             -- what was asked for, as JSON: durable before the id is told
    attempt      integer not null default 0, -- how often it was started
    crashes      integer not null default 0, -- how often its worker died on it
    epoch        bigint,                     -- the session's epoch while this run was the last to run
    moment       bigint,                     -- the clock of checkpointing when it first started
    worker_id    bigint,
    mends        boolean not null default false, -- the turn before was broken off
    cancel       text check (cancel in ('interrupt', 'rollback')),
    cancel_reason text,
    error        jsonb,
    rest         text check (rest in ('idle', 'interrupted', 'error')), -- how it left its session
    idempotency_key text,
    fingerprint  bytea,                      -- of the request that came with the key
    due_at       timestamptz not null default now(),
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    started_at   timestamptz,
    ended_at     timestamptz,
    check ((status = 'running') = (worker_id is not null))
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
call clew.protect('clew.run');

-- The mutex.
create unique index run_running on clew.run (thread_id) where status = 'running';
create index run_waiting on clew.run (thread_id, due_at, run_no) where status = 'pending';
create index run_queue on clew.run (due_at, run_no) where status = 'pending';
-- Says the same as `where status = 'running'`, and fits no statement that asks for a session: while a
-- table's statistics lag behind, the planner takes any small index that fits for a short cut to one.
create index run_held on clew.run (worker_id) where worker_id is not null;
create index run_in_flight on clew.run (owner_id) where status in ('pending', 'running');
create index run_of_session on clew.run (thread_id, run_no desc);
create unique index run_idempotency on clew.run (owner_id, idempotency_key)
    where idempotency_key is not null;

-- A question that a run stopped to ask. Ids are LangGraph's and repeat where a session is forked
-- or rewound, so a row is of one session and says what became of its latest asking.
create table clew.interrupt (
    thread_id    text not null references clew.session on delete cascade,
    interrupt_id text not null,
    owner_id     bigint not null,
    run_id       uuid,                       -- that asked
    namespace    text[] not null default '{}',
    value        bytea not null,             -- JSON
    response_schema bytea,
    created_at   timestamptz not null default now(),
    deadline_at  timestamptz,
    on_deadline  bytea,                      -- the answer given then; without one the run is given up
    answered_at  timestamptz,
    answered_by  uuid,                       -- the run that carries the answer
    outcome      text check (outcome in ('answered', 'timeout', 'dropped')),
    primary key (thread_id, interrupt_id),
    check ((outcome is null) = (answered_at is null))
);
call clew.protect('clew.interrupt');
create index interrupt_open on clew.interrupt (owner_id, created_at desc) where outcome is null;
create index interrupt_due on clew.interrupt (deadline_at)
    where outcome is null and deadline_at is not null;
