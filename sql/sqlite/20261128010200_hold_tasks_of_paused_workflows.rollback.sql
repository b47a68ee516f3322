-- Loses no data: pausing a workflow holds back none of its tasks any more.

DROP TRIGGER workflow_tasks_moved;
DROP TRIGGER workflow_tasks_removed;
DROP TRIGGER workflow_tasks_added;
DROP TRIGGER workflows_tasks_deleted;
DROP TRIGGER workflows_paused;

-- Back by a millisecond, and forth again with the count: this makes no new version of a task.
UPDATE tasks
SET    updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', updated_at, '-0.001 seconds')
WHERE  paused_by <> 0;

UPDATE tasks
SET    paused_by = 0,
       updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', updated_at, '+0.001 seconds')
WHERE  paused_by <> 0;
