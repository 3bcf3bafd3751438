-- Whether a process that has certain keys can open a value: one that is plain, or is sealed under one
-- of them. `prefixes` are what such values begin with: the mark of all that is sealed, the length of
-- the key's name, and the name. What is too short to be whole is let through, for whoever reads it to
-- refuse it. A single expression, so that it becomes a part of the statement that asks.
create function clew.opens(body bytea, prefixes bytea[]) returns boolean
language sql immutable parallel safe as $$
    select case
        when substring(body for 8) = '\x82636c6577726f77' and octet_length(body) >= 54
        then substring(body for 9 + get_byte(substring(body from 9 for 1), 0)) = any (prefixes)
        else true end
$$;

-- The name of the key that a value is sealed under; null for one that is plain or cut off.
create function clew.key_of(body bytea) returns bytea
language sql immutable parallel safe as $$
    select case
        when substring(body for 8) = '\x82636c6577726f77' and octet_length(body) >= 54
        then substring(body from 10 for get_byte(substring(body from 9 for 1), 0)) end
$$;
