-- Triggers that keep updated_at: whatever changes a row moves it on, by a millisecond at the least, even when two
-- changes fall into one millisecond or the clock was set back. So updated_at is also the version of the row.
-- A statement that sets updated_at to a later time keeps its own; one that writes nothing but updated_at is let be.
-- updated_at is not among the columns watched: a trigger that its own update fires would nest without end under
-- recursive_triggers=ON. Locks and rewrites nothing. Its rollback loses no data; updated_at then stands still.

CREATE TRIGGER tasks_updated_at
AFTER UPDATE OF
    id, title, description, task_type, status, config, metadata, workspace_path, error, created_at,
    started_at, completed_at
ON tasks
FOR EACH ROW
WHEN new.updated_at <= old.updated_at
BEGIN
    UPDATE tasks
    SET    updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                            strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds'))
    WHERE  id = new.id;
END;

CREATE TRIGGER workflows_updated_at
AFTER UPDATE OF
    id, name, description, status, config, metadata, created_at
ON workflows
FOR EACH ROW
WHEN new.updated_at <= old.updated_at
BEGIN
    UPDATE workflows
    SET    updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                            strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds'))
    WHERE  id = new.id;
END;

CREATE TRIGGER workflow_tasks_updated_at
AFTER UPDATE OF
    workflow_id, task_id, sequence, config, created_at
ON workflow_tasks
FOR EACH ROW
WHEN new.updated_at <= old.updated_at
BEGIN
    UPDATE workflow_tasks
    SET    updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                            strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds'))
    WHERE  workflow_id = new.workflow_id AND task_id = new.task_id;
END;

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

CREATE TRIGGER sessions_updated_at
AFTER UPDATE OF
    id, client_id, is_active, last_heartbeat, metadata, created_at
ON sessions
FOR EACH ROW
WHEN new.updated_at <= old.updated_at
BEGIN
    UPDATE sessions
    SET    updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                            strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds'))
    WHERE  id = new.id;
END;

CREATE TRIGGER configurations_updated_at
AFTER UPDATE OF
    key, value
ON configurations
FOR EACH ROW
WHEN new.updated_at <= old.updated_at
BEGIN
    UPDATE configurations
    SET    updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                            strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds'))
    WHERE  key = new.key;
END;
