-- API keys. Only a digest is kept; a key holds 256 random bits, so a plain digest is as good as a
-- slow one and costs a request nothing.

create table clew.api_key (
    key_id       text primary key,
    owner_id     bigint not null,               -- whom it acts for
    digest       bytea not null unique,
    name         text not null,
    role         text not null default 'owner' check (role in ('owner', 'admin', 'service')),
    scopes       text[] not null default '{}',  -- empty: everything its role may do
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    last_used_at timestamptz
);
call clew.protect('clew.api_key');
create index api_key_of_owner on clew.api_key (owner_id, created_at desc);
