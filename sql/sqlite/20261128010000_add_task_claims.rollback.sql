-- Loses priorities, times to run, leases and attempts, failures and retries, and keys. Any status may follow any other.

DROP TRIGGER tasks_counters_begin_at_zero;
DROP TRIGGER tasks_attempt_increases;
DROP TRIGGER tasks_status_transition;
DROP TRIGGER tasks_updated_at;
DROP INDEX idx_tasks_dedup_key;
DROP INDEX idx_tasks_ended;
DROP INDEX idx_tasks_lease_expires_at;
DROP INDEX idx_tasks_claim_type;
DROP INDEX idx_tasks_claim;

ALTER TABLE tasks DROP COLUMN paused_by;
ALTER TABLE tasks DROP COLUMN waiting_for;
ALTER TABLE tasks DROP COLUMN dedup_key;
ALTER TABLE tasks DROP COLUMN retry_delay_ms;
ALTER TABLE tasks DROP COLUMN retries;
ALTER TABLE tasks DROP COLUMN failures;
ALTER TABLE tasks DROP COLUMN lease_expires_at;
ALTER TABLE tasks DROP COLUMN worker;
ALTER TABLE tasks DROP COLUMN attempt;
ALTER TABLE tasks DROP COLUMN run_at;
ALTER TABLE tasks DROP COLUMN priority;

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
