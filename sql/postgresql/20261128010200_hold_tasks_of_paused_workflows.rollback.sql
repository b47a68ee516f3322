-- Loses no data: pausing a workflow holds back none of its tasks any more.

DROP TRIGGER workflow_tasks_emptied ON workflow_tasks;
DROP TRIGGER workflow_tasks_moved ON workflow_tasks;
DROP TRIGGER workflow_tasks_removed ON workflow_tasks;
DROP TRIGGER workflow_tasks_added ON workflow_tasks;
DROP FUNCTION dao_count_workflow_task();
DROP TRIGGER workflows_tasks_deleted ON workflows;
DROP FUNCTION dao_lock_tasks_of_workflow();
DROP TRIGGER workflows_paused ON workflows;
DROP FUNCTION dao_count_paused();
DROP FUNCTION dao_count_paused_workflows(text[]);

-- Back by a millisecond, and forth again with the count: this makes no new version of a task.
UPDATE tasks
SET    updated_at = updated_at - interval '1 millisecond'
WHERE  paused_by <> 0;

UPDATE tasks
SET    paused_by = 0,
       updated_at = updated_at + interval '1 millisecond'
WHERE  paused_by <> 0;
