-- Tasks: the units of work that agents run.
-- New table: locks nothing that exists and rewrites nothing. Its rollback drops every task.
-- JSON is text: jsonb would change numbers, and forget the order of keys. COLLATE "C" orders by code points, as SQLite.

CREATE TABLE tasks (
    id             text COLLATE "C" NOT NULL PRIMARY KEY,
    title          text             NOT NULL,
    description    text,
    task_type      text COLLATE "C" NOT NULL,
    status         text COLLATE "C" NOT NULL DEFAULT 'pending',
    config         text             NOT NULL DEFAULT '{}',
    metadata       text,
    workspace_path text COLLATE "C",
    error          text,
    created_at     timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),
    updated_at     timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),
    started_at     timestamptz(3),
    completed_at   timestamptz(3),

    CONSTRAINT tasks_id_not_empty CHECK (id <> ''),
    CONSTRAINT tasks_title_not_blank CHECK (btrim(title,
        E'\t\n\x0b\f\r\x1c\x1d\x1e\x1f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009'
        '\u200a\u2028\u2029\u202f\u205f\u3000') <> ''),
    CONSTRAINT tasks_task_type_not_blank CHECK (btrim(task_type,
        E'\t\n\x0b\f\r\x1c\x1d\x1e\x1f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009'
        '\u200a\u2028\u2029\u202f\u205f\u3000') <> ''),
    CONSTRAINT tasks_status_known CHECK (status IN ('pending', 'running', 'completed', 'failed', 'cancelled')),
    CONSTRAINT tasks_config_json_object CHECK (config IS JSON OBJECT),
    CONSTRAINT tasks_metadata_json CHECK (metadata IS NULL OR metadata IS JSON),
    CONSTRAINT tasks_created_at_utc_ms
        CHECK (created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00'),
    CONSTRAINT tasks_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00'),
    CONSTRAINT tasks_started_at_utc_ms
        CHECK (started_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00'),
    CONSTRAINT tasks_completed_at_utc_ms
        CHECK (completed_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00')
);

-- Each index holds the whole order of a listing (… newest or oldest first), so that no listing sorts.
CREATE INDEX idx_tasks_status         ON tasks (status, created_at, id);
CREATE INDEX idx_tasks_task_type      ON tasks (task_type, created_at, id);
CREATE INDEX idx_tasks_created_at     ON tasks (created_at, id);
CREATE INDEX idx_tasks_workspace_path ON tasks (workspace_path, created_at, id) WHERE workspace_path IS NOT NULL;
