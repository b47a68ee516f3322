-- Workflow tasks: which tasks a workflow has, and in which order. A link goes with its workflow or its task.
-- New table: locks workflows and tasks against writes for a moment, rewrites nothing. Its rollback drops every link;
-- workflows and tasks stay.

CREATE TABLE workflow_tasks (
    workflow_id text COLLATE "C" NOT NULL,
    task_id     text COLLATE "C" NOT NULL,
    sequence    bigint           NOT NULL,
    config      text             NOT NULL DEFAULT '{}',
    created_at  timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),
    updated_at  timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),

    PRIMARY KEY (workflow_id, task_id),
    CONSTRAINT workflow_tasks_workflow_id_fkey
        FOREIGN KEY (workflow_id) REFERENCES workflows (id) ON DELETE CASCADE,
    CONSTRAINT workflow_tasks_task_id_fkey
        FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT workflow_tasks_sequence_not_negative CHECK (sequence >= 0),
    CONSTRAINT workflow_tasks_config_json_object CHECK (config IS JSON OBJECT),
    CONSTRAINT workflow_tasks_created_at_utc_ms
        CHECK (created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00'),
    CONSTRAINT workflow_tasks_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00')
);

-- The first walks a workflow in order, the second finds a task's workflows and serves the foreign key.
CREATE INDEX idx_workflow_tasks_sequence ON workflow_tasks (workflow_id, sequence, task_id);
CREATE INDEX idx_workflow_tasks_task_id  ON workflow_tasks (task_id, workflow_id);
