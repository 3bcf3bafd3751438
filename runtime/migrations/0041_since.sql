-- What a subscription is not told: everything that had happened before it was made. Its place alone
-- cannot say so, because it must lie before every transaction that was still open at the time.
alter table clew.subscription add column since pg_snapshot not null default pg_current_snapshot();
