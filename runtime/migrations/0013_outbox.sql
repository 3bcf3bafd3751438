-- What happened to sessions and runs, for those who listen: written by triggers in the transaction
-- that did it, so that no writer forgets and nothing is told that did not happen.
--
-- A number drawn from a sequence may become visible after a larger one. So readers go by the
-- transaction's id as well, and never past the oldest transaction that is still open.

create table clew.outbox (
    xid        xid8 not null default pg_current_xact_id(),
    outbox_id  bigint generated always as identity,
    owner_id   bigint not null,
    kind       text not null,
    thread_id  text,
    run_id     uuid,
    data       jsonb not null default '{}',
    created_at timestamptz not null default now(),
    primary key (xid, outbox_id)
);
call clew.protect('clew.outbox');
create index outbox_of_owner on clew.outbox (owner_id, xid, outbox_id);
create index outbox_age on clew.outbox (created_at);

-- How far a process that reads everything has come, whichever replica it runs in.
create table clew.reader (
    name      text primary key,
    xid       xid8 not null,
    outbox_id bigint not null
);

create function clew.session_announce() returns trigger language plpgsql as $$
begin
    insert into clew.outbox (owner_id, kind, thread_id, data)
    select s.owner_id,
        case
            when tg_op = 'INSERT' and s.parent_thread_id is not null then 'session.forked'
            when tg_op = 'INSERT' then 'session.created'
            when tg_op = 'DELETE' then 'session.purged'
            when new.deleted_at is not null and old.deleted_at is null then 'session.deleted'
            when new.deleted_at is null and old.deleted_at is not null then 'session.undeleted'
            when new.archived_at is not null and old.archived_at is null then 'session.archived'
            when new.archived_at is null and old.archived_at is not null then 'session.unarchived'
            when new.owner_id <> old.owner_id then 'session.transferred'
            else 'session.updated'
        end,
        s.thread_id,
        jsonb_strip_nulls(jsonb_build_object(
            'graph_id', s.graph_id, 'kind', s.kind, 'title', s.title, 'version', s.version,
            'parent_thread_id', s.parent_thread_id))
    from (select (case when tg_op = 'DELETE' then old else new end).*) s;
    return null;
end
$$;

create trigger session_announce_new after insert on clew.session for each row
    when (not new.temporary) execute function clew.session_announce();
-- Every change that somebody made on purpose counts the version up; what runs change does not.
create trigger session_announce_change after update on clew.session for each row
    when (not new.temporary and new.version <> old.version)
    execute function clew.session_announce();
create trigger session_announce_end after delete on clew.session for each row
    when (not old.temporary) execute function clew.session_announce();

create function clew.run_announce() returns trigger language plpgsql as $$
begin
    insert into clew.outbox (owner_id, kind, thread_id, run_id, data)
    values (new.owner_id, 'run.' || case when tg_op = 'INSERT' then 'created' else new.status end,
        new.thread_id, new.run_id, jsonb_build_object('graph_id', new.graph_id));
    return null;
end
$$;

create trigger run_announce_new after insert on clew.run for each row
    execute function clew.run_announce();
create trigger run_announce_end after update on clew.run for each row
    when (new.status <> old.status and new.status not in ('pending', 'running'))
    execute function clew.run_announce();

create function clew.move_announce() returns trigger language plpgsql as $$
begin
    insert into clew.outbox (owner_id, kind, thread_id, data)
    values (new.owner_id, 'session.restored', new.thread_id, jsonb_strip_nulls(jsonb_build_object(
        'checkpoint_id', new.checkpoint_id, 'undo', new.kind = 'undo', 'reason', new.reason)));
    return null;
end
$$;

create trigger move_announce after insert on clew.move for each row
    when (new.kind in ('restore', 'undo')) execute function clew.move_announce();
