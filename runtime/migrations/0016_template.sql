-- Templates: what new sessions start with, under versions. Shared ones are read by the whole tenant.

create table clew.template (
    template_id uuid primary key,
    owner_id    bigint not null,
    name        text not null,
    description text,
    shared      boolean not null default false,
    body        jsonb not null,                  -- the fields of a session
    version     integer not null default 1,
    created_at  timestamptz not null default now(),
    updated_at  timestamptz not null default now()
);
call clew.protect('clew.template');
create index template_of_owner on clew.template (owner_id, updated_at desc);
create policy shared_in_tenant on clew.template for select using (
    shared and owner_id >> 32 = clew.owner_from() >> 32 and owner_id >> 32 = clew.owner_to() >> 32);

create table clew.template_version (
    template_id uuid not null references clew.template on delete cascade,
    version     integer not null,
    owner_id    bigint not null,
    body        jsonb not null,
    created_at  timestamptz not null default now(),
    primary key (template_id, version)
);
call clew.protect('clew.template_version');
-- As far as the template itself can be read.
create policy of_readable on clew.template_version for select using (
    exists (select from clew.template t where t.template_id = template_version.template_id));
