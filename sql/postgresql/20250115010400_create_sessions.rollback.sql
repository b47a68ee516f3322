-- Drops every session, and with it the table's indexes.

DROP TABLE sessions;
