-- Tasks of paused workflows are held back: tasks.paused_by counts the paused workflows that a task is in. One that
-- runs already goes on. The count is a part of the index that claims walk along, so that a claim costs the same with it.
-- Triggers, and an update of the tasks of workflows that are paused now: locks the database for that, rewrites nothing
-- else. Its rollback holds no task back any more.

CREATE TRIGGER workflows_paused
AFTER UPDATE OF status ON workflows
FOR EACH ROW
WHEN (old.status = 'paused') <> (new.status = 'paused')
BEGIN
    UPDATE tasks
    SET    paused_by = paused_by + CASE WHEN new.status = 'paused' THEN 1 ELSE -1 END
    WHERE  id IN (SELECT task_id FROM workflow_tasks WHERE workflow_id = new.id);
END;

-- While the deleted workflow is still there, so that the triggers below see its status.
CREATE TRIGGER workflows_tasks_deleted
BEFORE DELETE ON workflows
FOR EACH ROW
WHEN old.status = 'paused'
BEGIN
    DELETE FROM workflow_tasks WHERE workflow_id = old.id;
END;

CREATE TRIGGER workflow_tasks_added
AFTER INSERT ON workflow_tasks
FOR EACH ROW
WHEN (SELECT status FROM workflows WHERE id = new.workflow_id) = 'paused'
BEGIN
    UPDATE tasks SET paused_by = paused_by + 1 WHERE id = new.task_id;
END;

CREATE TRIGGER workflow_tasks_removed
AFTER DELETE ON workflow_tasks
FOR EACH ROW
WHEN (SELECT status FROM workflows WHERE id = old.workflow_id) = 'paused'
BEGIN
    UPDATE tasks SET paused_by = paused_by - 1 WHERE id = old.task_id;
END;

CREATE TRIGGER workflow_tasks_moved
AFTER UPDATE OF workflow_id, task_id ON workflow_tasks
FOR EACH ROW
WHEN old.workflow_id <> new.workflow_id OR old.task_id <> new.task_id
BEGIN
    UPDATE tasks SET paused_by = paused_by - 1
    WHERE  id = old.task_id AND (SELECT status FROM workflows WHERE id = old.workflow_id) = 'paused';
    UPDATE tasks SET paused_by = paused_by + 1
    WHERE  id = new.task_id AND (SELECT status FROM workflows WHERE id = new.workflow_id) = 'paused';
END;

-- Back by a millisecond, unless it is the first that there is, and forth again with the count: this makes no new version
-- of a task.
UPDATE tasks
SET    updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', updated_at, '-0.001 seconds'), '0001-01-01T00:00:00.000Z')
WHERE  id IN (SELECT task_id
              FROM   workflow_tasks
              JOIN   workflows ON workflows.id = workflow_tasks.workflow_id
              WHERE  workflows.status = 'paused');

UPDATE tasks
SET    paused_by = (SELECT count(*)
                    FROM   workflow_tasks
                    JOIN   workflows ON workflows.id = workflow_tasks.workflow_id
                    WHERE  workflow_tasks.task_id = tasks.id AND workflows.status = 'paused'),
       updated_at = strftime('%Y-%m-%dT%H:%M:%fZ', updated_at, '+0.001 seconds')
WHERE  id IN (SELECT task_id
              FROM   workflow_tasks
              JOIN   workflows ON workflows.id = workflow_tasks.workflow_id
              WHERE  workflows.status = 'paused');
