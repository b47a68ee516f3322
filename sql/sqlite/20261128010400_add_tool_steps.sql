-- Steps: a call may say which step of its task it is, and of which attempt. One completed call stands for a step for
-- ever. A call with an attempt is taken only from the attempt that has its task, and it is open only as long as that
-- has it: a worker that has lost its task can neither begin a call nor end one, whatever program it writes with.
-- Locks the database while the table is read, rewrites nothing. Its rollback loses which call was which step.

ALTER TABLE tool_executions ADD COLUMN step TEXT
    CONSTRAINT tool_executions_step_not_empty CHECK (step <> '');
ALTER TABLE tool_executions ADD COLUMN attempt INTEGER
    CONSTRAINT tool_executions_attempt_positive CHECK (attempt > 0)
    CONSTRAINT tool_executions_step_of_attempt CHECK (step IS NULL OR attempt IS NOT NULL)
    CONSTRAINT tool_executions_attempt_of_task CHECK (attempt IS NULL OR task_id IS NOT NULL);

CREATE UNIQUE INDEX idx_tool_executions_step ON tool_executions (task_id, step)
    WHERE step IS NOT NULL AND status = 'completed';
CREATE INDEX idx_tool_executions_open ON tool_executions (task_id)
    WHERE attempt IS NOT NULL AND status IN ('pending', 'running');
-- Those that no task takes with it when it is pruned.
CREATE INDEX idx_tool_executions_without_task ON tool_executions (created_at, id) WHERE task_id IS NULL;

DROP TRIGGER tool_executions_updated_at;

CREATE TRIGGER tool_executions_updated_at
AFTER UPDATE OF
    id, task_id, tool_name, input, output, status, error, duration_ms, created_at, started_at,
    completed_at, step, attempt
ON tool_executions
FOR EACH ROW
WHEN new.updated_at <= old.updated_at
BEGIN
    UPDATE tool_executions
    SET    updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                            strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds'))
    WHERE  id = new.id;
END;

CREATE TRIGGER tool_executions_attempt_current
BEFORE INSERT ON tool_executions
FOR EACH ROW
WHEN new.attempt IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM tasks WHERE id = new.task_id AND attempt = new.attempt AND status = 'running'
)
BEGIN
    SELECT raise(ABORT, 'tool_executions_attempt_current');
END;

CREATE TRIGGER tool_executions_attempt_fixed
BEFORE UPDATE OF task_id, step, attempt ON tool_executions
FOR EACH ROW
WHEN new.attempt IS NOT old.attempt
OR   old.attempt IS NOT NULL AND (new.task_id IS NOT old.task_id OR new.step IS NOT old.step)
BEGIN
    SELECT raise(ABORT, 'tool_executions_attempt_fixed');
END;

CREATE TRIGGER tool_executions_end_final
BEFORE UPDATE OF status, output, error ON tool_executions
FOR EACH ROW
WHEN old.attempt IS NOT NULL AND (old.status = 'completed' OR old.status = 'failed' OR old.status = 'timeout')
AND  (new.status <> old.status OR new.output IS NOT old.output OR new.error IS NOT old.error)
BEGIN
    SELECT raise(ABORT, 'tool_executions_end_final');
END;

-- However an attempt ends, what it called and did not end may have happened or not. A call that can have no later
-- version must not keep the task from ending.
CREATE TRIGGER tasks_attempt_ended
AFTER UPDATE OF status, attempt ON tasks
FOR EACH ROW
WHEN old.status = 'running' AND (new.status <> 'running' OR new.attempt <> old.attempt)
AND  EXISTS (
    SELECT 1 FROM tool_executions WHERE task_id = new.id AND attempt IS NOT NULL AND status IN ('pending', 'running')
)
BEGIN
    UPDATE tool_executions
    SET    status = 'failed',
           error = 'outcome unknown: attempt ' || old.attempt || ' of the task ended before the call did',
           completed_at = CASE WHEN new.updated_at > old.updated_at THEN new.updated_at
                               ELSE max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                                        strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds')) END
    WHERE  task_id = new.id AND attempt IS NOT NULL AND status IN ('pending', 'running')
    AND    updated_at < '9999-12-31T23:59:59.999Z';
END;
