-- Task dependencies: which tasks a task waits for until they are completed. Triggers count them in tasks.waiting_for. A
-- cycle cannot be stored. One that failed or was cancelled holds its successors until it completes after all, or goes.
-- New table, and triggers on tasks: locks and rewrites nothing. Its rollback drops every dependency.

CREATE TABLE task_dependencies (
    task_id    TEXT NOT NULL,
    depends_on TEXT NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),

    PRIMARY KEY (task_id, depends_on),
    CONSTRAINT task_dependencies_task_id_fkey
        FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT task_dependencies_depends_on_fkey
        FOREIGN KEY (depends_on) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT task_dependencies_not_itself CHECK (task_id <> depends_on),
    CONSTRAINT task_dependencies_created_at_utc_ms
        CHECK (created_at BETWEEN '0001' AND ':' AND created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at))
) STRICT, WITHOUT ROWID;

-- Finds the successors of a task, and serves the foreign key.
CREATE INDEX idx_task_dependencies_depends_on ON task_dependencies (depends_on, task_id);

-- A task that nobody waits for is in no cycle: one that was just made need not look at all that it waits for by way of
-- others.
CREATE TRIGGER task_dependencies_no_cycle
BEFORE INSERT ON task_dependencies
FOR EACH ROW
WHEN new.task_id <> new.depends_on
AND  EXISTS (SELECT 1 FROM task_dependencies WHERE depends_on = new.task_id)
AND  new.task_id IN (
    WITH RECURSIVE upstream (id) AS (
        VALUES (new.depends_on)
        UNION
        SELECT task_dependencies.depends_on
        FROM   upstream
        JOIN   task_dependencies ON task_dependencies.task_id = upstream.id
    )
    SELECT id FROM upstream
)
BEGIN
    SELECT raise(ABORT, 'task_dependencies_no_cycle');
END;

-- A dependency is added or removed, never changed: the triggers that count would not see it.
CREATE TRIGGER task_dependencies_unchangeable
BEFORE UPDATE OF task_id, depends_on ON task_dependencies
FOR EACH ROW
BEGIN
    SELECT raise(ABORT, 'task_dependencies_unchangeable');
END;

CREATE TRIGGER task_dependencies_added
AFTER INSERT ON task_dependencies
FOR EACH ROW
WHEN (SELECT status FROM tasks WHERE id = new.depends_on) <> 'completed'
BEGIN
    UPDATE tasks SET waiting_for = waiting_for + 1 WHERE id = new.task_id;
END;

-- One that has gone was not completed, or it has taken the dependency with it: see below.
CREATE TRIGGER task_dependencies_removed
AFTER DELETE ON task_dependencies
FOR EACH ROW
WHEN (SELECT status FROM tasks WHERE id = old.depends_on) IS NOT 'completed'
BEGIN
    UPDATE tasks SET waiting_for = waiting_for - 1 WHERE id = old.task_id;
END;

-- Of a task that was completed, nobody waits any more, so nothing is counted; the foreign key removes the others.
CREATE TRIGGER tasks_dependencies_deleted
BEFORE DELETE ON tasks
FOR EACH ROW
WHEN old.status = 'completed'
BEGIN
    DELETE FROM task_dependencies WHERE depends_on = old.id;
END;

-- Most tasks have no successor: to look for one costs less than to change none.
CREATE TRIGGER tasks_dependencies_completed
AFTER UPDATE OF status ON tasks
FOR EACH ROW
WHEN (old.status = 'completed') <> (new.status = 'completed')
AND  EXISTS (SELECT 1 FROM task_dependencies WHERE depends_on = new.id)
BEGIN
    UPDATE tasks
    SET    waiting_for = waiting_for + CASE WHEN new.status = 'completed' THEN -1 ELSE 1 END
    WHERE  id IN (SELECT task_id FROM task_dependencies WHERE depends_on = new.id);
END;
