-- Task dependencies: which tasks a task waits for until they are completed. Triggers count them in tasks.waiting_for. A
-- cycle cannot be stored. One that failed or was cancelled holds its successors until it completes after all, or goes.
-- New table, and triggers on tasks: locks tasks for a moment, rewrites nothing. Its rollback drops every dependency.

CREATE TABLE task_dependencies (
    task_id    text COLLATE "C" NOT NULL,
    depends_on text COLLATE "C" NOT NULL,
    created_at timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),

    PRIMARY KEY (task_id, depends_on),
    CONSTRAINT task_dependencies_task_id_fkey
        FOREIGN KEY (task_id) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT task_dependencies_depends_on_fkey
        FOREIGN KEY (depends_on) REFERENCES tasks (id) ON DELETE CASCADE,
    CONSTRAINT task_dependencies_not_itself CHECK (task_id <> depends_on),
    CONSTRAINT task_dependencies_created_at_utc_ms
        CHECK (created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00')
);

-- Finds the successors of a task, and serves the foreign key.
CREATE INDEX idx_task_dependencies_depends_on ON task_dependencies (depends_on, task_id);

-- Dependencies are added one transaction at a time, and each looks only when those before it are stored: two that make
-- a cycle together would not see each other. A transaction that sees the database as it was when it began cannot look.
-- The tasks are locked before, the one that is waited for first, as by whoever ends it, so that nobody waits for a task
-- while others wait for him.
-- A task that nobody waits for is in no cycle: one that was just made need not look at all that it waits for by way of
-- others.
CREATE FUNCTION dao_refuse_cycle() RETURNS trigger
LANGUAGE plpgsql
AS $$
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
$$;

CREATE TRIGGER task_dependencies_no_cycle
BEFORE INSERT ON task_dependencies
FOR EACH ROW
WHEN (new.task_id <> new.depends_on)
EXECUTE FUNCTION dao_refuse_cycle();

-- A dependency is added or removed, never changed: the triggers that count would not see it.
CREATE TRIGGER task_dependencies_unchangeable
BEFORE UPDATE OF task_id, depends_on ON task_dependencies
FOR EACH ROW
EXECUTE FUNCTION dao_refuse();

-- The tasks are locked in the order of their ids before they are counted: whoever else counts them, or ends one that
-- they wait for, is waited for, and seen.
CREATE FUNCTION dao_count_predecessors(ids text[]) RETURNS void
LANGUAGE plpgsql
AS $$
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
$$;

-- A statement that changes dependencies counts anew to its end. It may complete tasks, too, and nobody knows which of
-- both is counted first; to add and take one would count some twice. All that a program sends at once has one time.
CREATE FUNCTION dao_begin_counting() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM set_config('dao.counts_predecessors', extract(epoch FROM statement_timestamp())::text, true);
    RETURN NULL;
END;
$$;

CREATE TRIGGER task_dependencies_change
BEFORE INSERT OR DELETE ON task_dependencies
FOR EACH STATEMENT
EXECUTE FUNCTION dao_begin_counting();

-- All that a statement adds or removes is counted at once: a task that waits for thousands has one version more, not
-- thousands. Tasks that are waited for are locked first, as whoever ends one locks it before those that wait. They, or
-- at a removal those that wait, are written as they are: whoever ends a predecessor at REPEATABLE READ, and does not
-- see the change, has to repeat that.
CREATE FUNCTION dao_count_dependencies() RETURNS trigger
LANGUAGE plpgsql
AS $$
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
$$;

CREATE TRIGGER task_dependencies_added
AFTER INSERT ON task_dependencies
REFERENCING NEW TABLE AS links
FOR EACH STATEMENT
EXECUTE FUNCTION dao_count_dependencies();

CREATE TRIGGER task_dependencies_removed
AFTER DELETE ON task_dependencies
REFERENCING OLD TABLE AS links
FOR EACH STATEMENT
EXECUTE FUNCTION dao_count_dependencies();

CREATE TRIGGER task_dependencies_emptied
AFTER TRUNCATE ON task_dependencies
FOR EACH STATEMENT
EXECUTE FUNCTION dao_count_dependencies();

-- Those that wait are locked before the foreign key removes the dependencies, or who deletes one of them, and removes
-- the same, would wait for this one, and this one for that.
CREATE FUNCTION dao_lock_successors() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    PERFORM FROM tasks
    WHERE   id IN (SELECT task_id FROM task_dependencies WHERE depends_on = old.id)
    ORDER   BY id
    FOR     NO KEY UPDATE;
    RETURN old;
END;
$$;

CREATE TRIGGER tasks_dependencies_deleted
BEFORE DELETE ON tasks
FOR EACH ROW
EXECUTE FUNCTION dao_lock_successors();

-- Those that wait are written though their count stays: whoever removes a dependency of theirs at REPEATABLE READ, and
-- does not see which tasks are completed, has to repeat that.
CREATE FUNCTION dao_count_successors() RETURNS trigger
LANGUAGE plpgsql
AS $$
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
$$;

CREATE TRIGGER tasks_dependencies_completed
AFTER UPDATE OF status ON tasks
FOR EACH ROW
WHEN ((old.status = 'completed') <> (new.status = 'completed'))
EXECUTE FUNCTION dao_count_successors();
