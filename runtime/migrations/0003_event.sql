-- The event log: what runs streamed, one row per flush, replayable by id for days.
--
-- An event's id is (epoch, n): the session's epoch while its run ran, and its number in it. A row
-- holds the events first_n to last_n of one kind. Rows of one epoch are written in order by the one
-- holder of that epoch, so a reader that goes by (epoch, n) never meets an earlier one later.

create table clew.event (
    thread_id  text not null,
    epoch      bigint not null,
    first_n    integer not null,
    last_n     integer not null,
    owner_id   bigint not null,
    run_id     uuid not null,
    v2         boolean not null,             -- the protocol that its run was started with
    kind       smallint not null,            -- 0 brief, 1 tokens, 2 mixed (not yet compacted), 3 bulky
    codec      smallint not null,            -- 0 plain, 1 zstd
    body       bytea not null,
    created_at timestamptz not null default now()
) partition by range (created_at);
call clew.protect('clew.event');
create index event_of_session on clew.event (thread_id, epoch, first_n);
alter table clew.event alter body set storage external;  -- compressed by us, or not worth it

-- Rows whose day has no partition land here: nothing is lost where maintenance never ran.
create table clew.event_default partition of clew.event default;
call clew.protect('clew.event_default');

-- One partition a day: makes those of the days ahead, drops those older than `retention`. Returns
-- the names of what was dropped. Definer's rights, because a login that may only serve cannot
-- create tables; it touches no rows but those it moves out of the default partition.
create function clew.keep_event_partitions(ahead integer, retention interval, moment timestamptz)
returns setof text language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    -- Its own principal, put back at the end. Not by `set` above, which only a superuser may write.
    lowest text := current_setting('clew.owner_from', true);
    highest text := current_setting('clew.owner_to', true);
    today date := (moment at time zone 'UTC')::date;
    first date;
    name text;
begin
    if not pg_try_advisory_xact_lock(1668048248, 1) then
        return;  -- another process is at it
    end if;
    perform set_config('clew.owner_from', '0', true),
        set_config('clew.owner_to', '9223372036854775807', true);
    for first in select today + n from generate_series(0, ahead) n loop
        name := 'event_' || to_char(first, 'YYYYMMDD');
        if to_regclass('clew.' || name) is null then
            execute format('create table clew.%I (like clew.event including defaults)', name);
            execute format('alter table clew.%I alter body set storage external', name);
            execute format(
                'with moved as (delete from clew.event_default where created_at >= %L '
                'and created_at < %L returning *) insert into clew.%I select * from moved',
                first::timestamp at time zone 'UTC', (first + 1)::timestamp at time zone 'UTC', name);
            execute format('call clew.protect(%L)', 'clew.' || name);
            execute format('alter table clew.event attach partition clew.%I '
                'for values from (%L) to (%L)', name,
                first::timestamp at time zone 'UTC', (first + 1)::timestamp at time zone 'UTC');
            if exists (select from pg_roles where rolname = 'clew_app') then
                execute format('grant select, insert, update, delete on clew.%I to clew_app', name);
            end if;
        end if;
    end loop;
    for name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'clew.event'::regclass and c.relname ~ '^event_\d{8}$'
            and to_date(right(c.relname, 8), 'YYYYMMDD') + 1
                <= (moment - retention) at time zone 'UTC'
    loop
        execute format('drop table clew.%I', name);
        return next name;
    end loop;
    perform set_config('clew.owner_from', coalesce(lowest, ''), true),
        set_config('clew.owner_to', coalesce(highest, ''), true);
end
$$;

select clew.keep_event_partitions(2, interval '100 years', now());

-- The first event of each attempt, as a row's body: written by the statement that starts the run, so
-- that no replay can miss it.
create function clew.opening(
    run_id uuid, protocol text, graph_id text, attempt integer, moment timestamptz)
returns bytea language sql stable parallel safe as $$
    select convert_to(
        '[1,' || floor(extract(epoch from moment) * 1000)::bigint
        || case protocol when 'v2' then ',"lifecycle",[],null]' else ',"metadata",[],null]' end
        || chr(10)
        || case protocol when 'v2'
            then '{"event":"running","graph_name":' || to_json(graph_id) || ',"attempt":' || attempt || '}'
            else '{"run_id":"' || run_id || '","attempt":' || attempt || '}' end
        || chr(10), 'UTF8')
$$;

-- The log has no foreign key, which would cost a lock on the session at every flush; what a
-- deleted session streamed goes with it all the same.
create function clew.session_forget_events() returns trigger language plpgsql as $$
begin
    delete from clew.event e using gone where e.thread_id = gone.thread_id;
    return null;
end
$$;

create trigger session_forget_events after delete on clew.session
    referencing old table as gone for each statement
    execute function clew.session_forget_events();
