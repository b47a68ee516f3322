-- Drops every workflow, and with it the table's indexes.

DROP TABLE workflows;
