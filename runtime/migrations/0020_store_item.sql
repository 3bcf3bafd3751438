-- Long-term memory: items that LangGraph's store keeps across sessions, each of one owner.
--
-- A namespace is written as its labels, each followed by a dot: no label has one, so `a.b.` is a
-- prefix of exactly what lies below (a, b), and a range of text finds it. Text, not an array,
-- because the comparison of texts is leakproof: under row security only such may use an index.

-- The key that an owner's items, or a session's, are sealed under where encryption is on. What
-- destroys the key takes what it sealed along.
create table clew.store_key (
    key_no      bigint generated always as identity primary key,
    owner_id    bigint not null,
    thread_id   text references clew.session on delete cascade, -- null: the owner's
    key_id      text not null,
    wrapped_key bytea not null,
    created_at  timestamptz not null default now()
);
call clew.protect('clew.store_key');
create unique index store_key_of_owner on clew.store_key (owner_id) where thread_id is null;
create unique index store_key_of_session on clew.store_key (thread_id) where thread_id is not null;

create table clew.store_item (
    owner_id   bigint not null,
    namespace  text collate "C" not null,
    key        text collate "C" not null,
    value      jsonb,                  -- null where it is sealed
    body       bytea,                  -- the sealed value
    key_no     bigint references clew.store_key on delete cascade,
    escaped    boolean not null default false, -- has strings that jsonb refuses; see checkpointing/text.py
    fields     jsonb,                  -- what was to be indexed: null as configured, false, or paths
    words      tsvector,
    model      text,                   -- what the vectors were made by, and of which fields
    ttl        interval,               -- null: never expires
    expires_at timestamptz,            -- from then on nobody sees it, swept or not
    thread_id  text references clew.session on delete cascade, -- whose namespace it is in
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (owner_id, namespace, key),
    check ((value is null) = (body is not null) and (body is null) = (key_no is null))
);
call clew.protect('clew.store_item');
create index store_item_expiring on clew.store_item (expires_at) where expires_at is not null;
create index store_item_of_session on clew.store_item (thread_id) where thread_id is not null;
create index store_item_sealed on clew.store_item (key_no) where key_no is not null;

-- Vectors of unit length, so that their product is the cosine. Of type real[], which every
-- Postgres has.
create table clew.store_vector (
    owner_id  bigint not null,
    namespace text collate "C" not null,
    key       text collate "C" not null,
    part      integer not null,
    embedding real[] not null,
    primary key (owner_id, namespace, key, part),
    foreign key (owner_id, namespace, key) references clew.store_item
        on delete cascade on update cascade
);
call clew.protect('clew.store_vector');

-- What lies in a session's namespace goes where the session goes.
create function clew.store_transfer() returns trigger language plpgsql as $$
begin
    update clew.store_key set owner_id = new.owner_id where thread_id = new.thread_id;
    update clew.store_item set owner_id = new.owner_id where thread_id = new.thread_id;
    return null;
end
$$;
create trigger store_transfer after update of owner_id on clew.session for each row
    when (new.owner_id <> old.owner_id) execute function clew.store_transfer();

-- The items below a namespace that meet all conditions. `exact` holds conditions of equality that
-- containment can tell; a condition's `path` leads into the value, where what is missing is null.
-- One plain select, so that the planner takes it into the query that calls it.
create function clew.store_found(owner_id bigint, low text, high text, exact jsonb, conditions jsonb)
returns setof clew.store_item language sql stable as $$
    select i.* from clew.store_item i
    where i.owner_id = store_found.owner_id and i.namespace >= low and i.namespace < high
        and (i.expires_at is null or i.expires_at > now())
        and (exact is null or i.value @> exact)
        and not exists (
            select from
                jsonb_to_recordset(conditions) as c (path text[], operator text, wanted jsonb),
                -- A null of JSON comes out of the record as one of SQL.
                lateral (select coalesce(i.value #> c.path, 'null') as found,
                    coalesce(c.wanted, 'null') as wanted) v
            where not case c.operator
                when 'eq' then v.found = v.wanted
                when 'ne' then v.found <> v.wanted
                when 'object' then jsonb_typeof(v.found) = 'object'
                when 'array' then case when jsonb_typeof(v.found) = 'array'
                    then jsonb_array_length(v.found) = v.wanted::integer else false end
                else case
                    when jsonb_typeof(v.found) <> jsonb_typeof(v.wanted) then false
                    when jsonb_typeof(v.found) = 'number' then case c.operator
                        when 'gt' then v.found::numeric > v.wanted::numeric
                        when 'gte' then v.found::numeric >= v.wanted::numeric
                        when 'lt' then v.found::numeric < v.wanted::numeric
                        when 'lte' then v.found::numeric <= v.wanted::numeric end
                    -- By code points, whatever the collation of this database.
                    else case c.operator
                        when 'gt' then (v.found #>> '{}') collate "C" > (v.wanted #>> '{}')
                        when 'gte' then (v.found #>> '{}') collate "C" >= (v.wanted #>> '{}')
                        when 'lt' then (v.found #>> '{}') collate "C" < (v.wanted #>> '{}')
                        when 'lte' then (v.found #>> '{}') collate "C" <= (v.wanted #>> '{}') end
                end
            end)
$$;

-- The product of two vectors, in terms that every Postgres knows.
create function clew.store_product(a real[], b real[]) returns real
language sql immutable strict parallel safe as $$
    select sum(x * y)::real from unnest(a, b) as t (x, y)
$$;

-- The same by pgvector, about ten times faster, where the server has it and this login may make
-- it available. Says whether it is in use from here on.
create function clew.store_accelerate() returns boolean language plpgsql as $$
declare
    place text;
begin
    if exists (select from pg_available_extensions where name = 'vector') then
        begin
            create extension if not exists vector with schema public;
        exception when insufficient_privilege or undefined_object or invalid_schema_name then
            null;  -- looked at below
        end;
    end if;
    select quote_ident(n.nspname) into place
        from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'vector';
    begin
        if place is null then
            create or replace function clew.store_product(a real[], b real[]) returns real
            language sql immutable strict parallel safe as $body$
                select sum(x * y)::real from unnest(a, b) as t (x, y)
            $body$;
        else
            execute format($query$
                create or replace function clew.store_product(a real[], b real[]) returns real
                language sql immutable strict parallel safe as $body$
                    select -(a::%1$s.vector operator(%1$s.<#>) b::%1$s.vector)::real
                $body$
                $query$, place);
        end if;
    exception when insufficient_privilege then
        null;  -- another login owns it: it stays as that one left it
    end;
    return (select prosrc like '%<#>%' from pg_proc
        where oid = 'clew.store_product(real[], real[])'::regprocedure);
end
$$;
