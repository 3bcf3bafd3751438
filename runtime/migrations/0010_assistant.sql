-- Assistants: a graph with settings, under versions. One row is the version in force, the others
-- are kept beside it.
--
-- The assistants that stand for the registered graphs belong to owner 0, who is nobody: everyone
-- may read them, only the service may change them.

create table clew.assistant (
    assistant_id uuid primary key,
    owner_id     bigint not null,
    graph_id     text not null,
    name         text not null,
    description  text,
    config       jsonb not null default '{}',
    context      jsonb not null default '{}',
    metadata     jsonb not null default '{}',
    version      integer not null default 1,
    newest       integer not null default 1,    -- the number that the next version counts from
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now()
);
call clew.protect('clew.assistant');
create policy system_is_readable on clew.assistant for select using (owner_id = 0);
create index assistant_by_owner on clew.assistant (owner_id, created_at desc);

create table clew.assistant_version (
    assistant_id uuid not null references clew.assistant on delete cascade,
    version      integer not null,
    owner_id     bigint not null,
    graph_id     text not null,
    name         text not null,
    description  text,
    config       jsonb not null,
    context      jsonb not null,
    metadata     jsonb not null,
    created_at   timestamptz not null default now(),
    primary key (assistant_id, version)
);
call clew.protect('clew.assistant_version');
create policy system_is_readable on clew.assistant_version for select using (owner_id = 0);
