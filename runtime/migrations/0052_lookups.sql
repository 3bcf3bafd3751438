-- `run_held` is made as it is to be where the table is made. Only a database that is older than that
-- builds it anew here, while its runs wait.
do $$
begin
    if pg_get_indexdef('clew.run_held'::regclass) like '%status%' then
        drop index clew.run_held;
        create index run_held on clew.run (worker_id) where worker_id is not null;
    end if;
end
$$;
