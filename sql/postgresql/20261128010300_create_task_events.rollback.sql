-- Drops the history of all tasks.

DROP TRIGGER task_events_deleted ON tasks;
DROP TRIGGER task_events_changed ON tasks;
DROP TRIGGER task_events_created ON tasks;
DROP FUNCTION dao_note_task_event();
DROP FUNCTION dao_begin_task_events();
DROP FUNCTION dao_json(text);
DROP FUNCTION dao_time(timestamptz);
DROP TABLE task_events;
