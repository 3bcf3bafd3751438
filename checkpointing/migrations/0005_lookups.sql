-- While a table's statistics lag behind, the planner takes any small index that fits for a short cut
-- to a single session, and reads everybody's rows at every claim and every flush. No statement looks
-- for heads by their owner; that each sees one owner's only made this one fit.
drop index if exists clew.head_owner;
