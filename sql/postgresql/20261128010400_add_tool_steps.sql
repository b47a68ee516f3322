-- Steps: a call may say which step of its task it is, and of which attempt. One completed call stands for a step for
-- ever. A call with an attempt is taken only from the attempt that has its task, and it is open only as long as that
-- has it: a worker that has lost its task can neither begin a call nor end one, whatever program it writes with.
-- Rewrites nothing. Reads the table for the constraints and for each index, and locks it for as long. Its rollback
-- loses which call was which step.
-- lint: ignore M033, M034, M036 workers can do without none of it, and stand still meanwhile

ALTER TABLE tool_executions
    ADD COLUMN step text COLLATE "C"
        CONSTRAINT tool_executions_step_not_empty CHECK (step <> ''),
    ADD COLUMN attempt bigint
        CONSTRAINT tool_executions_attempt_positive CHECK (attempt > 0),
    ADD CONSTRAINT tool_executions_step_of_attempt CHECK (step IS NULL OR attempt IS NOT NULL),
    ADD CONSTRAINT tool_executions_attempt_of_task CHECK (attempt IS NULL OR task_id IS NOT NULL);

CREATE UNIQUE INDEX idx_tool_executions_step ON tool_executions (task_id, step)
    WHERE step IS NOT NULL AND status = 'completed';
CREATE INDEX idx_tool_executions_open ON tool_executions (task_id)
    WHERE attempt IS NOT NULL AND status IN ('pending', 'running');
-- Those that no task takes with it when it is pruned.
CREATE INDEX idx_tool_executions_without_task ON tool_executions (created_at, id) WHERE task_id IS NULL;

DROP TRIGGER tool_executions_updated_at ON tool_executions;

CREATE TRIGGER tool_executions_updated_at
BEFORE UPDATE OF
    id, task_id, tool_name, input, output, status, error, duration_ms, created_at, started_at,
    completed_at, step, attempt
ON tool_executions
FOR EACH ROW
WHEN (new.updated_at <= old.updated_at)
EXECUTE FUNCTION dao_updated_at();

-- The task is written as it is, so that whoever takes it from the attempt waits, and closes the call then, or is waited
-- for; and who does so at REPEATABLE READ, and does not see the call, has to repeat that. A trigger that lets nothing be
-- written as it is leaves the task locked, and does not refuse the call.
CREATE FUNCTION dao_check_attempt() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE tasks
    SET    updated_at = updated_at
    WHERE  id = new.task_id AND attempt = new.attempt AND status = 'running';
    IF NOT FOUND AND NOT EXISTS (
        SELECT FROM tasks WHERE id = new.task_id AND attempt = new.attempt AND status = 'running'
    ) THEN
        RAISE EXCEPTION '%: the row breaks the constraint %', TG_TABLE_NAME, TG_NAME
        USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME, TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
    END IF;
    RETURN new;
END;
$$;

CREATE TRIGGER tool_executions_attempt_current
BEFORE INSERT ON tool_executions
FOR EACH ROW
WHEN (new.attempt IS NOT NULL)
EXECUTE FUNCTION dao_check_attempt();

CREATE TRIGGER tool_executions_attempt_fixed
BEFORE UPDATE OF task_id, step, attempt ON tool_executions
FOR EACH ROW
WHEN (new.attempt IS DISTINCT FROM old.attempt
      OR old.attempt IS NOT NULL
         AND (new.task_id IS DISTINCT FROM old.task_id OR new.step IS DISTINCT FROM old.step))
EXECUTE FUNCTION dao_refuse();

CREATE TRIGGER tool_executions_end_final
BEFORE UPDATE OF status, output, error ON tool_executions
FOR EACH ROW
WHEN (old.attempt IS NOT NULL AND (old.status = 'completed' OR old.status = 'failed' OR old.status = 'timeout')
      AND (new.status <> old.status OR new.output IS DISTINCT FROM old.output OR new.error IS DISTINCT FROM old.error))
EXECUTE FUNCTION dao_refuse();

-- However an attempt ends, what it called and did not end may have happened or not. A call that can have no later
-- version must not keep the task from ending.
CREATE FUNCTION dao_end_calls() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    UPDATE tool_executions
    SET    status = 'failed',
           error = 'outcome unknown: attempt ' || old.attempt || ' of the task ended before the call did',
           completed_at = new.updated_at
    WHERE  task_id = new.id AND attempt IS NOT NULL AND status IN ('pending', 'running')
    AND    updated_at < '9999-12-31 23:59:59.999+00';
    RETURN NULL;
END;
$$;

CREATE TRIGGER tasks_attempt_ended
AFTER UPDATE OF status, attempt ON tasks
FOR EACH ROW
WHEN (old.status = 'running' AND (new.status <> 'running' OR new.attempt <> old.attempt))
EXECUTE FUNCTION dao_end_calls();
