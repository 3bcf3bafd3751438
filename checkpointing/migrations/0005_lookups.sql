-- While a table's statistics lag behind, the planner takes any small index that fits for a short cut
-- to a single session, and reads everybody's rows at every claim and every flush. This one fitted
-- because every statement sees one owner's heads only. Those that need no other bound (all sessions of
-- an owner, for a listing or an export) are rare, and read the table.
drop index if exists clew.head_owner;
