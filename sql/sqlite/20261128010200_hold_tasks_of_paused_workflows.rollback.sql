-- Loses no data: pausing a workflow holds back none of its tasks any more.

DROP TRIGGER workflow_tasks_moved;
DROP TRIGGER workflow_tasks_removed;
DROP TRIGGER workflow_tasks_added;
DROP TRIGGER workflows_tasks_deleted;
DROP TRIGGER workflows_paused;

UPDATE tasks SET paused_by = 0 WHERE paused_by <> 0;
