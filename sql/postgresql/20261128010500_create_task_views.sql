-- Views for people and tools: what each task is really doing, and how each type of task is doing. Blocked, paused,
-- scheduled, backing off and lost are derived, so that no row has to be moved when time passes.
-- Locks and rewrites nothing. Its rollback loses no data.

CREATE VIEW task_overview AS
SELECT id, title, task_type, status,
       CASE WHEN status = 'pending' AND waiting_for > 0 THEN 'blocked'
            WHEN status = 'pending' AND paused_by > 0 THEN 'paused'
            WHEN status = 'pending' AND run_at > statement_timestamp() THEN
                CASE WHEN failures > 0 THEN 'backing off' ELSE 'scheduled' END
            WHEN status = 'pending' THEN 'ready'
            WHEN status = 'running' AND lease_expires_at < statement_timestamp() THEN 'lost'
            ELSE status END AS phase,
       round(extract(epoch FROM statement_timestamp() - created_at), 3)::double precision AS age_seconds,
       priority, run_at, attempt, failures, retries, worker, lease_expires_at, waiting_for, paused_by, error,
       created_at, started_at, completed_at
FROM   tasks;

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
       min(CASE WHEN phase = 'ready' THEN greatest(run_at, created_at) END) AS oldest_ready
FROM   task_overview
GROUP  BY task_type;
