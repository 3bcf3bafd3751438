-- What a session keeps of its history, in the words of a retention policy; null: as the server says.
alter table clew.session add column retention text;
