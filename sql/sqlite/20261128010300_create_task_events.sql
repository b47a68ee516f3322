-- Task events: what happened to tasks, one row for each version of a task, in the order of the commits. Triggers write
-- them, so that none is forgotten, and every program may follow along: seq is the cursor. previous has the values that
-- the changed columns had before, as a JSON object; undone one by one, from the task as it is now, they give the task
-- as it was at any moment. No foreign key: what happened stays when the task has gone.
-- A row whose status nobody knows, written past the constraints, has no from_status, so that it can be corrected.
-- They cost time and room: the configuration task_events, set to false, leaves them out.
-- New table, and triggers on tasks: locks and rewrites nothing. Its rollback drops the history of all tasks.

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

CREATE INDEX idx_task_events_task_id ON task_events (task_id, seq);
CREATE INDEX idx_task_events_at      ON task_events (at, seq);

CREATE TRIGGER task_events_created
AFTER INSERT ON tasks
FOR EACH ROW
WHEN NOT EXISTS (SELECT 1 FROM configurations WHERE key = 'task_events' AND value = 'false')
BEGIN
    INSERT INTO task_events (task_id, attempt, from_status, to_status, worker, error, at, previous)
    VALUES (new.id, new.attempt, NULL, new.status, new.worker, new.error, new.updated_at, '{}');
END;

-- at is what updated_at becomes, now or by its trigger, which refuses one after the last millisecond that there is.
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

-- After the last millisecond that there is comes none.
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
