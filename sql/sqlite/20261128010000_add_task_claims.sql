-- Claims: which worker runs a task, until when, and for which time; when it may run, how urgent it is, and how often it
-- may fail.
-- attempt counts the times that a task began to run, and never goes back: (id, attempt) is the fencing token that every
-- write of a worker presents. lease_expires_at is left out of updated_at's trigger: a heartbeat makes no new version.
-- waiting_for counts the unfinished tasks that a task waits for, paused_by the paused workflows that it is in; triggers
-- of later migrations keep them, so that finding what may run is one walk along an index.
-- Constant defaults: locks the database while the table is read, rewrites nothing. Its rollback loses what these columns
-- hold.

ALTER TABLE tasks ADD COLUMN priority INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_priority_range CHECK (priority BETWEEN 0 AND 9);
ALTER TABLE tasks ADD COLUMN run_at TEXT NOT NULL DEFAULT '0001-01-01T00:00:00.000Z'
    CONSTRAINT tasks_run_at_utc_ms
        CHECK (run_at BETWEEN '0001' AND ':' AND run_at IS strftime('%Y-%m-%dT%H:%M:%fZ', run_at));
ALTER TABLE tasks ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_attempt_not_negative CHECK (attempt >= 0);
ALTER TABLE tasks ADD COLUMN worker TEXT
    CONSTRAINT tasks_worker_not_empty CHECK (worker <> '');
ALTER TABLE tasks ADD COLUMN lease_expires_at TEXT
    CONSTRAINT tasks_lease_expires_at_utc_ms
        CHECK (lease_expires_at BETWEEN '0001' AND ':'
               AND lease_expires_at IS strftime('%Y-%m-%dT%H:%M:%fZ', lease_expires_at))
    CONSTRAINT tasks_lease_when_running CHECK (lease_expires_at IS NULL OR status = 'running')
    CONSTRAINT tasks_lease_of_worker CHECK ((lease_expires_at IS NULL) = (worker IS NULL));
ALTER TABLE tasks ADD COLUMN failures INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_failures_not_negative CHECK (failures >= 0);
ALTER TABLE tasks ADD COLUMN retries INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_retries_not_negative CHECK (retries >= 0);
ALTER TABLE tasks ADD COLUMN retry_delay_ms INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_retry_delay_ms_range CHECK (retry_delay_ms BETWEEN 0 AND 86400000);
ALTER TABLE tasks ADD COLUMN dedup_key TEXT
    CONSTRAINT tasks_dedup_key_not_empty CHECK (dedup_key <> '');
ALTER TABLE tasks ADD COLUMN waiting_for INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_waiting_for_not_negative CHECK (waiting_for >= 0);
-- lint: ignore M028 a heartbeat changes lease_expires_at alone, and makes no new version
ALTER TABLE tasks ADD COLUMN paused_by INTEGER NOT NULL DEFAULT 0
    CONSTRAINT tasks_paused_by_not_negative CHECK (paused_by >= 0);

-- They begin with status, though it is always the same, or SQLite takes the index of a listing, and sorts.
CREATE INDEX idx_tasks_claim ON tasks (status, priority DESC, run_at, id)
    WHERE status = 'pending' AND waiting_for = 0 AND paused_by = 0;
CREATE INDEX idx_tasks_claim_type ON tasks (status, task_type, priority DESC, run_at, id)
    WHERE status = 'pending' AND waiting_for = 0 AND paused_by = 0;
CREATE INDEX idx_tasks_lease_expires_at ON tasks (lease_expires_at, id) WHERE lease_expires_at IS NOT NULL;
-- In the order in which they are pruned. One whose completed_at nobody has set has ended by its last change, and not
-- before it was made.
CREATE INDEX idx_tasks_ended ON tasks (status, coalesce(completed_at, created_at), id)
    WHERE status <> 'pending' AND status <> 'running';
-- At most one unfinished task has a dedup_key; finished ones keep theirs. The id is the key that holds for ever.
CREATE UNIQUE INDEX idx_tasks_dedup_key ON tasks (dedup_key)
    WHERE dedup_key IS NOT NULL AND status IN ('pending', 'running');

DROP TRIGGER tasks_updated_at;

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

-- A finished task becomes pending before it becomes anything else, and one that waits for another attempt ends only by
-- that, or is cancelled: a late worker neither turns cancelled into completed, nor ends what another one will do.
CREATE TRIGGER tasks_status_transition
BEFORE UPDATE OF status ON tasks
FOR EACH ROW
WHEN new.status <> old.status AND new.status <> 'pending'
AND  (old.status = 'completed' OR old.status = 'failed' OR old.status = 'cancelled')
OR   old.status = 'pending' AND old.attempt > 0 AND new.status IN ('completed', 'failed')
BEGIN
    SELECT raise(ABORT, 'tasks_status_transition');
END;

-- It never goes back, and a task that begins to run begins a new one: no token is ever good twice.
CREATE TRIGGER tasks_attempt_increases
BEFORE UPDATE OF status, attempt ON tasks
FOR EACH ROW
WHEN new.attempt < old.attempt
OR   new.status = 'running' AND old.status <> 'running' AND new.attempt = old.attempt
BEGIN
    SELECT raise(ABORT, 'tasks_attempt_increases');
END;

-- What is counted later cannot be there when a task is made. It looks after the row is there, which costs less.
CREATE TRIGGER tasks_counters_begin_at_zero
AFTER INSERT ON tasks
FOR EACH ROW
WHEN new.waiting_for <> 0 OR new.paused_by <> 0
BEGIN
    SELECT raise(ABORT, 'tasks_counters_begin_at_zero');
END;
