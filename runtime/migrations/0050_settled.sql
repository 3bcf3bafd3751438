-- The epoch in which the last turn of a session ended well. While the head is still at it, nobody has
-- touched the state since, and the next turn needs not look whether the last one left something open.
-- After anything else (a turn that was broken off, a fork, a restore, an edit) it does.
alter table clew.session add column settled_epoch bigint;
