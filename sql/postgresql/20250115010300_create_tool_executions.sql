-- Tool executions: one row for each call of a tool, alone or on behalf of a task, with which it goes.
-- New table: locks tasks against writes for a moment, rewrites nothing. Its rollback drops the whole history of calls.

CREATE TABLE tool_executions (
    id           text COLLATE "C" NOT NULL PRIMARY KEY,
    task_id      text COLLATE "C",
    tool_name    text COLLATE "C" NOT NULL,
    input        text             NOT NULL,
    output       text,
    status       text COLLATE "C" NOT NULL DEFAULT 'pending',
    error        text,
    duration_ms  bigint,
    created_at   timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),
    updated_at   timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),
    started_at   timestamptz(3),
    completed_at timestamptz(3),

    CONSTRAINT tool_executions_task_id_fkey
        FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT tool_executions_id_not_empty CHECK (id <> ''),
    CONSTRAINT tool_executions_tool_name_not_blank CHECK (btrim(tool_name,
        E'\t\n\x0b\f\r\x1c\x1d\x1e\x1f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009'
        '\u200a\u2028\u2029\u202f\u205f\u3000') <> ''),
    CONSTRAINT tool_executions_input_json CHECK (input IS JSON),
    CONSTRAINT tool_executions_output_json CHECK (output IS NULL OR output IS JSON),
    CONSTRAINT tool_executions_status_known CHECK (status IN ('pending', 'running', 'completed', 'failed', 'timeout')),
    CONSTRAINT tool_executions_duration_ms_not_negative CHECK (duration_ms >= 0),
    CONSTRAINT tool_executions_completed_at_when_finished
        CHECK ((status IN ('completed', 'failed', 'timeout')) = (completed_at IS NOT NULL)),
    CONSTRAINT tool_executions_created_at_utc_ms
        CHECK (created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00'),
    CONSTRAINT tool_executions_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00'),
    CONSTRAINT tool_executions_started_at_utc_ms
        CHECK (started_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00'),
    CONSTRAINT tool_executions_completed_at_utc_ms
        CHECK (completed_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00')
);

-- Each index holds the whole order of a listing; the last also serves the foreign key.
CREATE INDEX idx_tool_executions_tool_name  ON tool_executions (tool_name, created_at, id);
CREATE INDEX idx_tool_executions_status     ON tool_executions (status, created_at, id);
CREATE INDEX idx_tool_executions_created_at ON tool_executions (created_at, id);
CREATE INDEX idx_tool_executions_task_id    ON tool_executions (task_id, created_at, id) WHERE task_id IS NOT NULL;
