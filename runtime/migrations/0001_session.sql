-- The session registry: one row per session. Facts are stored, the state is derived from them by
-- one view, so that listing, counting, limits and turns can never disagree about it.

create table clew.session (
    thread_id      text primary key,
    owner_id       bigint not null,
    graph_id       text,
    assistant_id   uuid,
    kind           text,
    title          text,
    description    text,
    tags           text[] not null default '{}',
    metadata       jsonb not null default '{}',
    config         jsonb not null default '{}',
    context        jsonb not null default '{}',
    resources      jsonb not null default '{}',
    template       jsonb,                       -- which template and version it was made from
    -- kept by runs: what LangGraph's clients know as the thread's status
    status         text not null default 'idle'
                   check (status in ('idle', 'busy', 'interrupted', 'error')),
    error          jsonb,
    interrupts     jsonb not null default '{}',
    message_count  integer not null default 0,
    bytes          bigint not null default 0,
    version        bigint not null default 1,   -- If-Match
    temporary      boolean not null default false, -- a stateless run's, gone with the run
    parent_thread_id text,                      -- what it was forked or copied from
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    state_updated_at timestamptz not null default now(),
    last_active_at timestamptz not null default now(),
    ttl            interval,                    -- null: never expires
    ttl_sliding    boolean not null default true,
    ttl_waiting    interval,                    -- while it waits for a human; null: as ttl
    ttl_strategy   text not null default 'delete' check (ttl_strategy in ('delete', 'keep_latest')),
    expires_at     timestamptz,
    idle_after     interval not null default '30 minutes',
    archived_at    timestamptz,
    deleted_at     timestamptz                  -- set by a deletion that can still be undone
);
call clew.protect('clew.session');

create index session_by_update on clew.session (owner_id, updated_at desc, thread_id desc);
create index session_by_creation on clew.session (owner_id, created_at desc, thread_id desc);
create index session_expiring on clew.session (expires_at) where expires_at is not null;
create index session_deleted on clew.session (deleted_at) where deleted_at is not null;

-- Whatever brings a session to life moves a sliding expiry along, so that no writer can forget to:
-- they only say that the session was active, or what its status has become.
create function clew.session_slide() returns trigger language plpgsql as $$
begin
    new.expires_at := new.last_active_at
        + case when new.status = 'interrupted' then coalesce(new.ttl_waiting, new.ttl) else new.ttl end;
    return new;
end
$$;

create trigger session_slide before update on clew.session for each row
    when (new.ttl is not null and new.ttl_sliding and (
        new.last_active_at, new.status, new.ttl, new.ttl_waiting, new.ttl_sliding)
        is distinct from (
        old.last_active_at, old.status, old.ttl, old.ttl_waiting, old.ttl_sliding))
    execute function clew.session_slide();

-- The one definition of a session's state. A session with work pending does not expire, nor does
-- one whose expiry only thins out its checkpoints.
create view clew.session_state with (security_invoker = true) as
    select s.*,
        case
            when s.deleted_at is not null then 'deleted'
            when s.expires_at <= now() and s.ttl_strategy = 'delete' and s.status <> 'busy'
                then 'expired'
            when s.archived_at is not null then 'archived'
            when s.last_active_at + s.idle_after <= now() and s.status <> 'busy' then 'idle'
            else 'active'
        end as state
    from clew.session s;

-- Whether metadata passes a filter that an authorization handler returned: any of a list of
-- alternatives, each a list of conditions that must all hold; null passes everything. Exact
-- comparison, not containment, because this decides who may see what. In plpgsql, whose plans
-- outlive the call: this is asked in nearly every statement.
create function clew.allows(metadata jsonb, filter jsonb) returns boolean
language plpgsql immutable parallel safe as $$
begin
    if filter is null then
        return true;
    end if;
    return exists (
        select from jsonb_array_elements(filter) as alternative
        where not exists (
            select from jsonb_array_elements(alternative) as condition
            where not coalesce(
                case condition ->> 'operator'
                    when 'eq' then metadata -> (condition ->> 'key') = condition -> 'value'
                    when 'contains' then metadata -> (condition ->> 'key') @> (condition -> 'value')
                end, false)));
end
$$;
