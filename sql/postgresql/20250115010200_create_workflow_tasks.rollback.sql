-- Drops every link between workflows and tasks, and with it the table's indexes.

DROP TABLE workflow_tasks;
