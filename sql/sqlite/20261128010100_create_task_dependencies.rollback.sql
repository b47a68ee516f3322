-- Drops every dependency; then no task waits for another.

DROP TRIGGER tasks_dependencies_completed;
DROP TRIGGER tasks_dependencies_deleted;
DROP TABLE task_dependencies;

UPDATE tasks SET waiting_for = 0 WHERE waiting_for <> 0;
