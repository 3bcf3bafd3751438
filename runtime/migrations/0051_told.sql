-- Listeners hear of messages that were added, whoever added them, and that a run starts: told here
-- where it starts at once, and by the statement that claims it otherwise.

create or replace function clew.run_announce() returns trigger language plpgsql as $$
begin
    insert into clew.outbox (owner_id, kind, thread_id, run_id, data)
    values (new.owner_id, 'run.' || case when tg_op = 'INSERT' then 'created' else new.status end,
        new.thread_id, new.run_id, jsonb_build_object('graph_id', new.graph_id));
    if tg_op = 'INSERT' and new.status = 'running' then
        insert into clew.outbox (owner_id, kind, thread_id, run_id, data)
        values (new.owner_id, 'run.started', new.thread_id, new.run_id,
            jsonb_build_object('graph_id', new.graph_id));
    end if;
    return null;
end
$$;

create function clew.session_announce_messages() returns trigger language plpgsql as $$
begin
    insert into clew.outbox (owner_id, kind, thread_id, data)
    values (new.owner_id, 'session.message_added', new.thread_id, jsonb_build_object(
        'message_count', new.message_count, 'added', new.message_count - old.message_count));
    return null;
end
$$;

create trigger session_announce_messages after update on clew.session for each row
    when (new.message_count > old.message_count and not new.temporary)
    execute function clew.session_announce_messages();
