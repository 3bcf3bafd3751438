-- Who did what to a session, and when. Rows outlive the session they speak of, and go when their
-- owner is erased.

create table clew.audit (
    audit_id   bigint generated always as identity primary key,
    owner_id   bigint not null,
    thread_id  text,
    actor      text not null,
    move       text not null,
    from_state text,
    to_state   text,
    detail     jsonb not null default '{}',
    made_at    timestamptz not null default now()
);
call clew.protect('clew.audit');
create index audit_of_owner on clew.audit (owner_id, audit_id desc);
create index audit_of_session on clew.audit (thread_id, audit_id desc);
