-- Where checkpoints live. docs/design/lineage.md tells the rules; this file tells the shape.
--
-- Storage belongs to a lineage, not to a session: a session's head says which lineage it is on.
-- A fork or a restore is a new lineage that points at its parent's checkpoint; the values stay
-- where they are. Nothing here has a foreign key: what is unreachable is collected, and a check
-- for each row would cost more than the row.

-- One clock for everything: a row written later has a larger number, whichever table it is in.
create sequence clew.moment as bigint;

create table clew.lineage (
    lineage_id  bigint generated always as identity primary key,
    owner_id    bigint not null,
    thread_id   text collate "C",   -- the session that made it; null once that session is purged
    kind        text not null check (kind in ('root', 'fork', 'restore', 'copy')),
    scope       text not null default 'path' check (scope in ('path', 'all')),
    parent_id   bigint              -- where older history goes on; null for a root and a deep copy
                check (parent_id < lineage_id),
    source_id   bigint,             -- the lineage its maker was looking at; undo goes back there
    fork_id     uuid,               -- the root checkpoint it starts from, copied as its first row
    fork_parent uuid,               -- that checkpoint's parent, to be looked up in parent_id
    fork_seq    bigint,             -- when that checkpoint was written
    moment      bigint,             -- nothing of the parent later than this is seen
    cut         bigint,             -- of the fork point itself: nothing later than this is seen
    key_id      text,
    wrapped_key bytea,
    created_at  timestamptz not null default now()
);
create index lineage_thread on clew.lineage (thread_id);
create index lineage_parent on clew.lineage (parent_id) where parent_id is not null;
call clew.protect('clew.lineage');

-- Which lineage a session is on, and the epoch: whoever wants to write alone bumps it, and each
-- write statement names the epoch it holds.
create table clew.head (
    thread_id  text collate "C" primary key,
    owner_id   bigint not null,
    lineage_id bigint not null,
    epoch      bigint not null default 0,
    sweep      bigint not null default 0 -- rises when something it sees is deleted: what a process
                                         -- remembers of the storage from before is void
) with (fillfactor = 70);
create index head_lineage on clew.head (lineage_id);
create index head_owner on clew.head (owner_id);
call clew.protect('clew.head');

create table clew.checkpoint (
    lineage_id    bigint not null,
    seq           bigint not null default nextval('clew.moment'),
    owner_id      bigint not null,
    entry         bigint not null default 0, -- the clock when the run that put it read its head
    created_at    timestamptz not null,
    checkpoint_id uuid not null,
    parent_id     uuid,
    root_id       uuid,                      -- of a subgraph: the root checkpoint it runs under
    run_id        uuid,
    step          integer,
    source        text,
    ns            text collate "C" not null,
    ranges        bigint[],                  -- triples: lineage (0 is this one), stream << 32 | count, first
    seeds         text[],                    -- with a DeltaChannel only: the channels stored here
    state         bytea not null,            -- versions and layout, in clear; see checkpointing/manifest.py
    metadata      jsonb,                     -- what has no column of its own
    primary key (lineage_id, ns, seq) include (parent_id)
);
create unique index checkpoint_by_id on clew.checkpoint (lineage_id, checkpoint_id, ns);
create index checkpoint_run on clew.checkpoint (run_id) where run_id is not null;
create index checkpoint_root on clew.checkpoint (lineage_id, root_id) where ns <> '';
-- A stateful subgraph keeps one namespace for all its calls: there are few, found by skipping.
create index checkpoint_stable on clew.checkpoint (lineage_id, ns, seq)
    where ns <> '' and strpos(ns, ':') = 0;
alter table clew.checkpoint alter state set storage external;
call clew.protect('clew.checkpoint');

-- Everything a channel ever held. A stream is one channel of one namespace; a list's elements
-- are items of it, and a value that is no list is one item. Numbers rise; ranges of them are what
-- a checkpoint refers to.
create table clew.item (
    lineage_id bigint not null,
    owner_id   bigint not null,
    stream     integer not null,
    number     bigint not null,
    body       bytea not null,
    primary key (lineage_id, stream, number)
);
alter table clew.item alter body set storage external;
call clew.protect('clew.item');

-- What the tasks of a superstep wrote. A slot >= 0 is the index of an ordinary write: the first
-- one stays. A negative slot is -(8 * seq + code), code 1 error, 2 scheduled, 3 interrupt,
-- 4 resume: each is kept and the latest counts, so that a fork can tell what was asked when.
create table clew.write (
    lineage_id    bigint not null,
    owner_id      bigint not null,
    seq           bigint not null,
    slot          bigint not null,
    checkpoint_id uuid not null,
    task_id       uuid not null,
    ns            text collate "C" not null,
    channel       text not null,
    path          text not null,
    body          bytea not null,
    primary key (lineage_id, checkpoint_id, task_id, slot, ns)
);
alter table clew.write alter body set storage external;
call clew.protect('clew.write');

-- Who moved a head, from where to where, and why. Outlives the session it speaks of.
create table clew.move (
    move_id       bigint generated always as identity primary key,
    owner_id      bigint not null,
    thread_id     text collate "C" not null,
    kind          text not null check (kind in ('fork', 'restore', 'undo', 'copy', 'purge')),
    from_id       bigint,
    to_id         bigint,
    checkpoint_id uuid,
    actor         text,
    reason        text,
    made_at       timestamptz not null default now()
);
create index move_thread on clew.move (thread_id, move_id);
call clew.protect('clew.move');

-- The same rule, asked once for a statement and not once for each row: a head of six hundred
-- messages is read in half the time.
do $$
declare
    relation text;
begin
    foreach relation in array array['lineage', 'head', 'checkpoint', 'item', 'write'] loop
        execute format(
            'alter policy owner_only on clew.%I using (owner_id between '
            '(select clew.owner_from()) and (select clew.owner_to()))', relation);
    end loop;
end
$$;
