-- name: create_assistant
with made as (
    insert into clew.assistant (
        assistant_id, owner_id, graph_id, name, description, config, context, metadata)
    values (
        %(assistant_id)s, %(owner_id)s, %(graph_id)s, %(name)s, %(description)s, %(config)s,
        %(context)s, %(metadata)s)
    on conflict (assistant_id) do nothing
    returning *)
insert into clew.assistant_version (
    assistant_id, version, owner_id, graph_id, name, description, config, context, metadata)
select assistant_id, version, owner_id, graph_id, name, description, config, context, metadata
from made

-- name: register_assistant
-- The assistant that stands for a graph, made again at each start and brought up to date.
with made as (
    insert into clew.assistant as a (
        assistant_id, owner_id, graph_id, name, description, metadata)
    values (
        %(assistant_id)s, 0, %(graph_id)s, %(graph_id)s, %(description)s,
        '{"created_by": "system"}')
    on conflict (assistant_id) do update set description = excluded.description
        where a.owner_id = 0
    returning *)
insert into clew.assistant_version (
    assistant_id, version, owner_id, graph_id, name, description, config, context, metadata)
select assistant_id, version, owner_id, graph_id, name, description, config, context, metadata
from made
on conflict do nothing

-- name: get_assistant
select * from clew.assistant
where assistant_id = %(assistant_id)s
    and (owner_id = 0 or clew.allows(metadata, %(allowed)s))

-- name: update_assistant
-- The row lock orders concurrent updates, and each takes the next number.
with changed as (
    update clew.assistant a set
        graph_id = coalesce(%(graph_id)s, a.graph_id),
        name = coalesce(%(name)s, a.name),
        description = coalesce(%(description)s, a.description),
        config = coalesce(%(config)s, a.config),
        context = coalesce(%(context)s, a.context),
        metadata = a.metadata || coalesce(%(metadata)s::jsonb, '{}'),
        version = a.newest + 1,
        newest = a.newest + 1,
        updated_at = now()
    where a.assistant_id = %(assistant_id)s and clew.allows(a.metadata, %(allowed)s)
    returning a.*),
kept as (
    insert into clew.assistant_version (
        assistant_id, version, owner_id, graph_id, name, description, config, context, metadata)
    select assistant_id, version, owner_id, graph_id, name, description, config, context, metadata
    from changed)
select * from changed

-- name: set_latest_assistant
update clew.assistant a set
    graph_id = v.graph_id, name = v.name, description = v.description, config = v.config,
    context = v.context, metadata = v.metadata, version = v.version, updated_at = now()
from clew.assistant_version v
where a.assistant_id = %(assistant_id)s and v.assistant_id = a.assistant_id
    and v.version = %(version)s and clew.allows(a.metadata, %(allowed)s)
returning a.*

-- name: delete_assistant
delete from clew.assistant
where assistant_id = %(assistant_id)s and clew.allows(metadata, %(allowed)s)

-- name: sessions_of_assistant
select thread_id from clew.session
where assistant_id = %(assistant_id)s or metadata @> jsonb_build_object(
    'assistant_id', %(assistant_id)s::text)

-- name: search_assistants
select * from clew.assistant
where (%(graph_id)s::text is null or graph_id = %(graph_id)s)
    and (%(name)s::text is null or strpos(lower(name), lower(%(name)s)) > 0)
    and (%(metadata)s::jsonb is null or metadata @> %(metadata)s)
    and (owner_id = 0 or clew.allows(metadata, %(allowed)s))
order by {order} limit %(limit)s offset %(offset)s

-- name: count_assistants
select count(*) as assistants from clew.assistant
where (%(graph_id)s::text is null or graph_id = %(graph_id)s)
    and (%(name)s::text is null or strpos(lower(name), lower(%(name)s)) > 0)
    and (%(metadata)s::jsonb is null or metadata @> %(metadata)s)
    and (owner_id = 0 or clew.allows(metadata, %(allowed)s))

-- name: versions_of_assistant
select v.*, v.created_at as updated_at
from clew.assistant_version v join clew.assistant a using (assistant_id)
where assistant_id = %(assistant_id)s
    and (a.owner_id = 0 or clew.allows(a.metadata, %(allowed)s))
    and (%(metadata)s::jsonb is null or v.metadata @> %(metadata)s)
order by v.version desc limit %(limit)s offset %(offset)s
