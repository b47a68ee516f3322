-- Workflow tasks: which tasks a workflow has, and in which order. A link goes with its workflow or its task.
-- New table: locks nothing that exists and rewrites nothing. Its rollback drops every link; workflows and tasks stay.

CREATE TABLE workflow_tasks (
    workflow_id TEXT    NOT NULL,
    task_id     TEXT    NOT NULL,
    sequence    INTEGER NOT NULL,
    config      TEXT    NOT NULL DEFAULT '{}',
    created_at  TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at  TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),

    PRIMARY KEY (workflow_id, task_id),
    CONSTRAINT workflow_tasks_workflow_id_fkey
        FOREIGN KEY (workflow_id) REFERENCES workflows (id) ON DELETE CASCADE,
    CONSTRAINT workflow_tasks_task_id_fkey
        FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT workflow_tasks_sequence_not_negative CHECK (sequence >= 0),
    CONSTRAINT workflow_tasks_config_json_object CHECK (json_valid(config) AND json_type(config) = 'object'),
    CONSTRAINT workflow_tasks_created_at_utc_ms
        CHECK (created_at BETWEEN '0001' AND ':' AND created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at)),
    CONSTRAINT workflow_tasks_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001' AND ':' AND updated_at IS strftime('%Y-%m-%dT%H:%M:%fZ', updated_at))
) STRICT, WITHOUT ROWID;

-- The first walks a workflow in order, the second finds a task's workflows and serves the foreign key.
CREATE INDEX idx_workflow_tasks_sequence ON workflow_tasks (workflow_id, sequence, task_id);
CREATE INDEX idx_workflow_tasks_task_id  ON workflow_tasks (task_id, workflow_id);
