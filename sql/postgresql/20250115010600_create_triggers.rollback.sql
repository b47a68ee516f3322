-- Loses no data: updated_at keeps its last value and is no longer kept up.

DROP TRIGGER configurations_updated_at ON configurations;
DROP TRIGGER sessions_updated_at ON sessions;
DROP TRIGGER tool_executions_updated_at ON tool_executions;
DROP TRIGGER workflow_tasks_updated_at ON workflow_tasks;
DROP TRIGGER workflows_updated_at ON workflows;
DROP TRIGGER tasks_updated_at ON tasks;

DROP FUNCTION dao_updated_at();
