-- name: inbox
-- Open questions across the sessions of who asks, newest first.
select i.* from clew.interrupt i join clew.session_state s using (thread_id)
where i.outcome is null and s.state in ('active', 'idle')
    and (%(thread_id)s::text is null or i.thread_id = %(thread_id)s)
    and clew.allows(s.metadata, %(allowed)s)
order by i.created_at desc, i.interrupt_id limit %(limit)s offset %(offset)s

-- name: get_interrupt
select i.* from clew.interrupt i join clew.session s using (thread_id)
where i.thread_id = %(thread_id)s and i.interrupt_id = %(interrupt_id)s
    and clew.allows(s.metadata, %(allowed)s)

-- name: set_deadline
update clew.interrupt i set deadline_at = %(deadline_at)s, on_deadline = %(on_deadline)s
where i.thread_id = %(thread_id)s and i.interrupt_id = %(interrupt_id)s and i.outcome is null
returning i.*

-- name: overdue_interrupts
-- Together with the others of its session that are due. Left for another process is what needs a key
-- that this one lacks: the answer, or the request of the run that asked.
select i.thread_id, i.owner_id, i.interrupt_id, i.run_id, i.on_deadline, i.created_at,
    s.graph_id, s.assistant_id
from clew.interrupt i join clew.session_state s using (thread_id)
where i.outcome is null and i.deadline_at <= now()
    and s.status = 'interrupted' and s.state in ('active', 'idle')
    and clew.opens(i.on_deadline, %(opens)s::bytea[])
    and (i.on_deadline is null or not exists (
        select from clew.run r
        where r.run_id = i.run_id and not clew.opens(r.request, %(opens)s::bytea[])))
order by i.thread_id, i.interrupt_id limit %(limit)s

-- name: give_up_interrupts
-- The session stops waiting for these; with nothing else to wait for it is at rest.
with given_up as (
    update clew.interrupt set outcome = 'timeout', answered_at = now()
    where thread_id = %(thread_id)s and interrupt_id = any(%(interrupt_ids)s) and outcome is null
    returning interrupt_id
),
left_over as (
    select coalesce(jsonb_object_agg(e.key, e.value), '{}') as interrupts
    from clew.session s, jsonb_each(s.interrupts) e
    where s.thread_id = %(thread_id)s and not exists (
        select from jsonb_array_elements(e.value) item
        where item ->> 'id' in (select interrupt_id from given_up))
)
update clew.session s set
    interrupts = left_over.interrupts,
    status = case when left_over.interrupts = '{}' then 'idle' else s.status end,
    updated_at = now()
from left_over
where s.thread_id = %(thread_id)s and s.status = 'interrupted' and exists (select from given_up)

-- name: replace_interrupts
-- A session that was forked, restored or edited waits for what its new head asks, and for nothing
-- else.
with dropped as (
    update clew.interrupt set outcome = 'dropped', answered_at = now()
    where thread_id = %(thread_id)s and outcome is null
        and interrupt_id <> all (%(interrupt_ids)s::text[])
)
insert into clew.interrupt as i (
    thread_id, interrupt_id, owner_id, namespace, value, response_schema, deadline_at, on_deadline)
select %(thread_id)s, t.interrupt_id, %(owner_id)s,
    coalesce(string_to_array(nullif(t.namespace, ''), '|'), '{}'), t.value, t.response_schema,
    t.deadline_at, t.on_deadline
from unnest(
    %(interrupt_ids)s::text[], %(namespaces)s::text[], %(interrupt_values)s::bytea[],
    %(schemas)s::bytea[], %(deadlines)s::timestamptz[], %(defaults)s::bytea[])
    as t (interrupt_id, namespace, value, response_schema, deadline_at, on_deadline)
on conflict (thread_id, interrupt_id) do update set
    value = excluded.value, deadline_at = coalesce(excluded.deadline_at, i.deadline_at),
    on_deadline = coalesce(excluded.on_deadline, i.on_deadline), answered_at = null, answered_by = null, outcome = null
