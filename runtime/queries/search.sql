-- name: find_sessions
-- By terms, so through the one function that may use their index. The rows are read under the
-- policies, in the order in which the ids came.
select s.* from clew.session_find(
        %(words)s::text::tsquery, %(wanted)s, %(sort)s, %(descending)s, %(after_at)s, %(after_id)s, %(limit)s)
        with ordinality f (thread_id, place)
    join clew.session_state s using (thread_id)
order by f.place

-- name: list_sessions
select s.* from clew.session_list(
        %(owner_id)s, null, null, %(wanted)s, %(sort)s, %(descending)s,
        %(after_at)s, %(after_id)s, %(limit)s) with ordinality f (thread_id, place)
    join clew.session_state s using (thread_id)
order by f.place

-- name: count_found_sessions
select count(*) as sessions from clew.session_find(
    %(words)s::text::tsquery, %(wanted)s, 'updated_at', true, null, null, null)

-- name: count_listed_sessions
select count(*) as sessions from clew.session_list(
    %(owner_id)s, null, null, %(wanted)s, 'updated_at', true, null, null, null)

-- name: add_words
-- What was said is only ever added to: a message that was removed from the state was still said.
-- A session that has said more than a tsvector holds is found by what it said first.
update clew.session_term t set words = t.words || array_to_tsvector(%(words)s::text[])
where t.thread_id = %(thread_id)s and pg_column_size(t.words) < 700000

-- name: owner_of_session
select owner_id from clew.session where thread_id = %(thread_id)s

-- name: unread_session
-- What the scribe has to know of a session that moved on.
select s.owner_id, s.title, s.temporary, t.seen
from clew.session s join clew.session_term t using (thread_id)
where s.thread_id = %(thread_id)s and s.deleted_at is null

-- name: mark_seen
update clew.session_term set seen = seen || %(seen)s where thread_id = %(thread_id)s

-- name: title_session
-- Only where nobody gave it one meanwhile, or where it was asked for.
update clew.session set title = %(title)s, version = version + 1, updated_at = now()
where thread_id = %(thread_id)s and (title is null or %(replace)s) and deleted_at is null
