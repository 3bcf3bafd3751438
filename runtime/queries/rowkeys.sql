-- name: runs_to_seal
-- Those whose request is not under the newest key, be it plain or under another one. Locked until
-- they are written, as servers go on meanwhile. Each of these reads on from where the last page
-- ended, so that what servers add behind it is not looked for again.
select run_id, request from clew.run
where substring(request for %(length)s) <> %(prefix)s
    and (%(after_run_id)s::uuid is null or run_id > %(after_run_id)s)
order by run_id limit %(page)s for update

-- name: seal_runs
update clew.run set request = %(request)s where run_id = %(run_id)s

-- name: events_to_seal
-- What the database writes itself, the opening of a run, is sealed along with what runs wrote. That
-- of a run that starts meanwhile stays plain, as before: it holds nothing that anybody said.
select thread_id, epoch, first_n, kind, created_at, body from clew.event
where substring(body for %(length)s) <> %(prefix)s
    and (%(after_thread_id)s::text is null
        or (thread_id, epoch, first_n, kind, created_at) > (
            %(after_thread_id)s, %(after_epoch)s::bigint, %(after_first_n)s::integer,
            %(after_kind)s::smallint, %(after_created_at)s::timestamptz))
order by thread_id, epoch, first_n, kind, created_at limit %(page)s for update

-- name: seal_events
update clew.event set body = %(body)s
where thread_id = %(thread_id)s and epoch = %(epoch)s and first_n = %(first_n)s
    and kind = %(kind)s and created_at = %(created_at)s

-- name: crons_to_seal
select cron_id, request from clew.cron
where substring(request for %(length)s) <> %(prefix)s
    and (%(after_cron_id)s::uuid is null or cron_id > %(after_cron_id)s)
order by cron_id limit %(page)s for update

-- name: seal_crons
update clew.cron set request = %(request)s where cron_id = %(cron_id)s

-- name: webhooks_to_seal
select run_id, state from clew.webhook
where substring(state for %(length)s) <> %(prefix)s
    and (%(after_run_id)s::uuid is null or run_id > %(after_run_id)s)
order by run_id limit %(page)s for update

-- name: seal_webhooks
update clew.webhook set state = %(state)s where run_id = %(run_id)s

-- name: questions_to_seal
select thread_id, interrupt_id, value, response_schema, on_deadline from clew.interrupt
where (substring(value for %(length)s) <> %(prefix)s
        or substring(response_schema for %(length)s) <> %(prefix)s
        or substring(on_deadline for %(length)s) <> %(prefix)s)
    and (%(after_thread_id)s::text is null
        or (thread_id, interrupt_id) > (%(after_thread_id)s, %(after_interrupt_id)s::text))
order by thread_id, interrupt_id limit %(page)s for update

-- name: seal_questions
update clew.interrupt set value = %(value)s, response_schema = %(response_schema)s,
    on_deadline = %(on_deadline)s
where thread_id = %(thread_id)s and interrupt_id = %(interrupt_id)s

-- name: sessions_to_seal
-- As text, here and below: a connection that opens what it reads would take a user's own words for
-- what is sealed, the second time.
select thread_id, interrupts::text as interrupts, error::text as error from clew.session
where (interrupts <> '{}' or error is not null)
    and (%(after_thread_id)s::text is null or thread_id > %(after_thread_id)s)
order by thread_id limit %(page)s for update

-- name: seal_sessions
update clew.session set interrupts = %(interrupts)s, error = %(error)s where thread_id = %(thread_id)s

-- name: errors_to_seal
select run_id, error::text as error from clew.run
where error is not null and (%(after_run_id)s::uuid is null or run_id > %(after_run_id)s)
order by run_id limit %(page)s for update

-- name: seal_errors
update clew.run set error = %(error)s where run_id = %(run_id)s

-- name: words_to_forget
select s.thread_id, s.owner_id, s.title, s.description
from clew.session_term t join clew.session s using (thread_id)
where (%(after)s::text is null or t.thread_id > %(after)s) and t.words <> ''
order by t.thread_id limit %(page)s

-- name: keep_words
update clew.session_term set words = array_to_tsvector(%(words)s::text[]) where thread_id = %(thread_id)s

-- name: row_keys_in_use
-- The name of the key stands behind the magic, after its length; 400 bytes hold any. In JSON it is
-- all base64: what is not is somebody's own words.
with documents as (
    select interrupts as document from clew.session
    union all select error from clew.session
    union all select error from clew.run
),
texts as materialized (
    select found #>> '{}' as text
    from documents, jsonb_path_query(document, 'strict $.**."$sealed"') found
),
heads as materialized (
    select substring(body for 400) as head from (
        select request as body from clew.run
        union all select body from clew.event
        union all select request from clew.cron
        union all select state from clew.webhook
        union all select value from clew.interrupt
        union all select response_schema from clew.interrupt
        union all select on_deadline from clew.interrupt) bodies
    union all
    select decode(substring(text for 400), 'base64') from texts
    where text ~ '^([A-Za-z0-9+/]{4})+([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$'
)
select substring(head from %(length)s + 2 for get_byte(head, %(length)s)) as key_id,
    count(*) as values
from heads where substring(head for %(length)s) = %(magic)s and length(head) > %(length)s
group by 1

-- name: newest_keys
-- The keys that the newest rows of each kind are under: a bounded look.
select distinct kind, key from (
    select 'run' as kind, clew.key_of(request) as key from (
        select request from clew.run order by run_id desc limit 8) r
    union all
    select 'cron', clew.key_of(request) from (
        select request from clew.cron where next_at is not null order by next_at desc limit 8) c
    union all
    select 'question', clew.key_of(value) from (
        select value from clew.interrupt where outcome is null and deadline_at is not null
        order by deadline_at desc limit 8) i
    union all
    select 'lineage', convert_to(key_id, 'UTF8') from (
        select key_id from clew.lineage order by lineage_id desc limit 8) l) newest
where key is not null
order by kind, key

-- name: withheld
-- What is due and needs a key that this process lacks, one of each kind among the first that are due.
(select 'run' as kind, run_id::text as id, clew.key_of(request) as key from (
    select run_id, request from clew.run
    where status = 'pending' and due_at <= now() order by due_at, run_no limit 1000) r
where not clew.opens(request, %(opens)s::bytea[]) limit 1)
union all
(select 'cron', cron_id::text, clew.key_of(request) from (
    select cron_id, request from clew.cron where next_at <= now() order by next_at limit 1000) c
where not clew.opens(request, %(opens)s::bytea[]) limit 1)
union all
(select 'question', thread_id || ' ' || interrupt_id, clew.key_of(on_deadline) from (
    select thread_id, interrupt_id, on_deadline from clew.interrupt
    where outcome is null and deadline_at <= now() order by deadline_at limit 1000) i
where not clew.opens(on_deadline, %(opens)s::bytea[]) limit 1)
