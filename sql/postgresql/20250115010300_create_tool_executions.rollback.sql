-- Drops the whole history of tool calls, and with it the table's indexes.

DROP TABLE tool_executions;
