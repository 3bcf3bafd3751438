-- What an erasure leaves behind: how much was removed, and a digest by which somebody who knows the
-- name can show that it was theirs. It belongs to the tenant, since the owner is no more.

create table clew.receipt (
    receipt_id uuid primary key,
    owner_id   bigint not null,                  -- the tenant's own number, nobody's
    subject    text not null,                    -- sha256 of the tenant's and the owner's name
    actor      text not null,
    removed    jsonb not null,                   -- rows by table
    started_at timestamptz not null,
    ended_at   timestamptz not null default now()
);
call clew.protect('clew.receipt');
