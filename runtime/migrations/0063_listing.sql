-- Listing goes on being quick with a hundred thousand sessions of one owner.

-- The order of the latest activity, which `reuse` asks for too: without it all of an owner's sessions
-- are read and sorted.
create index session_by_activity on clew.session (owner_id, last_active_at desc, thread_id desc);

-- The sessions that meet all conditions, in order, as far as the caller may see them. What `wanted`
-- does not name is not asked, nor planned. `facets` and `words` are what an index can answer; every
-- condition is checked on the row as well.
create or replace function clew.session_list(
    owner_id bigint, facets tsquery, words tsquery, wanted jsonb,
    sort text, descending boolean, after_at timestamptz, after_id text, row_limit integer)
returns table (thread_id text) language plpgsql stable rows 20
set max_parallel_workers_per_gather = 0 set enable_seqscan = off as $$
declare
    searched boolean := facets is not null or words is not null;
    terms boolean := false;
    asked text;
    after text := case when after_at is not null then format(
        '(s.%I, s.thread_id) %s ($5, $6)', sort, case when descending then '<' else '>' end) end;
    ordered text := format(
        's.%I %s, s.thread_id %2$s', sort, case when descending then 'desc' else 'asc' end);
    hits text[];
begin
    if sort not in ('updated_at', 'created_at', 'last_active_at') then
        raise exception 'no order is kept by %', sort using errcode = '22023';
    end if;
    -- What an index answered is asked again of the row, and counts as no further narrowing: inside
    -- `coalesce` the planner does not take the one fact for several, which had it sort where the
    -- first twenty of an ordered walk were enough.
    select string_agg(condition, ' and ') into asked from (values
        (true, $c$not s.temporary$c$),
        (true, $c$coalesce(s.state = any(array(
            select jsonb_array_elements_text($4 -> 'states'))), false)$c$),
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
        (wanted ? 'allowed', $c$clew.allows(s.metadata, $4 -> 'allowed')$c$)
    ) c (given, condition) where given;
    -- What many sessions have, some of the first few have as well: those are soon looked at, where an
    -- index would bring the whole multitude together before it tells of one.
    if searched and row_limit is not null then
        execute format(
            'select array_agg(found.thread_id) from (select s.thread_id from ('
            'select * from clew.session_state s where s.owner_id = $1 %s order by %s limit 500) s '
            '%s where %s order by %2$s limit $7) found',
            'and ' || after, ordered,
            case when words is not null then 'join clew.session_term t using (thread_id)' end,
            concat_ws(' and ', asked, case when words is not null then 't.words @@ $3' end))
        into hits using owner_id, facets, words, wanted, after_at, after_id, row_limit;
        if cardinality(hits) = row_limit then
            return query select unnest(hits);
            return;
        end if;
    end if;
    -- Few hits are fetched by their ids and sorted; where there are many, the first of an ordered
    -- walk are soon found. Which it is, is looked up and not estimated: statistics know nothing of
    -- a word that few said, and a walk for one that nobody said goes through everything.
    if searched then
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
    return query execute format(
        'select s.thread_id from clew.session_state s %s where %s order by %s limit $7',
        case when terms then 'join clew.session_term t using (thread_id)' end,
        concat_ws(' and ', asked, after,
            case when owner_id is not null then 's.owner_id = $1' end,
            case when terms and owner_id is not null then 'coalesce(t.owner_id = $1, false)' end,
            case when terms and facets is not null then 'coalesce(t.facets @@ $2, false)' end,
            case when terms and words is not null then 'coalesce(t.words @@ $3, false)' end,
            case when searched and not terms then 's.thread_id = any($8)' end),
        ordered)
    using owner_id, facets, words, wanted, after_at, after_id, row_limit, hits;
end
$$;

-- The sessions of the caller that may contain this metadata, for a search that is paged by number and
-- reads their rows under the policies itself; null where they are many, and a walk finds them sooner.
-- Steps around row security like `session_find`, and as little.
create function clew.session_holding(metadata jsonb) returns text[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp as $$
declare
    me bigint := clew.owner_from();
    asked tsquery;
    hits text[];
begin
    if me is null or me <> clew.owner_to() then
        raise exception 'a search is for one owner' using errcode = '42501';
    end if;
    select string_agg(quote_literal(clew.facet(me, 'm', leaf)), ' & ')::tsquery into asked
    from unnest(clew.leaves('', metadata)) leaf;
    if asked is null then
        return null;
    end if;
    select coalesce(array_agg(found.thread_id), '{}') into hits from (
        select t.thread_id from clew.session_term t
        where t.owner_id = me and t.facets @@ asked limit 2000) found;
    return case when cardinality(hits) < 2000 then hits end;
end
$$;
