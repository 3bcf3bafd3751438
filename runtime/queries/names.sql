-- name: tenant_named
-- Of one that is known already: looking for a tenant makes none.
select tenant_id from clew.tenant where name = %(tenant)s
