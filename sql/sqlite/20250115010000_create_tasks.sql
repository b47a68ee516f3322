-- Tasks: the units of work that agents run.
-- New table: locks nothing that exists and rewrites nothing. Its rollback drops every task.

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

-- Each index holds the whole order of a listing (… newest or oldest first), so that no listing sorts.
CREATE INDEX idx_tasks_status         ON tasks (status, created_at, id);
CREATE INDEX idx_tasks_task_type      ON tasks (task_type, created_at, id);
CREATE INDEX idx_tasks_created_at     ON tasks (created_at, id);
CREATE INDEX idx_tasks_workspace_path ON tasks (workspace_path, created_at, id) WHERE workspace_path IS NOT NULL;
