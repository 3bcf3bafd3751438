-- What runs of an agent streamed expires by when they ended. Its condition names the agent too, so
-- that it fits no statement that asks for a session's runs.
create index run_of_agent on clew.run (assistant_id, ended_at)
    where assistant_id is not null and ended_at is not null;
