-- Loses which call was which step of its task, and in which attempt.

DROP TRIGGER tasks_attempt_ended;
DROP TRIGGER tool_executions_end_final;
DROP TRIGGER tool_executions_attempt_fixed;
DROP TRIGGER tool_executions_attempt_current;
DROP TRIGGER tool_executions_updated_at;
DROP INDEX idx_tool_executions_without_task;
DROP INDEX idx_tool_executions_open;
DROP INDEX idx_tool_executions_step;

ALTER TABLE tool_executions DROP COLUMN attempt;
ALTER TABLE tool_executions DROP COLUMN step;

CREATE TRIGGER tool_executions_updated_at
AFTER UPDATE OF
    id, task_id, tool_name, input, output, status, error, duration_ms, created_at, started_at,
    completed_at
ON tool_executions
FOR EACH ROW
WHEN new.updated_at <= old.updated_at
BEGIN
    UPDATE tool_executions
    SET    updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                            strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds'))
    WHERE  id = new.id;
END;
