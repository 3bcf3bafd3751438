-- What nodes with a cache policy returned, for their owner to find again. Losing it costs time and
-- nothing else.

create table clew.node_cache (
    owner_id   bigint not null,
    ns         text not null,                -- a JSON array
    key        text not null,
    key_id     text,                         -- of the key that the body is encrypted under
    body       bytea not null,
    expires_at timestamptz not null,
    primary key (owner_id, ns, key)
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.05);
call clew.protect('clew.node_cache');
alter table clew.node_cache alter body set storage external;  -- compressed already
create index node_cache_expiry on clew.node_cache (expires_at);
create index node_cache_of_owner on clew.node_cache (owner_id, expires_at desc);
