-- Workflows: named sets of tasks, put in order by workflow_tasks.
-- New table: locks nothing that exists and rewrites nothing. Its rollback drops every workflow.

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

CREATE INDEX idx_workflows_status     ON workflows (status, created_at, id);
CREATE INDEX idx_workflows_created_at ON workflows (created_at, id);
