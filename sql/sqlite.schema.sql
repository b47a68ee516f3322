-- The schema that the migrations make, up to and with 20250115010600_create_triggers.
-- Written by `dao schema dump`: do not edit it, write a migration.

CREATE TABLE configurations (
    key        TEXT NOT NULL PRIMARY KEY,
    value      TEXT NOT NULL,
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),

    CONSTRAINT configurations_key_not_empty CHECK (key <> ''),
    CONSTRAINT configurations_value_json CHECK (json_valid(value)),
    CONSTRAINT configurations_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001' AND ':' AND updated_at IS strftime('%Y-%m-%dT%H:%M:%fZ', updated_at))
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    id             TEXT    NOT NULL PRIMARY KEY,
    client_id      TEXT    NOT NULL,
    is_active      INTEGER NOT NULL DEFAULT 1,
    last_heartbeat TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    metadata       TEXT,
    created_at     TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at     TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),

    CONSTRAINT sessions_id_not_empty CHECK (id <> ''),
    CONSTRAINT sessions_client_id_not_blank CHECK (trim(client_id, char(
        9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 133, 160, 5760, 8192, 8193, 8194, 8195, 8196, 8197, 8198, 8199, 8200,
        8201, 8202, 8232, 8233, 8239, 8287, 12288)) <> ''),
    CONSTRAINT sessions_is_active_boolean CHECK (is_active IN (0, 1)),
    CONSTRAINT sessions_metadata_json CHECK (metadata IS NULL OR json_valid(metadata)),
    CONSTRAINT sessions_last_heartbeat_utc_ms
        CHECK (last_heartbeat BETWEEN '0001' AND ':' AND last_heartbeat IS strftime('%Y-%m-%dT%H:%M:%fZ', last_heartbeat)),
    CONSTRAINT sessions_created_at_utc_ms
        CHECK (created_at BETWEEN '0001' AND ':' AND created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at)),
    CONSTRAINT sessions_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001' AND ':' AND updated_at IS strftime('%Y-%m-%dT%H:%M:%fZ', updated_at))
) STRICT;

CREATE TABLE tasks (
    id             TEXT NOT NULL PRIMARY KEY,
    title          TEXT NOT NULL,
    description    TEXT,
    task_type      TEXT NOT NULL,
    status         TEXT NOT NULL DEFAULT 'pending',
    config         TEXT NOT NULL DEFAULT '{}',
    metadata       TEXT,
    workspace_path TEXT,
    error          TEXT,
    created_at     TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at     TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    started_at     TEXT,
    completed_at   TEXT,

    CONSTRAINT tasks_id_not_empty CHECK (id <> ''),
    CONSTRAINT tasks_title_not_blank CHECK (trim(title, char(
        9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 133, 160, 5760, 8192, 8193, 8194, 8195, 8196, 8197, 8198, 8199, 8200,
        8201, 8202, 8232, 8233, 8239, 8287, 12288)) <> ''),
    CONSTRAINT tasks_task_type_not_blank CHECK (trim(task_type, char(
        9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 133, 160, 5760, 8192, 8193, 8194, 8195, 8196, 8197, 8198, 8199, 8200,
        8201, 8202, 8232, 8233, 8239, 8287, 12288)) <> ''),
    CONSTRAINT tasks_status_known CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    CONSTRAINT tasks_config_json_object CHECK (json_valid(config) AND json_type(config) = 'object'),
    CONSTRAINT tasks_metadata_json CHECK (metadata IS NULL OR json_valid(metadata)),
    CONSTRAINT tasks_created_at_utc_ms
        CHECK (created_at BETWEEN '0001' AND ':' AND created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at)),
    CONSTRAINT tasks_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001' AND ':' AND updated_at IS strftime('%Y-%m-%dT%H:%M:%fZ', updated_at)),
    CONSTRAINT tasks_started_at_utc_ms
        CHECK (started_at BETWEEN '0001' AND ':' AND started_at IS strftime('%Y-%m-%dT%H:%M:%fZ', started_at)),
    CONSTRAINT tasks_completed_at_utc_ms
        CHECK (completed_at BETWEEN '0001' AND ':' AND completed_at IS strftime('%Y-%m-%dT%H:%M:%fZ', completed_at))
) STRICT;

CREATE TABLE tool_executions (
    id           TEXT    NOT NULL PRIMARY KEY,
    task_id      TEXT,
    tool_name    TEXT    NOT NULL,
    input        TEXT    NOT NULL,
    output       TEXT,
    status       TEXT    NOT NULL DEFAULT 'pending',
    error        TEXT,
    duration_ms  INTEGER,
    created_at   TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at   TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    started_at   TEXT,
    completed_at TEXT,

    CONSTRAINT tool_executions_task_id_fkey
        FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT tool_executions_id_not_empty CHECK (id <> ''),
    CONSTRAINT tool_executions_tool_name_not_blank CHECK (trim(tool_name, char(
        9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 133, 160, 5760, 8192, 8193, 8194, 8195, 8196, 8197, 8198, 8199, 8200,
        8201, 8202, 8232, 8233, 8239, 8287, 12288)) <> ''),
    CONSTRAINT tool_executions_input_json CHECK (json_valid(input)),
    CONSTRAINT tool_executions_output_json CHECK (output IS NULL OR json_valid(output)),
    CONSTRAINT tool_executions_status_known CHECK (status IN ('pending', 'running', 'completed', 'failed', 'timeout')),
    CONSTRAINT tool_executions_duration_ms_not_negative CHECK (duration_ms >= 0),
    CONSTRAINT tool_executions_completed_at_when_finished
        CHECK ((status IN ('completed', 'failed', 'timeout')) = (completed_at IS NOT NULL)),
    CONSTRAINT tool_executions_created_at_utc_ms
        CHECK (created_at BETWEEN '0001' AND ':' AND created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at)),
    CONSTRAINT tool_executions_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001' AND ':' AND updated_at IS strftime('%Y-%m-%dT%H:%M:%fZ', updated_at)),
    CONSTRAINT tool_executions_started_at_utc_ms
        CHECK (started_at BETWEEN '0001' AND ':' AND started_at IS strftime('%Y-%m-%dT%H:%M:%fZ', started_at)),
    CONSTRAINT tool_executions_completed_at_utc_ms
        CHECK (completed_at BETWEEN '0001' AND ':' AND completed_at IS strftime('%Y-%m-%dT%H:%M:%fZ', completed_at))
) STRICT;

CREATE TABLE workflow_tasks (
    workflow_id TEXT    NOT NULL,
    task_id     TEXT    NOT NULL,
    sequence    INTEGER NOT NULL,
    config      TEXT    NOT NULL DEFAULT '{}',
    created_at  TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at  TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),

    PRIMARY KEY (workflow_id, task_id),
    CONSTRAINT workflow_tasks_workflow_id_fkey
        FOREIGN KEY (workflow_id) REFERENCES workflows (id) ON DELETE CASCADE,
    CONSTRAINT workflow_tasks_task_id_fkey
        FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT workflow_tasks_sequence_not_negative CHECK (sequence >= 0),
    CONSTRAINT workflow_tasks_config_json_object CHECK (json_valid(config) AND json_type(config) = 'object'),
    CONSTRAINT workflow_tasks_created_at_utc_ms
        CHECK (created_at BETWEEN '0001' AND ':' AND created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at)),
    CONSTRAINT workflow_tasks_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001' AND ':' AND updated_at IS strftime('%Y-%m-%dT%H:%M:%fZ', updated_at))
) STRICT, WITHOUT ROWID;

CREATE TABLE workflows (
    id          TEXT NOT NULL PRIMARY KEY,
    name        TEXT NOT NULL,
    description TEXT,
    status      TEXT NOT NULL DEFAULT 'draft',
    config      TEXT NOT NULL DEFAULT '{}',
    metadata    TEXT,
    created_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at  TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),

    CONSTRAINT workflows_id_not_empty CHECK (id <> ''),
    CONSTRAINT workflows_name_not_blank CHECK (trim(name, char(
        9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 133, 160, 5760, 8192, 8193, 8194, 8195, 8196, 8197, 8198, 8199, 8200,
        8201, 8202, 8232, 8233, 8239, 8287, 12288)) <> ''),
    CONSTRAINT workflows_status_known CHECK (status IN ('draft', 'active', 'paused', 'archived')),
    CONSTRAINT workflows_config_json_object CHECK (json_valid(config) AND json_type(config) = 'object'),
    CONSTRAINT workflows_metadata_json CHECK (metadata IS NULL OR json_valid(metadata)),
    CONSTRAINT workflows_created_at_utc_ms
        CHECK (created_at BETWEEN '0001' AND ':' AND created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at)),
    CONSTRAINT workflows_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001' AND ':' AND updated_at IS strftime('%Y-%m-%dT%H:%M:%fZ', updated_at))
) STRICT;

CREATE INDEX idx_sessions_client_id      ON sessions (client_id, is_active, created_at, id);

CREATE INDEX idx_sessions_is_active      ON sessions (is_active, created_at, id);

CREATE INDEX idx_sessions_last_heartbeat ON sessions (is_active, last_heartbeat, id);

CREATE INDEX idx_tasks_created_at     ON tasks (created_at, id);

CREATE INDEX idx_tasks_status         ON tasks (status, created_at, id);

CREATE INDEX idx_tasks_task_type      ON tasks (task_type, created_at, id);

CREATE INDEX idx_tasks_workspace_path ON tasks (workspace_path, created_at, id) WHERE workspace_path IS NOT NULL;

CREATE INDEX idx_tool_executions_created_at ON tool_executions (created_at, id);

CREATE INDEX idx_tool_executions_status     ON tool_executions (status, created_at, id);

CREATE INDEX idx_tool_executions_task_id    ON tool_executions (task_id, created_at, id) WHERE task_id IS NOT NULL;

CREATE INDEX idx_tool_executions_tool_name  ON tool_executions (tool_name, created_at, id);

CREATE INDEX idx_workflow_tasks_sequence ON workflow_tasks (workflow_id, sequence, task_id);

CREATE INDEX idx_workflow_tasks_task_id  ON workflow_tasks (task_id, workflow_id);

CREATE INDEX idx_workflows_created_at ON workflows (created_at, id);

CREATE INDEX idx_workflows_status     ON workflows (status, created_at, id);

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
