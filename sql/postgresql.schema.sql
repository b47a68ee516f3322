-- The schema that the migrations make, up to and with 20261128010500_create_task_views.
-- Written by `dao schema dump`: do not edit it, write a migration.

SET check_function_bodies = off;

CREATE OR REPLACE FUNCTION dao_begin_counting()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM set_config('dao.counts_predecessors', extract(epoch FROM statement_timestamp())::text, true);
    RETURN NULL;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_begin_task_events()
 RETURNS void
 LANGUAGE plpgsql
AS $function$
BEGIN
    IF current_setting('dao.task_events', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        PERFORM pg_advisory_xact_lock_shared(
            ('task_events'::regclass::oid::bigint << 32)
            | ((SELECT coalesce(max(seq), 0) FROM task_events) & 4294967295));
        PERFORM set_config('dao.task_events', pg_current_xact_id()::text, true);
    END IF;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_check_attempt()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    UPDATE tasks
    SET    updated_at = updated_at
    WHERE  id = new.task_id AND attempt = new.attempt AND status = 'running';
    IF NOT FOUND AND NOT EXISTS (
        SELECT FROM tasks WHERE id = new.task_id AND attempt = new.attempt AND status = 'running'
    ) THEN
        RAISE EXCEPTION '%: the row breaks the constraint %', TG_TABLE_NAME, TG_NAME
        USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME, TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
    END IF;
    RETURN new;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_count_dependencies()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE tasks SET waiting_for = 0 WHERE waiting_for <> 0;
        RETURN NULL;
    END IF;
    IF NOT EXISTS (SELECT FROM links) THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'INSERT' THEN
        UPDATE tasks SET updated_at = updated_at WHERE id IN (SELECT depends_on FROM links);
    END IF;
    PERFORM dao_count_predecessors(ARRAY(SELECT DISTINCT task_id FROM links));
    IF TG_OP = 'DELETE' THEN
        UPDATE tasks
        SET    updated_at = updated_at
        WHERE  id IN (SELECT task_id FROM links JOIN tasks AS predecessor ON predecessor.id = links.depends_on);
    END IF;
    RETURN NULL;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_count_paused()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION '%: a workflow is paused, and goes on, at READ COMMITTED only, since at % nobody sees which '
            'tasks were added meanwhile: use another transaction',
            TG_TABLE_NAME, upper(current_setting('transaction_isolation'))
        USING TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
    END IF;
    PERFORM dao_count_paused_workflows(ARRAY(SELECT task_id FROM workflow_tasks WHERE workflow_id = new.id));
    RETURN NULL;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_count_paused_workflows(ids text[])
 RETURNS void
 LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM FROM tasks WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE tasks
    SET    paused_by = counted.number
    FROM   (SELECT held.id, count(workflows.id) AS number
            FROM   unnest(ids) AS held (id)
            LEFT   JOIN workflow_tasks ON workflow_tasks.task_id = held.id
            LEFT   JOIN workflows ON workflows.id = workflow_tasks.workflow_id AND workflows.status = 'paused'
            GROUP  BY held.id) AS counted
    WHERE  tasks.id = counted.id AND paused_by <> counted.number;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_count_predecessors(ids text[])
 RETURNS void
 LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM FROM tasks WHERE id = ANY (ids) ORDER BY id FOR NO KEY UPDATE;
    UPDATE tasks
    SET    waiting_for = counted.number
    FROM   (SELECT waiting.id, count(predecessor.id) AS number
            FROM   unnest(ids) AS waiting (id)
            LEFT   JOIN task_dependencies ON task_dependencies.task_id = waiting.id
            LEFT   JOIN tasks AS predecessor
                   ON predecessor.id = task_dependencies.depends_on AND predecessor.status <> 'completed'
            GROUP  BY waiting.id) AS counted
    WHERE  tasks.id = counted.id AND waiting_for <> counted.number;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_count_successors()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    IF current_setting('dao.counts_predecessors', true) = extract(epoch FROM statement_timestamp())::text THEN
        PERFORM dao_count_predecessors(ARRAY(SELECT task_id FROM task_dependencies WHERE depends_on = new.id));
        UPDATE tasks
        SET    updated_at = updated_at
        WHERE  id IN (SELECT task_id FROM task_dependencies WHERE depends_on = new.id);
        RETURN NULL;
    END IF;
    PERFORM FROM tasks
    WHERE   id IN (SELECT task_id FROM task_dependencies WHERE depends_on = new.id)
    ORDER   BY id
    FOR     NO KEY UPDATE;
    UPDATE tasks
    SET    waiting_for = waiting_for + CASE WHEN new.status = 'completed' THEN -1 ELSE 1 END
    WHERE  id IN (SELECT task_id FROM task_dependencies WHERE depends_on = new.id);
    RETURN NULL;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_count_workflow_task()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
DECLARE
    ids text[];
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        UPDATE tasks SET paused_by = 0 WHERE paused_by <> 0;
        RETURN NULL;
    END IF;
    PERFORM FROM workflows WHERE id IN (old.workflow_id, new.workflow_id) ORDER BY id FOR SHARE;
    ids := ARRAY(
        SELECT id
        FROM   tasks
        WHERE  id IN (old.task_id, new.task_id)
        AND    (paused_by > 0 OR EXISTS (SELECT FROM workflows WHERE id = new.workflow_id AND status = 'paused')));
    IF ids <> '{}' THEN
        PERFORM dao_count_paused_workflows(ids);
    END IF;
    RETURN NULL;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_end_calls()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    UPDATE tool_executions
    SET    status = 'failed',
           error = 'outcome unknown: attempt ' || old.attempt || ' of the task ended before the call did',
           completed_at = new.updated_at
    WHERE  task_id = new.id AND attempt IS NOT NULL AND status IN ('pending', 'running')
    AND    updated_at < '9999-12-31 23:59:59.999+00';
    RETURN NULL;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_json(value text)
 RETURNS text
 LANGUAGE sql
AS $function$
SELECT coalesce(to_json(value)::text, 'null');
$function$;

CREATE OR REPLACE FUNCTION dao_lock_successors()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM FROM tasks
    WHERE   id IN (SELECT task_id FROM task_dependencies WHERE depends_on = old.id)
    ORDER   BY id
    FOR     NO KEY UPDATE;
    RETURN old;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_lock_tasks_of_workflow()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM FROM tasks
    WHERE   id IN (SELECT task_id FROM workflow_tasks WHERE workflow_id = old.id)
    ORDER   BY id
    FOR     NO KEY UPDATE;
    RETURN old;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_note_task_event()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    IF EXISTS (SELECT FROM configurations WHERE key = 'task_events' AND value = 'false') THEN
        RETURN NULL;
    END IF;
    PERFORM dao_begin_task_events();
    IF TG_OP = 'INSERT' THEN
        INSERT INTO task_events (task_id, attempt, to_status, worker, error, at, previous)
        VALUES (new.id, new.attempt, new.status, new.worker, new.error, new.updated_at, '{}');
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO task_events (task_id, attempt, from_status, to_status, worker, error, at, previous)
        VALUES (new.id, new.attempt,
                CASE WHEN old.status IN ('pending', 'running', 'completed', 'failed', 'cancelled') THEN old.status END,
                new.status, coalesce(new.worker, old.worker), new.error,
                new.updated_at, '{' || substr(concat(
            CASE WHEN new.title IS DISTINCT FROM old.title THEN ',"title":' || dao_json(old.title) END,
            CASE WHEN new.description IS DISTINCT FROM old.description
                 THEN ',"description":' || dao_json(old.description) END,
            CASE WHEN new.task_type IS DISTINCT FROM old.task_type THEN ',"task_type":' || dao_json(old.task_type) END,
            CASE WHEN new.status IS DISTINCT FROM old.status THEN ',"status":' || dao_json(old.status) END,
            CASE WHEN new.config IS DISTINCT FROM old.config THEN ',"config":' || dao_json(old.config) END,
            CASE WHEN new.metadata IS DISTINCT FROM old.metadata THEN ',"metadata":' || dao_json(old.metadata) END,
            CASE WHEN new.workspace_path IS DISTINCT FROM old.workspace_path
                 THEN ',"workspace_path":' || dao_json(old.workspace_path) END,
            CASE WHEN new.error IS DISTINCT FROM old.error THEN ',"error":' || dao_json(old.error) END,
            CASE WHEN new.created_at IS DISTINCT FROM old.created_at
                 THEN ',"created_at":' || dao_json(dao_time(old.created_at)) END,
            ',"updated_at":' || dao_json(dao_time(old.updated_at)),
            CASE WHEN new.started_at IS DISTINCT FROM old.started_at
                 THEN ',"started_at":' || dao_json(dao_time(old.started_at)) END,
            CASE WHEN new.completed_at IS DISTINCT FROM old.completed_at
                 THEN ',"completed_at":' || dao_json(dao_time(old.completed_at)) END,
            CASE WHEN new.priority IS DISTINCT FROM old.priority THEN ',"priority":' || old.priority END,
            CASE WHEN new.run_at IS DISTINCT FROM old.run_at THEN ',"run_at":' || dao_json(dao_time(old.run_at)) END,
            CASE WHEN new.attempt IS DISTINCT FROM old.attempt THEN ',"attempt":' || old.attempt END,
            CASE WHEN new.worker IS DISTINCT FROM old.worker THEN ',"worker":' || dao_json(old.worker) END,
            CASE WHEN new.lease_expires_at IS DISTINCT FROM old.lease_expires_at
                 THEN ',"lease_expires_at":' || dao_json(dao_time(old.lease_expires_at)) END,
            CASE WHEN new.failures IS DISTINCT FROM old.failures THEN ',"failures":' || old.failures END,
            CASE WHEN new.retries IS DISTINCT FROM old.retries THEN ',"retries":' || old.retries END,
            CASE WHEN new.retry_delay_ms IS DISTINCT FROM old.retry_delay_ms
                 THEN ',"retry_delay_ms":' || old.retry_delay_ms END,
            CASE WHEN new.dedup_key IS DISTINCT FROM old.dedup_key THEN ',"dedup_key":' || dao_json(old.dedup_key) END,
            CASE WHEN new.waiting_for IS DISTINCT FROM old.waiting_for THEN ',"waiting_for":' || old.waiting_for END,
            CASE WHEN new.paused_by IS DISTINCT FROM old.paused_by THEN ',"paused_by":' || old.paused_by END
        ), 2) || '}');
    ELSE
        -- after the last millisecond that there is comes none
        INSERT INTO task_events (task_id, attempt, from_status, worker, error, at, previous)
        VALUES (old.id, old.attempt,
                CASE WHEN old.status IN ('pending', 'running', 'completed', 'failed', 'cancelled') THEN old.status END,
                old.worker, old.error,
                least(greatest(date_trunc('milliseconds', clock_timestamp()),
                               old.updated_at + interval '1 millisecond'),
                      timestamptz '9999-12-31 23:59:59.999+00'),
                '{' || concat(
            '"title":', dao_json(old.title),
            ',"description":', dao_json(old.description),
            ',"task_type":', dao_json(old.task_type),
            ',"status":', dao_json(old.status),
            ',"config":', dao_json(old.config),
            ',"metadata":', dao_json(old.metadata),
            ',"workspace_path":', dao_json(old.workspace_path),
            ',"error":', dao_json(old.error),
            ',"created_at":', dao_json(dao_time(old.created_at)),
            ',"updated_at":', dao_json(dao_time(old.updated_at)),
            ',"started_at":', dao_json(dao_time(old.started_at)),
            ',"completed_at":', dao_json(dao_time(old.completed_at)),
            ',"priority":', old.priority,
            ',"run_at":', dao_json(dao_time(old.run_at)),
            ',"attempt":', old.attempt,
            ',"worker":', dao_json(old.worker),
            ',"lease_expires_at":', dao_json(dao_time(old.lease_expires_at)),
            ',"failures":', old.failures,
            ',"retries":', old.retries,
            ',"retry_delay_ms":', old.retry_delay_ms,
            ',"dedup_key":', dao_json(old.dedup_key),
            ',"waiting_for":', old.waiting_for,
            ',"paused_by":', old.paused_by
        ) || '}');
    END IF;
    RETURN NULL;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_notify()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM pg_notify('dao_tasks', '');
    RETURN NULL;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_refuse()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    RAISE EXCEPTION '%: the row breaks the constraint %', TG_TABLE_NAME, TG_NAME
    USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME, TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_refuse_cycle()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION '%: a dependency is added at READ COMMITTED only, since at % nobody sees whether it would '
            'make a cycle with one that was added meanwhile: use another transaction',
            TG_TABLE_NAME, upper(current_setting('transaction_isolation'))
        USING TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
    END IF;
    PERFORM FROM tasks WHERE id = new.depends_on FOR NO KEY UPDATE;
    PERFORM FROM tasks WHERE id = new.task_id FOR NO KEY UPDATE;
    PERFORM pg_advisory_xact_lock(hashtextextended(TG_TABLE_SCHEMA || '.' || TG_NAME, 0));
    IF EXISTS (SELECT FROM task_dependencies WHERE depends_on = new.task_id) AND EXISTS (
        WITH RECURSIVE upstream (id) AS (
            SELECT new.depends_on COLLATE "C"
            UNION
            SELECT task_dependencies.depends_on
            FROM   upstream
            JOIN   task_dependencies ON task_dependencies.task_id = upstream.id
        )
        SELECT FROM upstream WHERE id = new.task_id
    ) THEN
        RAISE EXCEPTION '%: the row breaks the constraint %', TG_TABLE_NAME, TG_NAME
        USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME, TABLE = TG_TABLE_NAME, SCHEMA = TG_TABLE_SCHEMA;
    END IF;
    RETURN new;
END;
$function$;

CREATE OR REPLACE FUNCTION dao_time(moment timestamp with time zone)
 RETURNS text
 LANGUAGE sql
AS $function$
SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');
$function$;

CREATE OR REPLACE FUNCTION dao_updated_at()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    -- clock_timestamp(), as now() is when the transaction began; date_trunc, as the column's type would round into the
    -- future. After the last millisecond that there is comes none: NULL, which the column refuses.
    new.updated_at := nullif(greatest(date_trunc('milliseconds', clock_timestamp()),
                                      old.updated_at + interval '1 millisecond'),
                             timestamptz '10000-01-01 00:00:00+00');
    RETURN new;
END;
$function$;

CREATE TABLE configurations (
    key text COLLATE "C" NOT NULL,
    value text NOT NULL,
    updated_at timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    CONSTRAINT configurations_pkey PRIMARY KEY (key),
    CONSTRAINT configurations_key_not_empty CHECK ((key <> ''::text)),
    CONSTRAINT configurations_updated_at_utc_ms CHECK (((updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (updated_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT configurations_value_json CHECK ((value IS JSON))
);

CREATE TABLE sessions (
    id text COLLATE "C" NOT NULL,
    client_id text COLLATE "C" NOT NULL,
    is_active boolean NOT NULL DEFAULT true,
    last_heartbeat timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    metadata text,
    created_at timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    updated_at timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    CONSTRAINT sessions_pkey PRIMARY KEY (id),
    CONSTRAINT sessions_client_id_not_blank CHECK ((btrim(client_id, E'\u0009\u000A\u000B\u000C\u000D\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000'::text) <> ''::text)),
    CONSTRAINT sessions_created_at_utc_ms CHECK (((created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (created_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT sessions_id_not_empty CHECK ((id <> ''::text)),
    CONSTRAINT sessions_last_heartbeat_utc_ms CHECK (((last_heartbeat >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (last_heartbeat <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT sessions_metadata_json CHECK (((metadata IS NULL) OR (metadata IS JSON))),
    CONSTRAINT sessions_updated_at_utc_ms CHECK (((updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (updated_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone)))
);

CREATE TABLE task_dependencies (
    task_id text COLLATE "C" NOT NULL,
    depends_on text COLLATE "C" NOT NULL,
    created_at timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    CONSTRAINT task_dependencies_pkey PRIMARY KEY (task_id, depends_on),
    CONSTRAINT task_dependencies_created_at_utc_ms CHECK (((created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (created_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT task_dependencies_not_itself CHECK ((task_id <> depends_on))
);

CREATE TABLE task_events (
    seq bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
    task_id text COLLATE "C" NOT NULL,
    attempt bigint NOT NULL,
    from_status text COLLATE "C",
    to_status text COLLATE "C",
    worker text,
    error text,
    at timestamp(3) with time zone NOT NULL,
    previous text NOT NULL,
    CONSTRAINT task_events_pkey PRIMARY KEY (seq),
    CONSTRAINT task_events_at_utc_ms CHECK (((at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT task_events_attempt_not_negative CHECK ((attempt >= 0)),
    CONSTRAINT task_events_from_status_known CHECK ((from_status = ANY (ARRAY['pending'::text, 'running'::text, 'completed'::text, 'failed'::text, 'cancelled'::text]))),
    CONSTRAINT task_events_previous_json_object CHECK ((previous IS JSON OBJECT)),
    CONSTRAINT task_events_seq_positive CHECK ((seq > 0)),
    CONSTRAINT task_events_to_status_known CHECK ((to_status = ANY (ARRAY['pending'::text, 'running'::text, 'completed'::text, 'failed'::text, 'cancelled'::text])))
);

CREATE TABLE tasks (
    id text COLLATE "C" NOT NULL,
    title text NOT NULL,
    description text,
    task_type text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL DEFAULT 'pending'::text,
    config text NOT NULL DEFAULT '{}'::text,
    metadata text,
    workspace_path text COLLATE "C",
    error text,
    created_at timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    updated_at timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    started_at timestamp(3) with time zone,
    completed_at timestamp(3) with time zone,
    priority bigint NOT NULL DEFAULT 0,
    run_at timestamp(3) with time zone NOT NULL DEFAULT '0001-01-01 00:00:00+00'::timestamp with time zone,
    attempt bigint NOT NULL DEFAULT 0,
    worker text,
    lease_expires_at timestamp(3) with time zone,
    failures bigint NOT NULL DEFAULT 0,
    retries bigint NOT NULL DEFAULT 0,
    retry_delay_ms bigint NOT NULL DEFAULT 0,
    dedup_key text COLLATE "C",
    waiting_for bigint NOT NULL DEFAULT 0,
    paused_by bigint NOT NULL DEFAULT 0,
    CONSTRAINT tasks_pkey PRIMARY KEY (id),
    CONSTRAINT tasks_attempt_not_negative CHECK ((attempt >= 0)),
    CONSTRAINT tasks_completed_at_utc_ms CHECK (((completed_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (completed_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tasks_config_json_object CHECK ((config IS JSON OBJECT)),
    CONSTRAINT tasks_created_at_utc_ms CHECK (((created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (created_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tasks_dedup_key_not_empty CHECK ((dedup_key <> ''::text)),
    CONSTRAINT tasks_failures_not_negative CHECK ((failures >= 0)),
    CONSTRAINT tasks_id_not_empty CHECK ((id <> ''::text)),
    CONSTRAINT tasks_lease_expires_at_utc_ms CHECK (((lease_expires_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (lease_expires_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tasks_lease_of_worker CHECK (((lease_expires_at IS NULL) = (worker IS NULL))),
    CONSTRAINT tasks_lease_when_running CHECK (((lease_expires_at IS NULL) OR (status = 'running'::text))),
    CONSTRAINT tasks_metadata_json CHECK (((metadata IS NULL) OR (metadata IS JSON))),
    CONSTRAINT tasks_paused_by_not_negative CHECK ((paused_by >= 0)),
    CONSTRAINT tasks_priority_range CHECK (((priority >= 0) AND (priority <= 9))),
    CONSTRAINT tasks_retries_not_negative CHECK ((retries >= 0)),
    CONSTRAINT tasks_retry_delay_ms_range CHECK (((retry_delay_ms >= 0) AND (retry_delay_ms <= 86400000))),
    CONSTRAINT tasks_run_at_utc_ms CHECK (((run_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (run_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tasks_started_at_utc_ms CHECK (((started_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (started_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tasks_status_known CHECK ((status = ANY (ARRAY['pending'::text, 'running'::text, 'completed'::text, 'failed'::text, 'cancelled'::text]))),
    CONSTRAINT tasks_task_type_not_blank CHECK ((btrim(task_type, E'\u0009\u000A\u000B\u000C\u000D\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000'::text) <> ''::text)),
    CONSTRAINT tasks_title_not_blank CHECK ((btrim(title, E'\u0009\u000A\u000B\u000C\u000D\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000'::text) <> ''::text)),
    CONSTRAINT tasks_updated_at_utc_ms CHECK (((updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (updated_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tasks_waiting_for_not_negative CHECK ((waiting_for >= 0)),
    CONSTRAINT tasks_worker_not_empty CHECK ((worker <> ''::text))
);

CREATE TABLE tool_executions (
    id text COLLATE "C" NOT NULL,
    task_id text COLLATE "C",
    tool_name text COLLATE "C" NOT NULL,
    input text NOT NULL,
    output text,
    status text COLLATE "C" NOT NULL DEFAULT 'pending'::text,
    error text,
    duration_ms bigint,
    created_at timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    updated_at timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    started_at timestamp(3) with time zone,
    completed_at timestamp(3) with time zone,
    step text COLLATE "C",
    attempt bigint,
    CONSTRAINT tool_executions_pkey PRIMARY KEY (id),
    CONSTRAINT tool_executions_attempt_of_task CHECK (((attempt IS NULL) OR (task_id IS NOT NULL))),
    CONSTRAINT tool_executions_attempt_positive CHECK ((attempt > 0)),
    CONSTRAINT tool_executions_completed_at_utc_ms CHECK (((completed_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (completed_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tool_executions_completed_at_when_finished CHECK (((status = ANY (ARRAY['completed'::text, 'failed'::text, 'timeout'::text])) = (completed_at IS NOT NULL))),
    CONSTRAINT tool_executions_created_at_utc_ms CHECK (((created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (created_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tool_executions_duration_ms_not_negative CHECK ((duration_ms >= 0)),
    CONSTRAINT tool_executions_id_not_empty CHECK ((id <> ''::text)),
    CONSTRAINT tool_executions_input_json CHECK ((input IS JSON)),
    CONSTRAINT tool_executions_output_json CHECK (((output IS NULL) OR (output IS JSON))),
    CONSTRAINT tool_executions_started_at_utc_ms CHECK (((started_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (started_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tool_executions_status_known CHECK ((status = ANY (ARRAY['pending'::text, 'running'::text, 'completed'::text, 'failed'::text, 'timeout'::text]))),
    CONSTRAINT tool_executions_step_not_empty CHECK ((step <> ''::text)),
    CONSTRAINT tool_executions_step_of_attempt CHECK (((step IS NULL) OR (attempt IS NOT NULL))),
    CONSTRAINT tool_executions_tool_name_not_blank CHECK ((btrim(tool_name, E'\u0009\u000A\u000B\u000C\u000D\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000'::text) <> ''::text)),
    CONSTRAINT tool_executions_updated_at_utc_ms CHECK (((updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (updated_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone)))
);

CREATE TABLE workflow_tasks (
    workflow_id text COLLATE "C" NOT NULL,
    task_id text COLLATE "C" NOT NULL,
    sequence bigint NOT NULL,
    config text NOT NULL DEFAULT '{}'::text,
    created_at timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    updated_at timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    CONSTRAINT workflow_tasks_pkey PRIMARY KEY (workflow_id, task_id),
    CONSTRAINT workflow_tasks_config_json_object CHECK ((config IS JSON OBJECT)),
    CONSTRAINT workflow_tasks_created_at_utc_ms CHECK (((created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (created_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT workflow_tasks_sequence_not_negative CHECK ((sequence >= 0)),
    CONSTRAINT workflow_tasks_updated_at_utc_ms CHECK (((updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (updated_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone)))
);

CREATE TABLE workflows (
    id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    description text,
    status text COLLATE "C" NOT NULL DEFAULT 'draft'::text,
    config text NOT NULL DEFAULT '{}'::text,
    metadata text,
    created_at timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    updated_at timestamp(3) with time zone NOT NULL DEFAULT date_trunc('milliseconds'::text, clock_timestamp()),
    CONSTRAINT workflows_pkey PRIMARY KEY (id),
    CONSTRAINT workflows_config_json_object CHECK ((config IS JSON OBJECT)),
    CONSTRAINT workflows_created_at_utc_ms CHECK (((created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (created_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT workflows_id_not_empty CHECK ((id <> ''::text)),
    CONSTRAINT workflows_metadata_json CHECK (((metadata IS NULL) OR (metadata IS JSON))),
    CONSTRAINT workflows_name_not_blank CHECK ((btrim(name, E'\u0009\u000A\u000B\u000C\u000D\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000'::text) <> ''::text)),
    CONSTRAINT workflows_status_known CHECK ((status = ANY (ARRAY['draft'::text, 'active'::text, 'paused'::text, 'archived'::text]))),
    CONSTRAINT workflows_updated_at_utc_ms CHECK (((updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (updated_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone)))
);

CREATE VIEW task_overview AS
 SELECT id,
    title,
    task_type,
    status,
        CASE
            WHEN ((status = 'pending'::text) AND (waiting_for > 0)) THEN 'blocked'::text
            WHEN ((status = 'pending'::text) AND (paused_by > 0)) THEN 'paused'::text
            WHEN ((status = 'pending'::text) AND (run_at > statement_timestamp())) THEN
            CASE
                WHEN (failures > 0) THEN 'backing off'::text
                ELSE 'scheduled'::text
            END
            WHEN (status = 'pending'::text) THEN 'ready'::text
            WHEN ((status = 'running'::text) AND (lease_expires_at < statement_timestamp())) THEN 'lost'::text
            ELSE status
        END AS phase,
    (round(EXTRACT(epoch FROM (statement_timestamp() - created_at)), 3))::double precision AS age_seconds,
    priority,
    run_at,
    attempt,
    failures,
    retries,
    worker,
    lease_expires_at,
    waiting_for,
    paused_by,
    error,
    created_at,
    started_at,
    completed_at
   FROM tasks;

CREATE VIEW queue_overview AS
 SELECT task_type,
    count(*) FILTER (WHERE (phase = 'ready'::text)) AS ready,
    count(*) FILTER (WHERE (phase = 'scheduled'::text)) AS scheduled,
    count(*) FILTER (WHERE (phase = 'backing off'::text)) AS backing_off,
    count(*) FILTER (WHERE (phase = 'blocked'::text)) AS blocked,
    count(*) FILTER (WHERE (phase = 'paused'::text)) AS paused,
    count(*) FILTER (WHERE (phase = 'running'::text)) AS running,
    count(*) FILTER (WHERE (phase = 'lost'::text)) AS lost,
    count(*) FILTER (WHERE (phase = 'failed'::text)) AS failed,
    min(
        CASE
            WHEN (phase = 'ready'::text) THEN GREATEST(run_at, created_at)
            ELSE NULL::timestamp with time zone
        END) AS oldest_ready
   FROM task_overview
  GROUP BY task_type;

CREATE INDEX idx_sessions_client_id ON sessions USING btree (client_id, is_active, created_at, id);

CREATE INDEX idx_sessions_is_active ON sessions USING btree (is_active, created_at, id);

CREATE INDEX idx_sessions_last_heartbeat ON sessions USING btree (is_active, last_heartbeat, id);

CREATE INDEX idx_task_dependencies_depends_on ON task_dependencies USING btree (depends_on, task_id);

CREATE INDEX idx_task_events_at ON task_events USING btree (at, seq);

CREATE INDEX idx_task_events_task_id ON task_events USING btree (task_id, seq);

CREATE INDEX idx_tasks_claim ON tasks USING btree (status, priority DESC, run_at, id) WHERE status = 'pending'::text AND waiting_for = 0 AND paused_by = 0;

CREATE INDEX idx_tasks_claim_type ON tasks USING btree (status, task_type, priority DESC, run_at, id) WHERE status = 'pending'::text AND waiting_for = 0 AND paused_by = 0;

CREATE INDEX idx_tasks_created_at ON tasks USING btree (created_at, id);

CREATE UNIQUE INDEX idx_tasks_dedup_key ON tasks USING btree (dedup_key) WHERE dedup_key IS NOT NULL AND (status = ANY (ARRAY['pending'::text, 'running'::text]));

CREATE INDEX idx_tasks_ended ON tasks USING btree (status, COALESCE(completed_at, created_at), id) WHERE status <> 'pending'::text AND status <> 'running'::text;

CREATE INDEX idx_tasks_lease_expires_at ON tasks USING btree (lease_expires_at, id) WHERE lease_expires_at IS NOT NULL;

CREATE INDEX idx_tasks_status ON tasks USING btree (status, created_at, id);

CREATE INDEX idx_tasks_task_type ON tasks USING btree (task_type, created_at, id);

CREATE INDEX idx_tasks_workspace_path ON tasks USING btree (workspace_path, created_at, id) WHERE workspace_path IS NOT NULL;

CREATE INDEX idx_tool_executions_created_at ON tool_executions USING btree (created_at, id);

CREATE INDEX idx_tool_executions_open ON tool_executions USING btree (task_id) WHERE attempt IS NOT NULL AND (status = ANY (ARRAY['pending'::text, 'running'::text]));

CREATE INDEX idx_tool_executions_status ON tool_executions USING btree (status, created_at, id);

CREATE UNIQUE INDEX idx_tool_executions_step ON tool_executions USING btree (task_id, step) WHERE step IS NOT NULL AND status = 'completed'::text;

CREATE INDEX idx_tool_executions_task_id ON tool_executions USING btree (task_id, created_at, id) WHERE task_id IS NOT NULL;

CREATE INDEX idx_tool_executions_tool_name ON tool_executions USING btree (tool_name, created_at, id);

CREATE INDEX idx_tool_executions_without_task ON tool_executions USING btree (created_at, id) WHERE task_id IS NULL;

CREATE INDEX idx_workflow_tasks_sequence ON workflow_tasks USING btree (workflow_id, sequence, task_id);

CREATE INDEX idx_workflow_tasks_task_id ON workflow_tasks USING btree (task_id, workflow_id);

CREATE INDEX idx_workflows_created_at ON workflows USING btree (created_at, id);

CREATE INDEX idx_workflows_status ON workflows USING btree (status, created_at, id);

ALTER TABLE task_dependencies
    ADD CONSTRAINT task_dependencies_depends_on_fkey FOREIGN KEY (depends_on) REFERENCES tasks(id) ON DELETE CASCADE;

ALTER TABLE task_dependencies
    ADD CONSTRAINT task_dependencies_task_id_fkey FOREIGN KEY (task_id) REFERENCES tasks(id) ON DELETE CASCADE;

ALTER TABLE tool_executions
    ADD CONSTRAINT tool_executions_task_id_fkey FOREIGN KEY (task_id) REFERENCES tasks(id) ON DELETE CASCADE;

ALTER TABLE workflow_tasks
    ADD CONSTRAINT workflow_tasks_task_id_fkey FOREIGN KEY (task_id) REFERENCES tasks(id) ON DELETE CASCADE;

ALTER TABLE workflow_tasks
    ADD CONSTRAINT workflow_tasks_workflow_id_fkey FOREIGN KEY (workflow_id) REFERENCES workflows(id) ON DELETE CASCADE;

CREATE TRIGGER configurations_updated_at BEFORE UPDATE OF key, value ON configurations FOR EACH ROW WHEN (new.updated_at <= old.updated_at) EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER sessions_updated_at BEFORE UPDATE OF id, client_id, is_active, last_heartbeat, metadata, created_at ON sessions FOR EACH ROW WHEN (new.updated_at <= old.updated_at) EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER task_dependencies_added AFTER INSERT ON task_dependencies REFERENCING NEW TABLE AS links FOR EACH STATEMENT EXECUTE FUNCTION dao_count_dependencies();

CREATE TRIGGER task_dependencies_change BEFORE INSERT OR DELETE ON task_dependencies FOR EACH STATEMENT EXECUTE FUNCTION dao_begin_counting();

CREATE TRIGGER task_dependencies_emptied AFTER TRUNCATE ON task_dependencies FOR EACH STATEMENT EXECUTE FUNCTION dao_count_dependencies();

CREATE TRIGGER task_dependencies_no_cycle BEFORE INSERT ON task_dependencies FOR EACH ROW WHEN (new.task_id <> new.depends_on) EXECUTE FUNCTION dao_refuse_cycle();

CREATE TRIGGER task_dependencies_removed AFTER DELETE ON task_dependencies REFERENCING OLD TABLE AS links FOR EACH STATEMENT EXECUTE FUNCTION dao_count_dependencies();

CREATE TRIGGER task_dependencies_unchangeable BEFORE UPDATE OF task_id, depends_on ON task_dependencies FOR EACH ROW EXECUTE FUNCTION dao_refuse();

CREATE TRIGGER task_events_changed AFTER UPDATE OF id, title, description, task_type, status, config, metadata, workspace_path, error, created_at, started_at, completed_at, priority, run_at, attempt, worker, failures, retries, retry_delay_ms, dedup_key, waiting_for, paused_by ON tasks FOR EACH ROW EXECUTE FUNCTION dao_note_task_event();

CREATE TRIGGER task_events_created AFTER INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION dao_note_task_event();

CREATE TRIGGER task_events_deleted AFTER DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION dao_note_task_event();

CREATE TRIGGER tasks_attempt_ended AFTER UPDATE OF status, attempt ON tasks FOR EACH ROW WHEN (old.status = 'running'::text AND (new.status <> 'running'::text OR new.attempt <> old.attempt)) EXECUTE FUNCTION dao_end_calls();

CREATE TRIGGER tasks_attempt_increases BEFORE UPDATE OF status, attempt ON tasks FOR EACH ROW WHEN (new.attempt < old.attempt OR new.status = 'running'::text AND old.status <> 'running'::text AND new.attempt = old.attempt) EXECUTE FUNCTION dao_refuse();

CREATE TRIGGER tasks_claimable_become AFTER UPDATE OF status, run_at, waiting_for, paused_by ON tasks FOR EACH ROW WHEN (new.status = 'pending'::text AND new.waiting_for = 0 AND new.paused_by = 0 AND (old.status <> 'pending'::text OR old.waiting_for > 0 OR old.paused_by > 0 OR new.run_at <> old.run_at)) EXECUTE FUNCTION dao_notify();

CREATE TRIGGER tasks_claimable_made AFTER INSERT ON tasks FOR EACH ROW WHEN (new.status = 'pending'::text AND new.waiting_for = 0 AND new.paused_by = 0) EXECUTE FUNCTION dao_notify();

CREATE TRIGGER tasks_counters_begin_at_zero AFTER INSERT ON tasks FOR EACH ROW WHEN (new.waiting_for <> 0 OR new.paused_by <> 0) EXECUTE FUNCTION dao_refuse();

CREATE TRIGGER tasks_dependencies_completed AFTER UPDATE OF status ON tasks FOR EACH ROW WHEN ((old.status = 'completed'::text) <> (new.status = 'completed'::text)) EXECUTE FUNCTION dao_count_successors();

CREATE TRIGGER tasks_dependencies_deleted BEFORE DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION dao_lock_successors();

CREATE TRIGGER tasks_status_transition BEFORE UPDATE OF status ON tasks FOR EACH ROW WHEN (new.status <> old.status AND new.status <> 'pending'::text AND (old.status = 'completed'::text OR old.status = 'failed'::text OR old.status = 'cancelled'::text) OR old.status = 'pending'::text AND old.attempt > 0 AND (new.status = ANY (ARRAY['completed'::text, 'failed'::text]))) EXECUTE FUNCTION dao_refuse();

CREATE TRIGGER tasks_updated_at BEFORE UPDATE OF id, title, description, task_type, status, config, metadata, workspace_path, error, created_at, started_at, completed_at, priority, run_at, attempt, worker, failures, retries, retry_delay_ms, dedup_key, waiting_for, paused_by ON tasks FOR EACH ROW WHEN (new.updated_at <= old.updated_at) EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER tool_executions_attempt_current BEFORE INSERT ON tool_executions FOR EACH ROW WHEN (new.attempt IS NOT NULL) EXECUTE FUNCTION dao_check_attempt();

CREATE TRIGGER tool_executions_attempt_fixed BEFORE UPDATE OF task_id, step, attempt ON tool_executions FOR EACH ROW WHEN (new.attempt IS DISTINCT FROM old.attempt OR old.attempt IS NOT NULL AND (new.task_id IS DISTINCT FROM old.task_id OR new.step IS DISTINCT FROM old.step)) EXECUTE FUNCTION dao_refuse();

CREATE TRIGGER tool_executions_end_final BEFORE UPDATE OF status, output, error ON tool_executions FOR EACH ROW WHEN (old.attempt IS NOT NULL AND (old.status = 'completed'::text OR old.status = 'failed'::text OR old.status = 'timeout'::text) AND (new.status <> old.status OR new.output IS DISTINCT FROM old.output OR new.error IS DISTINCT FROM old.error)) EXECUTE FUNCTION dao_refuse();

CREATE TRIGGER tool_executions_updated_at BEFORE UPDATE OF id, task_id, tool_name, input, output, status, error, duration_ms, created_at, started_at, completed_at, step, attempt ON tool_executions FOR EACH ROW WHEN (new.updated_at <= old.updated_at) EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER workflow_tasks_added AFTER INSERT ON workflow_tasks FOR EACH ROW EXECUTE FUNCTION dao_count_workflow_task();

CREATE TRIGGER workflow_tasks_emptied AFTER TRUNCATE ON workflow_tasks FOR EACH STATEMENT EXECUTE FUNCTION dao_count_workflow_task();

CREATE TRIGGER workflow_tasks_moved AFTER UPDATE OF workflow_id, task_id ON workflow_tasks FOR EACH ROW WHEN (old.workflow_id <> new.workflow_id OR old.task_id <> new.task_id) EXECUTE FUNCTION dao_count_workflow_task();

CREATE TRIGGER workflow_tasks_removed AFTER DELETE ON workflow_tasks FOR EACH ROW EXECUTE FUNCTION dao_count_workflow_task();

CREATE TRIGGER workflow_tasks_updated_at BEFORE UPDATE OF workflow_id, task_id, sequence, config, created_at ON workflow_tasks FOR EACH ROW WHEN (new.updated_at <= old.updated_at) EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER workflows_paused AFTER UPDATE OF status ON workflows FOR EACH ROW WHEN ((old.status = 'paused'::text) <> (new.status = 'paused'::text)) EXECUTE FUNCTION dao_count_paused();

CREATE TRIGGER workflows_tasks_deleted BEFORE DELETE ON workflows FOR EACH ROW WHEN (old.status = 'paused'::text) EXECUTE FUNCTION dao_lock_tasks_of_workflow();

CREATE TRIGGER workflows_updated_at BEFORE UPDATE OF id, name, description, status, config, metadata, created_at ON workflows FOR EACH ROW WHEN (new.updated_at <= old.updated_at) EXECUTE FUNCTION dao_updated_at();
