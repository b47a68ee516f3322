-- Configurations: settings by key. The value is JSON text, so that it keeps its type.
-- New table: locks nothing that exists and rewrites nothing. Its rollback drops every setting.

CREATE TABLE configurations (
    key        TEXT NOT NULL PRIMARY KEY,
    value      TEXT NOT NULL,
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),

    CONSTRAINT configurations_key_not_empty CHECK (key <> ''),
    CONSTRAINT configurations_value_json CHECK (json_valid(value)),
    CONSTRAINT configurations_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001' AND ':' AND updated_at IS strftime('%Y-%m-%dT%H:%M:%fZ', updated_at))
) STRICT, WITHOUT ROWID;
