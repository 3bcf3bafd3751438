-- name: stats_of_sessions
-- One pass over what the principal may see. A session's duration is from its creation to its last
-- activity.
select
    grouping(state) as all_states, state, grouping(graph_id) as all_agents, graph_id,
    grouping(owner_id) as all_owners, owner_id,
    count(*) as sessions,
    coalesce(sum(message_count), 0)::bigint as messages,
    coalesce(sum(bytes), 0)::bigint as bytes,
    avg(last_active_at - created_at) as duration
from clew.session_state
where not temporary
    and (%(owner_id)s::bigint is null or owner_id = %(owner_id)s)
    and (%(graph_id)s::text is null or graph_id = %(graph_id)s)
group by grouping sets ((), (state), (graph_id), (owner_id))

-- name: stats_by_day
select (created_at at time zone 'UTC')::date as day, count(*) as sessions
from clew.session_state
where not temporary and created_at >= now() - make_interval(days => %(days)s::integer)
    and (%(owner_id)s::bigint is null or owner_id = %(owner_id)s)
    and (%(graph_id)s::text is null or graph_id = %(graph_id)s)
group by 1 order by 1

-- name: names_of_owners
select owner_id, name from clew.owner where owner_id = any(%(owner_ids)s)
