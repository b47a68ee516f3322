-- Loses no data: updated_at keeps its last value and is no longer kept up.

DROP TRIGGER configurations_updated_at;
DROP TRIGGER sessions_updated_at;
DROP TRIGGER tool_executions_updated_at;
DROP TRIGGER workflow_tasks_updated_at;
DROP TRIGGER workflows_updated_at;
DROP TRIGGER tasks_updated_at;
