-- What sessions are found by. A session has one row of search terms, kept apart from its own row,
-- which changes at every turn while these rarely do.
--
-- Every term begins with its owner's id, so a search reads the entries of one owner and takes as
-- long as that owner's sessions need, however many others there are. `facets` (tags, metadata,
-- kind, agent) are kept by a trigger; `words` are written by runtime/search.py, since Postgres
-- takes a whole Chinese sentence for one word.

create table clew.session_term (
    thread_id text primary key references clew.session on delete cascade on update cascade,
    owner_id  bigint not null,
    facets    tsvector not null default '',
    words     tsvector not null default '',
    seen      jsonb not null default '{}'    -- the messages whose words are in: by stream, up to which
);
call clew.protect('clew.session_term');
create index session_term_found on clew.session_term using gin (facets, words);

create function clew.facet(owner_id bigint, kind text, value text) returns text
language sql immutable parallel safe
return to_hex(owner_id) || kind || substr(md5(value), 1, 12);

-- The scalars of a document with their paths. Numbers are written in one way, because containment
-- takes 1 and 1.0 for equal. In plpgsql, whose plans outlive the call: a body in SQL is planned
-- anew for each row, which took ten times as long.
create function clew.leaves(path text, value jsonb) returns text[]
language plpgsql immutable parallel safe as $$
declare
    found text[] := '{}';
    step text;
    part jsonb;
begin
    case jsonb_typeof(value)
    when 'object' then
        for step, part in select e.key, e.value from jsonb_each(value) e loop
            found := found || clew.leaves(path || '.' || step, part);
        end loop;
        return found;
    when 'array' then
        for part in select e.value from jsonb_array_elements(value) e loop
            found := found || clew.leaves(path || '[]', part);
        end loop;
        return found;
    when 'number' then
        return array[path || '=' || trim_scale((value #>> '{}')::numeric)];
    else
        return array[path || '=' || value];
    end case;
end
$$;

create function clew.facets(
    owner_id bigint, tags text[], metadata jsonb, kind text, graph_id text, assistant_id uuid)
returns text[] language plpgsql immutable parallel safe as $$
declare
    found text[] := '{}';
    part text;
begin
    foreach part in array tags loop
        found := found || clew.facet(owner_id, 't', part);
    end loop;
    foreach part in array clew.leaves('', metadata) loop
        found := found || clew.facet(owner_id, 'm', part);
    end loop;
    if kind is not null then
        found := found || clew.facet(owner_id, 'k', kind);
    end if;
    if graph_id is not null then
        found := found || clew.facet(owner_id, 'g', graph_id);
    end if;
    if assistant_id is not null then
        found := found || clew.facet(owner_id, 'a', assistant_id::text);
    end if;
    return found;
end
$$;

create function clew.session_facets() returns trigger language plpgsql as $$
begin
    insert into clew.session_term as t (thread_id, owner_id, facets)
    values (new.thread_id, new.owner_id, array_to_tsvector(clew.facets(
        new.owner_id, new.tags, new.metadata, new.kind, new.graph_id, new.assistant_id)))
    on conflict (thread_id) do update set owner_id = excluded.owner_id, facets = excluded.facets;
    return null;
end
$$;

create trigger session_facets_new after insert on clew.session for each row
    when (not new.temporary) execute function clew.session_facets();
create trigger session_facets_change after update on clew.session for each row
    when (not new.temporary and (
        new.owner_id, new.tags, new.metadata, new.kind, new.graph_id, new.assistant_id)
        is distinct from (
        old.owner_id, old.tags, old.metadata, old.kind, old.graph_id, old.assistant_id))
    execute function clew.session_facets();

-- The sessions that meet all conditions, in order, as far as the caller may see them. What `wanted`
-- does not name is not asked, nor planned. `facets` and `words` are what an index can answer; every
-- condition is checked on the row as well.
create function clew.session_list(
    owner_id bigint, facets tsquery, words tsquery, wanted jsonb,
    sort text, descending boolean, after_at timestamptz, after_id text, row_limit integer)
returns table (thread_id text) language plpgsql stable rows 20
set max_parallel_workers_per_gather = 0 set enable_seqscan = off as $$
declare
    terms boolean := facets is not null or words is not null;
    conditions text;
    hits text[];
begin
    if sort not in ('updated_at', 'created_at', 'last_active_at') then
        raise exception 'no order is kept by %', sort using errcode = '22023';
    end if;
    -- Few hits are fetched by their ids and sorted; where there are many, the first of an ordered
    -- walk are soon found. Which it is, is looked up and not estimated: statistics know nothing of
    -- a word that few said, and a walk for one that nobody said goes through everything.
    if terms then
        execute format(
            'select array_agg(found.thread_id) from (select t.thread_id from clew.session_term t '
            'where %s limit 2000) found', concat_ws(' and ',
                case when owner_id is not null then 't.owner_id = $1' end,
                case when facets is not null then 't.facets @@ $2' end,
                case when words is not null then 't.words @@ $3' end))
        into hits using owner_id, facets, words;
        if hits is null then
            return;
        end if;
        terms := cardinality(hits) = 2000;
    end if;
    -- What an index answered is asked again of the row, and counts as no further narrowing: inside
    -- `coalesce` the planner does not take the one fact for several, which had it sort where the
    -- first twenty of an ordered walk were enough.
    select string_agg(condition, ' and ') into conditions from (values
        (true, $c$not s.temporary$c$),
        (true, $c$coalesce(s.state = any(array(
            select jsonb_array_elements_text($4 -> 'states'))), false)$c$),
        (owner_id is not null, $c$s.owner_id = $1$c$),
        (owner_id is not null and terms, $c$coalesce(t.owner_id = $1, false)$c$),
        (terms and facets is not null, $c$coalesce(t.facets @@ $2, false)$c$),
        (terms and words is not null, $c$coalesce(t.words @@ $3, false)$c$),
        (hits is not null and not terms, $c$s.thread_id = any($8)$c$),
        (wanted ? 'statuses',
            $c$s.status = any(array(select jsonb_array_elements_text($4 -> 'statuses')))$c$),
        (wanted ? 'kind', $c$coalesce(s.kind = $4 ->> 'kind', false)$c$),
        (wanted ? 'graph_id', $c$coalesce(s.graph_id = $4 ->> 'graph_id', false)$c$),
        (wanted ? 'assistant_id',
            $c$coalesce(s.assistant_id = ($4 ->> 'assistant_id')::uuid, false)$c$),
        (wanted ? 'parent_thread_id', $c$s.parent_thread_id = $4 ->> 'parent_thread_id'$c$),
        (wanted ? 'tags_all', $c$coalesce(s.tags @> array(
            select jsonb_array_elements_text($4 -> 'tags_all')), false)$c$),
        (wanted ? 'tags_any', $c$coalesce(s.tags && array(
            select jsonb_array_elements_text($4 -> 'tags_any')), false)$c$),
        (wanted ? 'metadata', $c$coalesce(s.metadata @> ($4 -> 'metadata'), false)$c$),
        (wanted ? 'created_after', $c$s.created_at >= ($4 ->> 'created_after')::timestamptz$c$),
        (wanted ? 'created_before', $c$s.created_at < ($4 ->> 'created_before')::timestamptz$c$),
        (wanted ? 'updated_after', $c$s.updated_at >= ($4 ->> 'updated_after')::timestamptz$c$),
        (wanted ? 'updated_before', $c$s.updated_at < ($4 ->> 'updated_before')::timestamptz$c$),
        (wanted ? 'allowed', $c$clew.allows(s.metadata, $4 -> 'allowed')$c$),
        (after_at is not null, format($c$(s.%I, s.thread_id) %s ($5, $6)$c$,
            sort, case when descending then '<' else '>' end))
    ) c (given, condition) where given;
    return query execute format(
        'select s.thread_id from clew.session_state s %s where %s '
        'order by s.%I %4$s, s.thread_id %4$s limit $7',
        case when terms then 'join clew.session_term t using (thread_id)' end,
        conditions, sort, case when descending then 'desc' else 'asc' end)
    using owner_id, facets, words, wanted, after_at, after_id, row_limit, hits;
end
$$;

-- The same for one owner, with the indexes on terms.
--
-- This is the one place where row security is stepped around, and why: the operators of those
-- indexes are not leakproof, so under row security the planner may not use them. The owner's
-- predicate is repeated here instead, from the same settings that the policies read; it is no
-- parameter. What comes out are ids, and the caller reads the rows under the policies again.
create function clew.session_find(
    words tsquery, wanted jsonb,
    sort text, descending boolean, after_at timestamptz, after_id text, row_limit integer)
returns table (thread_id text) language plpgsql stable security definer rows 20
set search_path = pg_catalog, pg_temp as $$
declare
    me bigint := clew.owner_from();
    facets text;
begin
    if me is null or me <> clew.owner_to() then
        raise exception 'a search is for one owner' using errcode = '42501';
    end if;
    select string_agg(quote_literal(facet), ' & ') into facets from unnest(clew.facets(
        me, array(select jsonb_array_elements_text(wanted -> 'tags_all')),
        coalesce(wanted -> 'metadata', '{}'), wanted ->> 'kind', wanted ->> 'graph_id',
        (wanted ->> 'assistant_id')::uuid)) facet;
    if wanted -> 'tags_any' is not null then
        facets := concat_ws(' & ', facets, (
            select '(' || string_agg(quote_literal(clew.facet(me, 't', tag)), ' | ') || ')'
            from jsonb_array_elements_text(wanted -> 'tags_any') tag));
    end if;
    return query select * from clew.session_list(
        me, facets::tsquery, words, wanted, sort, descending, after_at, after_id, row_limit);
end
$$;
