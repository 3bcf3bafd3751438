-- What people mark in a session's history, and when a session is next looked at for what may go.
--
-- Marks hang on the head, so they go with the session. They name a checkpoint by its id alone:
-- a restore copies its row into another lineage, and it is still the same checkpoint.

create table clew.pin (
    thread_id     text collate "C" not null references clew.head on delete cascade,
    checkpoint_id uuid not null,
    owner_id      bigint not null,
    actor         text,
    reason        text,
    pinned_at     timestamptz not null default now(),
    expires_at    timestamptz,          -- null: until it is taken away
    primary key (thread_id, checkpoint_id)
);
call clew.protect('clew.pin');

create table clew.label (
    thread_id     text collate "C" not null references clew.head on delete cascade,
    name          text not null check (name <> ''),
    checkpoint_id uuid not null,
    owner_id      bigint not null,
    actor         text,
    body          bytea,                -- what was saved with it, if anything
    lineage_id    bigint not null,      -- whose key the body is under
    labelled_at   timestamptz not null default now(),
    primary key (thread_id, name)
);
create index label_checkpoint on clew.label (thread_id, checkpoint_id);
call clew.protect('clew.label');

-- Retention takes the sessions in the order of this, a few at a time.
alter table clew.head add column retain_at timestamptz not null default now();
create index head_retain on clew.head (retain_at);
