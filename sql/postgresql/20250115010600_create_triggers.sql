-- Triggers that keep updated_at: whatever changes a row moves it on, by a millisecond at the least, even when two
-- changes fall into one millisecond or the clock was set back. So updated_at is also the version of the row.
-- A statement that sets updated_at to a later time keeps its own; one that writes nothing but updated_at is let be:
-- it is not among the columns watched. They fire before the row is written, so that RETURNING shows what is stored.
-- Locks each table against writes for a moment, rewrites nothing. Its rollback loses no data; updated_at then stands
-- still.

CREATE FUNCTION dao_updated_at() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    -- clock_timestamp(), as now() is when the transaction began; date_trunc, as the column's type would round into the
    -- future. After the last millisecond that there is comes none: NULL, which the column refuses.
    new.updated_at := nullif(greatest(date_trunc('milliseconds', clock_timestamp()),
                                      old.updated_at + interval '1 millisecond'),
                             timestamptz '10000-01-01 00:00:00+00');
    RETURN new;
END;
$$;

CREATE TRIGGER tasks_updated_at
BEFORE UPDATE OF
    id, title, description, task_type, status, config, metadata, workspace_path, error, created_at,
    started_at, completed_at
ON tasks
FOR EACH ROW
WHEN (new.updated_at <= old.updated_at)
EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER workflows_updated_at
BEFORE UPDATE OF
    id, name, description, status, config, metadata, created_at
ON workflows
FOR EACH ROW
WHEN (new.updated_at <= old.updated_at)
EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER workflow_tasks_updated_at
BEFORE UPDATE OF
    workflow_id, task_id, sequence, config, created_at
ON workflow_tasks
FOR EACH ROW
WHEN (new.updated_at <= old.updated_at)
EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER tool_executions_updated_at
BEFORE UPDATE OF
    id, task_id, tool_name, input, output, status, error, duration_ms, created_at, started_at,
    completed_at
ON tool_executions
FOR EACH ROW
WHEN (new.updated_at <= old.updated_at)
EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER sessions_updated_at
BEFORE UPDATE OF
    id, client_id, is_active, last_heartbeat, metadata, created_at
ON sessions
FOR EACH ROW
WHEN (new.updated_at <= old.updated_at)
EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER configurations_updated_at
BEFORE UPDATE OF
    key, value
ON configurations
FOR EACH ROW
WHEN (new.updated_at <= old.updated_at)
EXECUTE FUNCTION dao_updated_at();
