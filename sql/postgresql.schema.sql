-- The schema that the migrations make, up to and with 20250115010600_create_triggers.
-- Written by `dao schema dump`: do not edit it, write a migration.

SET check_function_bodies = off;

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
    CONSTRAINT tasks_pkey PRIMARY KEY (id),
    CONSTRAINT tasks_completed_at_utc_ms CHECK (((completed_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (completed_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tasks_config_json_object CHECK ((config IS JSON OBJECT)),
    CONSTRAINT tasks_created_at_utc_ms CHECK (((created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (created_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tasks_id_not_empty CHECK ((id <> ''::text)),
    CONSTRAINT tasks_metadata_json CHECK (((metadata IS NULL) OR (metadata IS JSON))),
    CONSTRAINT tasks_started_at_utc_ms CHECK (((started_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (started_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tasks_status_known CHECK ((status = ANY (ARRAY['pending'::text, 'running'::text, 'completed'::text, 'failed'::text, 'cancelled'::text]))),
    CONSTRAINT tasks_task_type_not_blank CHECK ((btrim(task_type, E'\u0009\u000A\u000B\u000C\u000D\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000'::text) <> ''::text)),
    CONSTRAINT tasks_title_not_blank CHECK ((btrim(title, E'\u0009\u000A\u000B\u000C\u000D\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000'::text) <> ''::text)),
    CONSTRAINT tasks_updated_at_utc_ms CHECK (((updated_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (updated_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone)))
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
    CONSTRAINT tool_executions_pkey PRIMARY KEY (id),
    CONSTRAINT tool_executions_completed_at_utc_ms CHECK (((completed_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (completed_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tool_executions_completed_at_when_finished CHECK (((status = ANY (ARRAY['completed'::text, 'failed'::text, 'timeout'::text])) = (completed_at IS NOT NULL))),
    CONSTRAINT tool_executions_created_at_utc_ms CHECK (((created_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (created_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tool_executions_duration_ms_not_negative CHECK ((duration_ms >= 0)),
    CONSTRAINT tool_executions_id_not_empty CHECK ((id <> ''::text)),
    CONSTRAINT tool_executions_input_json CHECK ((input IS JSON)),
    CONSTRAINT tool_executions_output_json CHECK (((output IS NULL) OR (output IS JSON))),
    CONSTRAINT tool_executions_started_at_utc_ms CHECK (((started_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (started_at <= '9999-12-31 23:59:59.999+00'::timestamp with time zone))),
    CONSTRAINT tool_executions_status_known CHECK ((status = ANY (ARRAY['pending'::text, 'running'::text, 'completed'::text, 'failed'::text, 'timeout'::text]))),
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

CREATE INDEX idx_sessions_client_id ON sessions USING btree (client_id, is_active, created_at, id);

CREATE INDEX idx_sessions_is_active ON sessions USING btree (is_active, created_at, id);

CREATE INDEX idx_sessions_last_heartbeat ON sessions USING btree (is_active, last_heartbeat, id);

CREATE INDEX idx_tasks_created_at ON tasks USING btree (created_at, id);

CREATE INDEX idx_tasks_status ON tasks USING btree (status, created_at, id);

CREATE INDEX idx_tasks_task_type ON tasks USING btree (task_type, created_at, id);

CREATE INDEX idx_tasks_workspace_path ON tasks USING btree (workspace_path, created_at, id) WHERE workspace_path IS NOT NULL;

CREATE INDEX idx_tool_executions_created_at ON tool_executions USING btree (created_at, id);

CREATE INDEX idx_tool_executions_status ON tool_executions USING btree (status, created_at, id);

CREATE INDEX idx_tool_executions_task_id ON tool_executions USING btree (task_id, created_at, id) WHERE task_id IS NOT NULL;

CREATE INDEX idx_tool_executions_tool_name ON tool_executions USING btree (tool_name, created_at, id);

CREATE INDEX idx_workflow_tasks_sequence ON workflow_tasks USING btree (workflow_id, sequence, task_id);

CREATE INDEX idx_workflow_tasks_task_id ON workflow_tasks USING btree (task_id, workflow_id);

CREATE INDEX idx_workflows_created_at ON workflows USING btree (created_at, id);

CREATE INDEX idx_workflows_status ON workflows USING btree (status, created_at, id);

ALTER TABLE tool_executions
    ADD CONSTRAINT tool_executions_task_id_fkey FOREIGN KEY (task_id) REFERENCES tasks(id) ON DELETE CASCADE;

ALTER TABLE workflow_tasks
    ADD CONSTRAINT workflow_tasks_task_id_fkey FOREIGN KEY (task_id) REFERENCES tasks(id) ON DELETE CASCADE;

ALTER TABLE workflow_tasks
    ADD CONSTRAINT workflow_tasks_workflow_id_fkey FOREIGN KEY (workflow_id) REFERENCES workflows(id) ON DELETE CASCADE;

CREATE TRIGGER configurations_updated_at BEFORE UPDATE OF key, value ON configurations FOR EACH ROW WHEN (new.updated_at <= old.updated_at) EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER sessions_updated_at BEFORE UPDATE OF id, client_id, is_active, last_heartbeat, metadata, created_at ON sessions FOR EACH ROW WHEN (new.updated_at <= old.updated_at) EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER tasks_updated_at BEFORE UPDATE OF id, title, description, task_type, status, config, metadata, workspace_path, error, created_at, started_at, completed_at ON tasks FOR EACH ROW WHEN (new.updated_at <= old.updated_at) EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER tool_executions_updated_at BEFORE UPDATE OF id, task_id, tool_name, input, output, status, error, duration_ms, created_at, started_at, completed_at ON tool_executions FOR EACH ROW WHEN (new.updated_at <= old.updated_at) EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER workflow_tasks_updated_at BEFORE UPDATE OF workflow_id, task_id, sequence, config, created_at ON workflow_tasks FOR EACH ROW WHEN (new.updated_at <= old.updated_at) EXECUTE FUNCTION dao_updated_at();

CREATE TRIGGER workflows_updated_at BEFORE UPDATE OF id, name, description, status, config, metadata, created_at ON workflows FOR EACH ROW WHEN (new.updated_at <= old.updated_at) EXECUTE FUNCTION dao_updated_at();
