-- Drops every task, and with it the table's indexes.

DROP TABLE tasks;
