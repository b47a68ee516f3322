-- Loses which call was which step of its task, and in which attempt.

DROP TRIGGER tasks_attempt_ended ON tasks;
DROP FUNCTION dao_end_calls();
DROP TRIGGER tool_executions_end_final ON tool_executions;
DROP TRIGGER tool_executions_attempt_fixed ON tool_executions;
DROP TRIGGER tool_executions_attempt_current ON tool_executions;
DROP FUNCTION dao_check_attempt();
DROP TRIGGER tool_executions_updated_at ON tool_executions;
DROP INDEX idx_tool_executions_without_task;
DROP INDEX idx_tool_executions_open;
DROP INDEX idx_tool_executions_step;

ALTER TABLE tool_executions
    DROP COLUMN attempt,
    DROP COLUMN step;

CREATE TRIGGER tool_executions_updated_at
BEFORE UPDATE OF
    id, task_id, tool_name, input, output, status, error, duration_ms, created_at, started_at,
    completed_at
ON tool_executions
FOR EACH ROW
WHEN (new.updated_at <= old.updated_at)
EXECUTE FUNCTION dao_updated_at();
