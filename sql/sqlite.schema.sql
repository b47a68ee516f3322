-- The schema that the migrations make, up to and with 20261128010500_create_task_views.
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

CREATE TABLE task_dependencies (
    task_id    TEXT NOT NULL,
    depends_on TEXT NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),

    PRIMARY KEY (task_id, depends_on),
    CONSTRAINT task_dependencies_task_id_fkey
        FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT task_dependencies_depends_on_fkey
        FOREIGN KEY (depends_on) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT task_dependencies_not_itself CHECK (task_id <> depends_on),
    CONSTRAINT task_dependencies_created_at_utc_ms
        CHECK (created_at BETWEEN '0001' AND ':' AND created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at))
) STRICT, WITHOUT ROWID;

CREATE TABLE task_events (
    seq         INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    task_id     TEXT    NOT NULL,
    attempt     INTEGER NOT NULL,
    from_status TEXT,
    to_status   TEXT,
    worker      TEXT,
    error       TEXT,
    at          TEXT    NOT NULL,
    previous    TEXT    NOT NULL,

    CONSTRAINT task_events_seq_positive CHECK (seq > 0),
    CONSTRAINT task_events_attempt_not_negative CHECK (attempt >= 0),
    CONSTRAINT task_events_from_status_known
        CHECK (from_status = 'pending' OR from_status = 'running' OR from_status = 'completed' OR from_status = 'failed'
               OR from_status = 'cancelled'),
    CONSTRAINT task_events_to_status_known
        CHECK (to_status = 'pending' OR to_status = 'running' OR to_status = 'completed' OR to_status = 'failed'
               OR to_status = 'cancelled'),
    CONSTRAINT task_events_at_utc_ms CHECK (at BETWEEN '0001' AND ':' AND at IS strftime('%Y-%m-%dT%H:%M:%fZ', at)),
    CONSTRAINT task_events_previous_json_object CHECK (json_valid(previous) AND json_type(previous) = 'object')
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
    completed_at   TEXT, priority INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_priority_range CHECK (priority BETWEEN 0 AND 9), run_at TEXT NOT NULL DEFAULT '0001-01-01T00:00:00.000Z'
    CONSTRAINT tasks_run_at_utc_ms
        CHECK (run_at BETWEEN '0001' AND ':' AND run_at IS strftime('%Y-%m-%dT%H:%M:%fZ', run_at)), attempt INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_attempt_not_negative CHECK (attempt >= 0), worker TEXT
    CONSTRAINT tasks_worker_not_empty CHECK (worker <> ''), lease_expires_at TEXT
    CONSTRAINT tasks_lease_expires_at_utc_ms
        CHECK (lease_expires_at BETWEEN '0001' AND ':'
               AND lease_expires_at IS strftime('%Y-%m-%dT%H:%M:%fZ', lease_expires_at))
    CONSTRAINT tasks_lease_when_running CHECK (lease_expires_at IS NULL OR status = 'running')
    CONSTRAINT tasks_lease_of_worker CHECK ((lease_expires_at IS NULL) = (worker IS NULL)), failures INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_failures_not_negative CHECK (failures >= 0), retries INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_retries_not_negative CHECK (retries >= 0), retry_delay_ms INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_retry_delay_ms_range CHECK (retry_delay_ms BETWEEN 0 AND 86400000), dedup_key TEXT
    CONSTRAINT tasks_dedup_key_not_empty CHECK (dedup_key <> ''), waiting_for INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_waiting_for_not_negative CHECK (waiting_for >= 0), paused_by INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_paused_by_not_negative CHECK (paused_by >= 0),

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
    completed_at TEXT, step TEXT
    CONSTRAINT tool_executions_step_not_empty CHECK (step <> ''), attempt INTEGER
    CONSTRAINT tool_executions_attempt_positive CHECK (attempt > 0)
    CONSTRAINT tool_executions_step_of_attempt CHECK (step IS NULL OR attempt IS NOT NULL)
    CONSTRAINT tool_executions_attempt_of_task CHECK (attempt IS NULL OR task_id IS NOT NULL),

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

CREATE INDEX idx_task_dependencies_depends_on ON task_dependencies (depends_on, task_id);

CREATE INDEX idx_task_events_at      ON task_events (at, seq);

CREATE INDEX idx_task_events_task_id ON task_events (task_id, seq);

CREATE INDEX idx_tasks_claim ON tasks (status, priority DESC, run_at, id)
    WHERE status = 'pending' AND waiting_for = 0 AND paused_by = 0;

CREATE INDEX idx_tasks_claim_type ON tasks (status, task_type, priority DESC, run_at, id)
    WHERE status = 'pending' AND waiting_for = 0 AND paused_by = 0;

CREATE INDEX idx_tasks_created_at     ON tasks (created_at, id);

CREATE UNIQUE INDEX idx_tasks_dedup_key ON tasks (dedup_key)
    WHERE dedup_key IS NOT NULL AND status IN ('pending', 'running');

CREATE INDEX idx_tasks_ended ON tasks (status, coalesce(completed_at, created_at), id)
    WHERE status <> 'pending' AND status <> 'running';

CREATE INDEX idx_tasks_lease_expires_at ON tasks (lease_expires_at, id) WHERE lease_expires_at IS NOT NULL;

CREATE INDEX idx_tasks_status         ON tasks (status, created_at, id);

CREATE INDEX idx_tasks_task_type      ON tasks (task_type, created_at, id);

CREATE INDEX idx_tasks_workspace_path ON tasks (workspace_path, created_at, id) WHERE workspace_path IS NOT NULL;

CREATE INDEX idx_tool_executions_created_at ON tool_executions (created_at, id);

CREATE INDEX idx_tool_executions_open ON tool_executions (task_id)
    WHERE attempt IS NOT NULL AND status IN ('pending', 'running');

CREATE INDEX idx_tool_executions_status     ON tool_executions (status, created_at, id);

CREATE UNIQUE INDEX idx_tool_executions_step ON tool_executions (task_id, step)
    WHERE step IS NOT NULL AND status = 'completed';

CREATE INDEX idx_tool_executions_task_id    ON tool_executions (task_id, created_at, id) WHERE task_id IS NOT NULL;

CREATE INDEX idx_tool_executions_tool_name  ON tool_executions (tool_name, created_at, id);

CREATE INDEX idx_tool_executions_without_task ON tool_executions (created_at, id) WHERE task_id IS NULL;

CREATE INDEX idx_workflow_tasks_sequence ON workflow_tasks (workflow_id, sequence, task_id);

CREATE INDEX idx_workflow_tasks_task_id  ON workflow_tasks (task_id, workflow_id);

CREATE INDEX idx_workflows_created_at ON workflows (created_at, id);

CREATE INDEX idx_workflows_status     ON workflows (status, created_at, id);

CREATE VIEW queue_overview AS
SELECT task_type,
       count(*) FILTER (WHERE phase = 'ready') AS ready,
       count(*) FILTER (WHERE phase = 'scheduled') AS scheduled,
       count(*) FILTER (WHERE phase = 'backing off') AS backing_off,
       count(*) FILTER (WHERE phase = 'blocked') AS blocked,
       count(*) FILTER (WHERE phase = 'paused') AS paused,
       count(*) FILTER (WHERE phase = 'running') AS running,
       count(*) FILTER (WHERE phase = 'lost') AS lost,
       count(*) FILTER (WHERE phase = 'failed') AS failed,
       min(CASE WHEN phase = 'ready' THEN max(run_at, created_at) END) AS oldest_ready
FROM   task_overview
GROUP  BY task_type;

CREATE VIEW task_overview AS
SELECT id, title, task_type, status,
       CASE WHEN status = 'pending' AND waiting_for > 0 THEN 'blocked'
            WHEN status = 'pending' AND paused_by > 0 THEN 'paused'
            WHEN status = 'pending' AND run_at > strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN
                CASE WHEN failures > 0 THEN 'backing off' ELSE 'scheduled' END
            WHEN status = 'pending' THEN 'ready'
            WHEN status = 'running' AND lease_expires_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now') THEN 'lost'
            ELSE status END AS phase,
       round((julianday('now') - julianday(created_at)) * 86400.0, 3) AS age_seconds,
       priority, run_at, attempt, failures, retries, worker, lease_expires_at, waiting_for, paused_by, error,
       created_at, started_at, completed_at
FROM   tasks;

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

CREATE TRIGGER task_dependencies_added
AFTER INSERT ON task_dependencies
FOR EACH ROW
WHEN (SELECT status FROM tasks WHERE id = new.depends_on) <> 'completed'
BEGIN
    UPDATE tasks SET waiting_for = waiting_for + 1 WHERE id = new.task_id;
END;

CREATE TRIGGER task_dependencies_no_cycle
BEFORE INSERT ON task_dependencies
FOR EACH ROW
WHEN new.task_id <> new.depends_on
AND  EXISTS (SELECT 1 FROM task_dependencies WHERE depends_on = new.task_id)
AND  new.task_id IN (
    WITH RECURSIVE upstream (id) AS (
        VALUES (new.depends_on)
        UNION
        SELECT task_dependencies.depends_on
        FROM   upstream
        JOIN   task_dependencies ON task_dependencies.task_id = upstream.id
    )
    SELECT id FROM upstream
)
BEGIN
    SELECT raise(ABORT, 'task_dependencies_no_cycle');
END;

CREATE TRIGGER task_dependencies_removed
AFTER DELETE ON task_dependencies
FOR EACH ROW
WHEN (SELECT status FROM tasks WHERE id = old.depends_on) IS NOT 'completed'
BEGIN
    UPDATE tasks SET waiting_for = waiting_for - 1 WHERE id = old.task_id;
END;

CREATE TRIGGER task_dependencies_unchangeable
BEFORE UPDATE OF task_id, depends_on ON task_dependencies
FOR EACH ROW
BEGIN
    SELECT raise(ABORT, 'task_dependencies_unchangeable');
END;

CREATE TRIGGER task_events_changed
AFTER UPDATE OF
    id, title, description, task_type, status, config, metadata, workspace_path, error, created_at,
    started_at, completed_at, priority, run_at, attempt, worker, failures, retries, retry_delay_ms, dedup_key,
    waiting_for, paused_by
ON tasks
FOR EACH ROW
WHEN NOT EXISTS (SELECT 1 FROM configurations WHERE key = 'task_events' AND value = 'false')
BEGIN
    INSERT INTO task_events (task_id, attempt, from_status, to_status, worker, error, at, previous)
    VALUES (new.id, new.attempt,
        CASE WHEN old.status = 'pending' OR old.status = 'running' OR old.status = 'completed' OR old.status = 'failed'
                  OR old.status = 'cancelled' THEN old.status END,
        new.status, coalesce(new.worker, old.worker), new.error,
        CASE WHEN new.updated_at > old.updated_at THEN new.updated_at
             ELSE coalesce(max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                               strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds')),
                           old.updated_at) END,
        '{' || substr(
            iif(new.title IS old.title, '', ',"title":' || json_quote(old.title))
         || iif(new.description IS old.description, '', ',"description":' || json_quote(old.description))
         || iif(new.task_type IS old.task_type, '', ',"task_type":' || json_quote(old.task_type))
         || iif(new.status IS old.status, '', ',"status":' || json_quote(old.status))
         || iif(new.config IS old.config, '', ',"config":' || json_quote(old.config))
         || iif(new.metadata IS old.metadata, '', ',"metadata":' || json_quote(old.metadata))
         || iif(new.workspace_path IS old.workspace_path, '', ',"workspace_path":' || json_quote(old.workspace_path))
         || iif(new.error IS old.error, '', ',"error":' || json_quote(old.error))
         || iif(new.created_at IS old.created_at, '', ',"created_at":' || json_quote(old.created_at))
         || ',"updated_at":' || json_quote(old.updated_at)
         || iif(new.started_at IS old.started_at, '', ',"started_at":' || json_quote(old.started_at))
         || iif(new.completed_at IS old.completed_at, '', ',"completed_at":' || json_quote(old.completed_at))
         || iif(new.priority IS old.priority, '', ',"priority":' || json_quote(old.priority))
         || iif(new.run_at IS old.run_at, '', ',"run_at":' || json_quote(old.run_at))
         || iif(new.attempt IS old.attempt, '', ',"attempt":' || json_quote(old.attempt))
         || iif(new.worker IS old.worker, '', ',"worker":' || json_quote(old.worker))
         || iif(new.lease_expires_at IS old.lease_expires_at, '',
                ',"lease_expires_at":' || json_quote(old.lease_expires_at))
         || iif(new.failures IS old.failures, '', ',"failures":' || json_quote(old.failures))
         || iif(new.retries IS old.retries, '', ',"retries":' || json_quote(old.retries))
         || iif(new.retry_delay_ms IS old.retry_delay_ms, '', ',"retry_delay_ms":' || json_quote(old.retry_delay_ms))
         || iif(new.dedup_key IS old.dedup_key, '', ',"dedup_key":' || json_quote(old.dedup_key))
         || iif(new.waiting_for IS old.waiting_for, '', ',"waiting_for":' || json_quote(old.waiting_for))
         || iif(new.paused_by IS old.paused_by, '', ',"paused_by":' || json_quote(old.paused_by)),
            2) || '}');
END;

CREATE TRIGGER task_events_created
AFTER INSERT ON tasks
FOR EACH ROW
WHEN NOT EXISTS (SELECT 1 FROM configurations WHERE key = 'task_events' AND value = 'false')
BEGIN
    INSERT INTO task_events (task_id, attempt, from_status, to_status, worker, error, at, previous)
    VALUES (new.id, new.attempt, NULL, new.status, new.worker, new.error, new.updated_at, '{}');
END;

CREATE TRIGGER task_events_deleted
AFTER DELETE ON tasks
FOR EACH ROW
WHEN NOT EXISTS (SELECT 1 FROM configurations WHERE key = 'task_events' AND value = 'false')
BEGIN
    INSERT INTO task_events (task_id, attempt, from_status, to_status, worker, error, at, previous)
    VALUES (old.id, old.attempt,
            CASE WHEN old.status = 'pending' OR old.status = 'running' OR old.status = 'completed'
                      OR old.status = 'failed' OR old.status = 'cancelled' THEN old.status END,
            NULL, old.worker, old.error,
            coalesce(max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                         strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds')), old.updated_at),
            json_object(
                'title', old.title, 'description', old.description, 'task_type', old.task_type,
                'status', old.status, 'config', old.config, 'metadata', old.metadata,
                'workspace_path', old.workspace_path, 'error', old.error, 'created_at', old.created_at,
                'updated_at', old.updated_at, 'started_at', old.started_at, 'completed_at', old.completed_at,
                'priority', old.priority,
                'run_at', old.run_at, 'attempt', old.attempt, 'worker', old.worker,
                'lease_expires_at', old.lease_expires_at, 'failures', old.failures, 'retries', old.retries,
                'retry_delay_ms', old.retry_delay_ms, 'dedup_key', old.dedup_key,
                'waiting_for', old.waiting_for, 'paused_by', old.paused_by));
END;

CREATE TRIGGER tasks_attempt_ended
AFTER UPDATE OF status, attempt ON tasks
FOR EACH ROW
WHEN old.status = 'running' AND (new.status <> 'running' OR new.attempt <> old.attempt)
AND  EXISTS (
    SELECT 1 FROM tool_executions WHERE task_id = new.id AND attempt IS NOT NULL AND status IN ('pending', 'running')
)
BEGIN
    UPDATE tool_executions
    SET    status = 'failed',
           error = 'outcome unknown: attempt ' || old.attempt || ' of the task ended before the call did',
           completed_at = CASE WHEN new.updated_at > old.updated_at THEN new.updated_at
                               ELSE max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                                        strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds')) END
    WHERE  task_id = new.id AND attempt IS NOT NULL AND status IN ('pending', 'running')
    AND    updated_at < '9999-12-31T23:59:59.999Z';
END;

CREATE TRIGGER tasks_attempt_increases
BEFORE UPDATE OF status, attempt ON tasks
FOR EACH ROW
WHEN new.attempt < old.attempt
OR   new.status = 'running' AND old.status <> 'running' AND new.attempt = old.attempt
BEGIN
    SELECT raise(ABORT, 'tasks_attempt_increases');
END;

CREATE TRIGGER tasks_counters_begin_at_zero
AFTER INSERT ON tasks
FOR EACH ROW
WHEN new.waiting_for <> 0 OR new.paused_by <> 0
BEGIN
    SELECT raise(ABORT, 'tasks_counters_begin_at_zero');
END;

CREATE TRIGGER tasks_dependencies_completed
AFTER UPDATE OF status ON tasks
FOR EACH ROW
WHEN (old.status = 'completed') <> (new.status = 'completed')
AND  EXISTS (SELECT 1 FROM task_dependencies WHERE depends_on = new.id)
BEGIN
    UPDATE tasks
    SET    waiting_for = waiting_for + CASE WHEN new.status = 'completed' THEN -1 ELSE 1 END
    WHERE  id IN (SELECT task_id FROM task_dependencies WHERE depends_on = new.id);
END;

CREATE TRIGGER tasks_dependencies_deleted
BEFORE DELETE ON tasks
FOR EACH ROW
WHEN old.status = 'completed'
BEGIN
    DELETE FROM task_dependencies WHERE depends_on = old.id;
END;

CREATE TRIGGER tasks_status_transition
BEFORE UPDATE OF status ON tasks
FOR EACH ROW
WHEN new.status <> old.status AND new.status <> 'pending'
AND  (old.status = 'completed' OR old.status = 'failed' OR old.status = 'cancelled')
OR   old.status = 'pending' AND old.attempt > 0 AND new.status IN ('completed', 'failed')
BEGIN
    SELECT raise(ABORT, 'tasks_status_transition');
END;

CREATE TRIGGER tasks_updated_at
AFTER UPDATE OF
    id, title, description, task_type, status, config, metadata, workspace_path, error, created_at,
    started_at, completed_at, priority, run_at, attempt, worker, failures, retries, retry_delay_ms, dedup_key,
    waiting_for, paused_by
ON tasks
FOR EACH ROW
WHEN new.updated_at <= old.updated_at
BEGIN
    UPDATE tasks
    SET    updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                            strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds'))
    WHERE  id = new.id;
END;

CREATE TRIGGER tool_executions_attempt_current
BEFORE INSERT ON tool_executions
FOR EACH ROW
WHEN new.attempt IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM tasks WHERE id = new.task_id AND attempt = new.attempt AND status = 'running'
)
BEGIN
    SELECT raise(ABORT, 'tool_executions_attempt_current');
END;

CREATE TRIGGER tool_executions_attempt_fixed
BEFORE UPDATE OF task_id, step, attempt ON tool_executions
FOR EACH ROW
WHEN new.attempt IS NOT old.attempt
OR   old.attempt IS NOT NULL AND (new.task_id IS NOT old.task_id OR new.step IS NOT old.step)
BEGIN
    SELECT raise(ABORT, 'tool_executions_attempt_fixed');
END;

CREATE TRIGGER tool_executions_end_final
BEFORE UPDATE OF status, output, error ON tool_executions
FOR EACH ROW
WHEN old.attempt IS NOT NULL AND (old.status = 'completed' OR old.status = 'failed' OR old.status = 'timeout')
AND  (new.status <> old.status OR new.output IS NOT old.output OR new.error IS NOT old.error)
BEGIN
    SELECT raise(ABORT, 'tool_executions_end_final');
END;

CREATE TRIGGER tool_executions_updated_at
AFTER UPDATE OF
    id, task_id, tool_name, input, output, status, error, duration_ms, created_at, started_at,
    completed_at, step, attempt
ON tool_executions
FOR EACH ROW
WHEN new.updated_at <= old.updated_at
BEGIN
    UPDATE tool_executions
    SET    updated_at = max(strftime('%Y-%m-%dT%H:%M:%fZ', 'now'),
                            strftime('%Y-%m-%dT%H:%M:%fZ', old.updated_at, '+0.001 seconds'))
    WHERE  id = new.id;
END;

CREATE TRIGGER workflow_tasks_added
AFTER INSERT ON workflow_tasks
FOR EACH ROW
WHEN (SELECT status FROM workflows WHERE id = new.workflow_id) = 'paused'
BEGIN
    UPDATE tasks SET paused_by = paused_by + 1 WHERE id = new.task_id;
END;

CREATE TRIGGER workflow_tasks_moved
AFTER UPDATE OF workflow_id, task_id ON workflow_tasks
FOR EACH ROW
WHEN old.workflow_id <> new.workflow_id OR old.task_id <> new.task_id
BEGIN
    UPDATE tasks SET paused_by = paused_by - 1
    WHERE  id = old.task_id AND (SELECT status FROM workflows WHERE id = old.workflow_id) = 'paused';
    UPDATE tasks SET paused_by = paused_by + 1
    WHERE  id = new.task_id AND (SELECT status FROM workflows WHERE id = new.workflow_id) = 'paused';
END;

CREATE TRIGGER workflow_tasks_removed
AFTER DELETE ON workflow_tasks
FOR EACH ROW
WHEN (SELECT status FROM workflows WHERE id = old.workflow_id) = 'paused'
BEGIN
    UPDATE tasks SET paused_by = paused_by - 1 WHERE id = old.task_id;
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

CREATE TRIGGER workflows_paused
AFTER UPDATE OF status ON workflows
FOR EACH ROW
WHEN (old.status = 'paused') <> (new.status = 'paused')
BEGIN
    UPDATE tasks
    SET    paused_by = paused_by + CASE WHEN new.status = 'paused' THEN 1 ELSE -1 END
    WHERE  id IN (SELECT task_id FROM workflow_tasks WHERE workflow_id = new.id);
END;

CREATE TRIGGER workflows_tasks_deleted
BEFORE DELETE ON workflows
FOR EACH ROW
WHEN old.status = 'paused'
BEGIN
    DELETE FROM workflow_tasks WHERE workflow_id = old.id;
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
