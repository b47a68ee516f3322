-- Summaries: what the worker made of a task. One goes with its task.
-- New table: locks nothing that exists. Its rollback drops every summary; tasks stay.
-- depends: orchestrator/20250115010000_create_tasks

CREATE TABLE summaries (
    task_id text   NOT NULL PRIMARY KEY,
    text    text   NOT NULL,
    words   bigint NOT NULL,

    CONSTRAINT summaries_task_id_fkey FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT summaries_words_positive CHECK (words > 0)
);
