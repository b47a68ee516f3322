-- Tool executions: one row for each call of a tool, alone or on behalf of a task, with which it goes.
-- New table: locks nothing that exists and rewrites nothing. Its rollback drops the whole history of calls.

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

-- Each index holds the whole order of a listing; the last also serves the foreign key.
CREATE INDEX idx_tool_executions_tool_name  ON tool_executions (tool_name, created_at, id);
CREATE INDEX idx_tool_executions_status     ON tool_executions (status, created_at, id);
CREATE INDEX idx_tool_executions_created_at ON tool_executions (created_at, id);
CREATE INDEX idx_tool_executions_task_id    ON tool_executions (task_id, created_at, id) WHERE task_id IS NOT NULL;
