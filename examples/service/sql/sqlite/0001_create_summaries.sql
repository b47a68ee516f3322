-- Summaries: what the worker made of a task. One goes with its task.
-- New table: locks nothing that exists. Its rollback drops every summary; tasks stay.
-- depends: orchestrator/20250115010000_create_tasks

CREATE TABLE summaries (
    task_id TEXT    NOT NULL PRIMARY KEY,
    text    TEXT    NOT NULL,
    words   INTEGER NOT NULL,

    CONSTRAINT summaries_task_id_fkey FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT summaries_words_positive CHECK (words > 0)
) STRICT, WITHOUT ROWID;
