-- Shares: what one owner lets others see of a session, or write to it. Given to a range of owners:
-- one of them, or everyone of the tenant.

create table clew.share (
    share_id      uuid primary key,
    thread_id     text not null references clew.session on delete cascade,
    owner_id      bigint not null,
    grantee_from  bigint not null,
    grantee_to    bigint not null,
    grantee       text,                          -- the name that it was given to; null: the tenant
    role          text not null check (role in ('reader', 'writer')),
    checkpoint_id uuid,                          -- pinned there; null: live
    actor         text not null,
    created_at    timestamptz not null default now(),
    expires_at    timestamptz,
    revoked_at    timestamptz,
    check (role = 'reader' or checkpoint_id is null)
);
call clew.protect('clew.share');
create index share_of_session on clew.share (thread_id);
create index share_of_grantee on clew.share (grantee_from, created_at desc);

-- Those it was given to may read the row, which is their proof; whoever is not an owner within the
-- range, such as an admin of another tenant, may not.
create policy given_to on clew.share for select using (
    grantee_from <= clew.owner_from() and clew.owner_to() <= grantee_to);
