-- Claims: which worker runs a task, until when, and for which time; when it may run, how urgent it is, and how often it
-- may fail.
-- attempt counts the times that a task began to run, and never goes back: (id, attempt) is the fencing token that every
-- write of a worker presents. lease_expires_at is left out of updated_at's trigger: a heartbeat makes no new version.
-- waiting_for counts the unfinished tasks that a task waits for, paused_by the paused workflows that it is in; triggers
-- of later migrations keep them, so that finding what may run is one walk along an index.
-- Constant defaults: rewrites nothing. Reads the table for the constraints and for each index, and locks it for as
-- long. Its rollback loses what these columns hold.
-- lint: ignore M033, M034, M036 workers can do without none of it, and stand still meanwhile

ALTER TABLE tasks
    ADD COLUMN priority bigint NOT NULL DEFAULT 0
        CONSTRAINT tasks_priority_range CHECK (priority BETWEEN 0 AND 9),
    ADD COLUMN run_at timestamptz(3) NOT NULL DEFAULT '0001-01-01 00:00:00+00'
        CONSTRAINT tasks_run_at_utc_ms CHECK (run_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00'),
    ADD COLUMN attempt bigint NOT NULL DEFAULT 0
        CONSTRAINT tasks_attempt_not_negative CHECK (attempt >= 0),
    ADD COLUMN worker text
        CONSTRAINT tasks_worker_not_empty CHECK (worker <> ''),
    ADD COLUMN lease_expires_at timestamptz(3)
        CONSTRAINT tasks_lease_expires_at_utc_ms
            CHECK (lease_expires_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00'),
    ADD COLUMN failures bigint NOT NULL DEFAULT 0
        CONSTRAINT tasks_failures_not_negative CHECK (failures >= 0),
    ADD COLUMN retries bigint NOT NULL DEFAULT 0
        CONSTRAINT tasks_retries_not_negative CHECK (retries >= 0),
    ADD COLUMN retry_delay_ms bigint NOT NULL DEFAULT 0
        CONSTRAINT tasks_retry_delay_ms_range CHECK (retry_delay_ms BETWEEN 0 AND 86400000),
    ADD COLUMN dedup_key text COLLATE "C"
        CONSTRAINT tasks_dedup_key_not_empty CHECK (dedup_key <> ''),
    ADD COLUMN waiting_for bigint NOT NULL DEFAULT 0
        CONSTRAINT tasks_waiting_for_not_negative CHECK (waiting_for >= 0),
    ADD COLUMN paused_by bigint NOT NULL DEFAULT 0
        CONSTRAINT tasks_paused_by_not_negative CHECK (paused_by >= 0),
    ADD CONSTRAINT tasks_lease_when_running CHECK (lease_expires_at IS NULL OR status = 'running'),
    ADD CONSTRAINT tasks_lease_of_worker CHECK ((lease_expires_at IS NULL) = (worker IS NULL));

-- They begin with status, as those of SQLite, which would take the index of a listing else, and sort.
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

DROP TRIGGER tasks_updated_at ON tasks;

CREATE TRIGGER tasks_updated_at
BEFORE UPDATE OF
    id, title, description, task_type, status, config, metadata, workspace_path, error, created_at,
    started_at, completed_at, priority, run_at, attempt, worker, failures, retries, retry_delay_ms, dedup_key,
    waiting_for, paused_by
ON tasks
FOR EACH ROW
WHEN (new.updated_at <= old.updated_at)
EXECUTE FUNCTION dao_updated_at();

-- A trigger that guards a rule refuses as a CHECK does, by its own name.
CREATE FUNCTION dao_refuse() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION '%: the row breaks the constraint %', TG_TABLE_NAME, TG_NAME
    USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME, TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
END;
$$;

-- A finished task becomes pending before it becomes anything else, and one that waits for another attempt ends only by
-- that, or is cancelled: a late worker neither turns cancelled into completed, nor ends what another one will do.
CREATE TRIGGER tasks_status_transition
BEFORE UPDATE OF status ON tasks
FOR EACH ROW
WHEN (new.status <> old.status AND new.status <> 'pending'
      AND (old.status = 'completed' OR old.status = 'failed' OR old.status = 'cancelled')
      OR old.status = 'pending' AND old.attempt > 0 AND new.status IN ('completed', 'failed'))
EXECUTE FUNCTION dao_refuse();

-- It never goes back, and a task that begins to run begins a new one: no token is ever good twice.
CREATE TRIGGER tasks_attempt_increases
BEFORE UPDATE OF status, attempt ON tasks
FOR EACH ROW
WHEN (new.attempt < old.attempt
      OR new.status = 'running' AND old.status <> 'running' AND new.attempt = old.attempt)
EXECUTE FUNCTION dao_refuse();

-- What is counted later cannot be there when a task is made.
CREATE TRIGGER tasks_counters_begin_at_zero
AFTER INSERT ON tasks
FOR EACH ROW
WHEN (new.waiting_for <> 0 OR new.paused_by <> 0)
EXECUTE FUNCTION dao_refuse();

-- Wakes those that wait for work (`dao.wait_for_change`). Only what makes a task claimable does: a notification has each
-- commit wait for the one before, and claims and ends of tasks come from many workers at once.
CREATE FUNCTION dao_notify() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM pg_notify('dao_tasks', '');
    RETURN NULL;
END;
$$;

CREATE TRIGGER tasks_claimable_made
AFTER INSERT ON tasks
FOR EACH ROW
WHEN (new.status = 'pending' AND new.waiting_for = 0 AND new.paused_by = 0)
EXECUTE FUNCTION dao_notify();

CREATE TRIGGER tasks_claimable_become
AFTER UPDATE OF status, run_at, waiting_for, paused_by ON tasks
FOR EACH ROW
WHEN (new.status = 'pending' AND new.waiting_for = 0 AND new.paused_by = 0
      AND (old.status <> 'pending' OR old.waiting_for > 0 OR old.paused_by > 0 OR new.run_at <> old.run_at))
EXECUTE FUNCTION dao_notify();
