-- Loses priorities, times to run, leases and attempts, failures and retries, and keys. Any status may follow any other.

DROP TRIGGER tasks_claimable_become ON tasks;
DROP TRIGGER tasks_claimable_made ON tasks;
DROP FUNCTION dao_notify();
DROP TRIGGER tasks_counters_begin_at_zero ON tasks;
DROP TRIGGER tasks_attempt_increases ON tasks;
DROP TRIGGER tasks_status_transition ON tasks;
DROP FUNCTION dao_refuse();
DROP TRIGGER tasks_updated_at ON tasks;
DROP INDEX idx_tasks_dedup_key;
DROP INDEX idx_tasks_ended;
DROP INDEX idx_tasks_lease_expires_at;
DROP INDEX idx_tasks_claim_type;
DROP INDEX idx_tasks_claim;

ALTER TABLE tasks
    DROP COLUMN paused_by,
    DROP COLUMN waiting_for,
    DROP COLUMN dedup_key,
    DROP COLUMN retry_delay_ms,
    DROP COLUMN retries,
    DROP COLUMN failures,
    DROP COLUMN lease_expires_at,
    DROP COLUMN worker,
    DROP COLUMN attempt,
    DROP COLUMN run_at,
    DROP COLUMN priority;

CREATE TRIGGER tasks_updated_at
BEFORE UPDATE OF
    id, title, description, task_type, status, config, metadata, workspace_path, error, created_at,
    started_at, completed_at
ON tasks
FOR EACH ROW
WHEN (new.updated_at <= old.updated_at)
EXECUTE FUNCTION dao_updated_at();
