-- Tasks of paused workflows are held back: tasks.paused_by counts the paused workflows that a task is in. One that
-- runs already goes on. The count is a part of the index that claims walk along, so that a claim costs the same with it.
-- Triggers, and an update of the tasks of workflows that are paused now. Its rollback holds no task back any more.

-- The tasks of a workflow are locked in the order of their ids. A transaction that sees the database as it was when it
-- began would not count what was added since.
CREATE FUNCTION dao_count_paused() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION '%: a workflow is paused, and goes on, at READ COMMITTED only, since at % nobody sees which '
            'tasks were added meanwhile: use another transaction',
            TG_TABLE_NAME, upper(current_setting('transaction_isolation'))
        USING TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
    END IF;
    PERFORM FROM tasks
    WHERE   id IN (SELECT task_id FROM workflow_tasks WHERE workflow_id = new.id)
    ORDER   BY id
    FOR     NO KEY UPDATE;
    UPDATE tasks
    SET    paused_by = paused_by + CASE WHEN new.status = 'paused' THEN 1 ELSE -1 END
    WHERE  id IN (SELECT task_id FROM workflow_tasks WHERE workflow_id = new.id);
    RETURN NULL;
END;
$$;

CREATE TRIGGER workflows_paused
AFTER UPDATE OF status ON workflows
FOR EACH ROW
WHEN ((old.status = 'paused') <> (new.status = 'paused'))
EXECUTE FUNCTION dao_count_paused();

-- While the deleted workflow is still there, so that the triggers below see its status.
CREATE FUNCTION dao_remove_workflow_tasks() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM workflow_tasks WHERE workflow_id = old.id;
    RETURN old;
END;
$$;

CREATE TRIGGER workflows_tasks_deleted
BEFORE DELETE ON workflows
FOR EACH ROW
WHEN (old.status = 'paused')
EXECUTE FUNCTION dao_remove_workflow_tasks();

-- The workflow is locked, so that whoever pauses it waits, and sees the task then, or is waited for.
CREATE FUNCTION dao_count_workflow_task() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    found text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE tasks SET paused_by = 0 WHERE paused_by <> 0;
        RETURN NULL;
    END IF;
    IF TG_OP <> 'INSERT' THEN
        SELECT status INTO found FROM workflows WHERE id = old.workflow_id FOR SHARE;
        UPDATE tasks SET paused_by = paused_by - 1 WHERE id = old.task_id AND found = 'paused';
    END IF;
    IF TG_OP <> 'DELETE' THEN
        SELECT status INTO found FROM workflows WHERE id = new.workflow_id FOR SHARE;
        UPDATE tasks SET paused_by = paused_by + 1 WHERE id = new.task_id AND found = 'paused';
    END IF;
    RETURN NULL;
END;
$$;

CREATE TRIGGER workflow_tasks_added
AFTER INSERT ON workflow_tasks
FOR EACH ROW
EXECUTE FUNCTION dao_count_workflow_task();

CREATE TRIGGER workflow_tasks_removed
AFTER DELETE ON workflow_tasks
FOR EACH ROW
EXECUTE FUNCTION dao_count_workflow_task();

CREATE TRIGGER workflow_tasks_moved
AFTER UPDATE OF workflow_id, task_id ON workflow_tasks
FOR EACH ROW
WHEN (old.workflow_id <> new.workflow_id OR old.task_id <> new.task_id)
EXECUTE FUNCTION dao_count_workflow_task();

CREATE TRIGGER workflow_tasks_emptied
AFTER TRUNCATE ON workflow_tasks
FOR EACH STATEMENT
EXECUTE FUNCTION dao_count_workflow_task();

-- Back by a millisecond, unless it is the first that there is, and forth again with the count: this makes no new version
-- of a task.
UPDATE tasks
SET    updated_at = greatest(updated_at - interval '1 millisecond', '0001-01-01 00:00:00+00')
WHERE  id IN (SELECT task_id
              FROM   workflow_tasks
              JOIN   workflows ON workflows.id = workflow_tasks.workflow_id
              WHERE  workflows.status = 'paused');

UPDATE tasks
SET    paused_by = (SELECT count(*)
                    FROM   workflow_tasks
                    JOIN   workflows ON workflows.id = workflow_tasks.workflow_id
                    WHERE  workflow_tasks.task_id = tasks.id AND workflows.status = 'paused'),
       updated_at = updated_at + interval '1 millisecond'
WHERE  id IN (SELECT task_id
              FROM   workflow_tasks
              JOIN   workflows ON workflows.id = workflow_tasks.workflow_id
              WHERE  workflows.status = 'paused');
