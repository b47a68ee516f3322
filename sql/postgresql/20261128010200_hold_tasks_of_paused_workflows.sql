-- Tasks of paused workflows are held back: tasks.paused_by counts the paused workflows that a task is in. One that
-- runs already goes on. The count is a part of the index that claims walk along, so that a claim costs the same with it.
-- Triggers, and an update of the tasks of workflows that are paused now. Its rollback holds no task back any more.

-- Tasks are locked in the order of their ids before they are counted. They are counted anew: one statement may pause a
-- workflow and put tasks into it, and nobody knows which of both is counted first.
CREATE FUNCTION dao_count_paused_workflows(ids text[]) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM FROM tasks WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE tasks
    SET    paused_by = counted.number
    FROM   (SELECT held.id, count(workflows.id) AS number
            FROM   unnest(ids) AS held (id)
            LEFT   JOIN workflow_tasks ON workflow_tasks.task_id = held.id
            LEFT   JOIN workflows ON workflows.id = workflow_tasks.workflow_id AND workflows.status = 'paused'
            GROUP  BY held.id) AS counted
    WHERE  tasks.id = counted.id AND paused_by <> counted.number;
END;
$$;

-- A transaction that sees the database as it was when it began would not count what was added since.
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
    PERFORM dao_count_paused_workflows(ARRAY(SELECT task_id FROM workflow_tasks WHERE workflow_id = new.id));
    RETURN NULL;
END;
$$;

CREATE TRIGGER workflows_paused
AFTER UPDATE OF status ON workflows
FOR EACH ROW
WHEN ((old.status = 'paused') <> (new.status = 'paused'))
EXECUTE FUNCTION dao_count_paused();

-- Before the foreign key removes them from it one by one, in no order.
CREATE FUNCTION dao_lock_tasks_of_workflow() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM FROM tasks
    WHERE   id IN (SELECT task_id FROM workflow_tasks WHERE workflow_id = old.id)
    ORDER   BY id
    FOR     NO KEY UPDATE;
    RETURN old;
END;
$$;

CREATE TRIGGER workflows_tasks_deleted
BEFORE DELETE ON workflows
FOR EACH ROW
WHEN (old.status = 'paused')
EXECUTE FUNCTION dao_lock_tasks_of_workflow();

-- The workflow is locked, so that whoever pauses it waits, and sees the task then, or is waited for. A task that is held
-- back by none needs no counting when it leaves one.
CREATE FUNCTION dao_count_workflow_task() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    ids text[];
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE tasks SET paused_by = 0 WHERE paused_by <> 0;
        RETURN NULL;
    END IF;
    PERFORM FROM workflows WHERE id IN (old.workflow_id, new.workflow_id) ORDER BY id FOR SHARE;
    ids := ARRAY(
        SELECT id
        FROM   tasks
        WHERE  id IN (old.task_id, new.task_id)
        AND    (paused_by > 0 OR EXISTS (SELECT FROM workflows WHERE id = new.workflow_id AND status = 'paused')));
    IF ids <> '{}' THEN
        PERFORM dao_count_paused_workflows(ids);
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
