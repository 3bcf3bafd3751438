-- name: create_session
-- Nothing happens where the id is taken, by whomever: the caller looks whether it can see the row.
insert into clew.session (
    thread_id, owner_id, graph_id, assistant_id, kind, title, description, tags, metadata, config,
    context, resources, template, temporary, parent_thread_id, ttl, ttl_sliding, ttl_waiting,
    ttl_strategy, expires_at, idle_after)
values (
    %(thread_id)s, %(owner_id)s, %(graph_id)s, %(assistant_id)s, %(kind)s, %(title)s,
    %(description)s, %(tags)s, %(metadata)s, %(config)s, %(context)s, %(resources)s, %(template)s,
    %(temporary)s, %(parent_thread_id)s, %(ttl)s, %(ttl_sliding)s, %(ttl_waiting)s,
    %(ttl_strategy)s, now() + %(ttl)s::interval, coalesce(%(idle_after)s, interval '30 minutes'))
on conflict (thread_id) do nothing

-- name: get_session
select * from clew.session_state
where thread_id = %(thread_id)s and clew.allows(metadata, %(allowed)s)

-- name: get_session_of_id
-- As above, but also what the filter hides: a creation must know its own row from a stranger's.
select *, clew.allows(metadata, %(allowed)s) as allowed from clew.session_state
where thread_id = %(thread_id)s

-- name: patch_session
-- Only what `changes` names is changed; metadata is merged, one level deep. The state is part of
-- the precondition, so that a patch never wakes what has ended. The row is locked first, so `state`
-- is what it is now, and not what it was before whoever held the row changed it.
with before as materialized (
    select thread_id, state from clew.session_state
    where thread_id = %(thread_id)s and clew.allows(metadata, %(allowed)s)
    for no key update
)
update clew.session s set
    metadata = s.metadata || coalesce(%(changes)s::jsonb -> 'metadata', '{}'),
    config = coalesce(%(changes)s::jsonb -> 'config', s.config),
    context = coalesce(%(changes)s::jsonb -> 'context', s.context),
    resources = coalesce(%(changes)s::jsonb -> 'resources', s.resources),
    title = case when %(changes)s::jsonb ? 'title'
        then %(changes)s::jsonb ->> 'title' else s.title end,
    description = case when %(changes)s::jsonb ? 'description'
        then %(changes)s::jsonb ->> 'description' else s.description end,
    kind = case when %(changes)s::jsonb ? 'kind' then %(changes)s::jsonb ->> 'kind' else s.kind end,
    graph_id = coalesce(%(changes)s::jsonb ->> 'graph_id', s.graph_id),
    assistant_id = coalesce((%(changes)s::jsonb ->> 'assistant_id')::uuid, s.assistant_id),
    tags = case when %(changes)s::jsonb ? 'tags'
        then array(select jsonb_array_elements_text(%(changes)s::jsonb -> 'tags')) else s.tags end,
    ttl = case when %(set_ttl)s then %(ttl)s::interval else s.ttl end,
    ttl_sliding = case when %(set_ttl)s then %(ttl_sliding)s else s.ttl_sliding end,
    ttl_waiting = case when %(set_ttl)s then %(ttl_waiting)s::interval else s.ttl_waiting end,
    ttl_strategy = case when %(set_ttl)s then %(ttl_strategy)s else s.ttl_strategy end,
    expires_at = case when %(set_ttl)s then now() + %(ttl)s::interval else s.expires_at end,
    -- A new term starts now: counted from an activity of long ago it might be over already.
    last_active_at = case when %(set_ttl)s then now() else s.last_active_at end,
    idle_after = coalesce(%(idle_after)s, s.idle_after),
    version = s.version + 1,
    updated_at = now()
from before b
where s.thread_id = b.thread_id
    and b.state in ('active', 'idle')
    and (%(version)s::bigint is null or s.version = %(version)s)

-- name: delete_session
-- Final. What hangs on the row by a foreign key goes with it; who did it stays in the audit log.
with before as materialized (
    select thread_id, state from clew.session_state where thread_id = any(%(thread_ids)s)),
gone as (
    delete from clew.session where thread_id = any(%(thread_ids)s)
    returning thread_id, owner_id, temporary),
noted as (
    insert into clew.audit (owner_id, thread_id, actor, move, from_state)
    select g.owner_id, g.thread_id, %(actor)s, 'purge', b.state
    from gone g join before b using (thread_id)
    where %(actor)s::text is not null and not g.temporary)
select thread_id from gone

-- name: lock_session
-- The row a deletion starts from; it waits for a writer that holds it.
select thread_id from clew.session
where thread_id = %(thread_id)s and clew.allows(metadata, %(allowed)s) for update

-- name: sessions_holding
select clew.session_holding(%(metadata)s) as holding

-- name: search_sessions
-- `owner_id` repeats the policy as an equality, which is what lets the index give the order.
select * from clew.session_state
where (%(owner_id)s::bigint is null or owner_id = %(owner_id)s)
    and state in ('active', 'idle', 'archived')
    and not temporary
    and (%(ids)s::text[] is null or thread_id = any(%(ids)s))
    and (%(status)s::text is null or status = %(status)s)
    and (%(metadata)s::jsonb is null or metadata @> %(metadata)s)
    and (%(holding)s::text[] is null or thread_id = any(%(holding)s))
    and clew.allows(metadata, %(allowed)s)
order by {order} limit %(limit)s offset %(offset)s

-- name: count_sessions
select count(*) as sessions from clew.session_state
where (%(owner_id)s::bigint is null or owner_id = %(owner_id)s)
    and state in ('active', 'idle', 'archived')
    and not temporary
    and (%(ids)s::text[] is null or thread_id = any(%(ids)s))
    and (%(status)s::text is null or status = %(status)s)
    and (%(metadata)s::jsonb is null or metadata @> %(metadata)s)
    and (%(holding)s::text[] is null or thread_id = any(%(holding)s))
    and clew.allows(metadata, %(allowed)s)
