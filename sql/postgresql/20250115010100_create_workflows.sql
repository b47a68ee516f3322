-- Workflows: named sets of tasks, put in order by workflow_tasks.
-- New table: locks nothing that exists and rewrites nothing. Its rollback drops every workflow.

CREATE TABLE workflows (
    id          text COLLATE "C" NOT NULL PRIMARY KEY,
    name        text             NOT NULL,
    description text,
    status      text COLLATE "C" NOT NULL DEFAULT 'draft',
    config      text             NOT NULL DEFAULT '{}',
    metadata    text,
    created_at  timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),
    updated_at  timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),

    CONSTRAINT workflows_id_not_empty CHECK (id <> ''),
    CONSTRAINT workflows_name_not_blank CHECK (btrim(name,
        E'\t\n\x0b\f\r\x1c\x1d\x1e\x1f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009'
        '\u200a\u2028\u2029\u202f\u205f\u3000') <> ''),
    CONSTRAINT workflows_status_known CHECK (status IN ('draft', 'active', 'paused', 'archived')),
    CONSTRAINT workflows_config_json_object CHECK (config IS JSON OBJECT),
    CONSTRAINT workflows_metadata_json CHECK (metadata IS NULL OR metadata IS JSON),
    CONSTRAINT workflows_created_at_utc_ms
        CHECK (created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00'),
    CONSTRAINT workflows_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00')
);

CREATE INDEX idx_workflows_status     ON workflows (status, created_at, id);
CREATE INDEX idx_workflows_created_at ON workflows (created_at, id);
