-- Sessions: clients' WebSocket sessions and when each was last heard of.
-- New table: locks nothing that exists and rewrites nothing. Its rollback drops every session.

CREATE TABLE sessions (
    id             TEXT    NOT NULL PRIMARY KEY,
    client_id      TEXT    NOT NULL,
    is_active      INTEGER NOT NULL DEFAULT 1,
    last_heartbeat TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    metadata       TEXT,
    created_at     TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    updated_at     TEXT    NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),

    CONSTRAINT sessions_id_not_empty CHECK (id <> ''),
    CONSTRAINT sessions_client_id_not_blank CHECK (trim(client_id, char(
        9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 133, 160, 5760, 8192, 8193, 8194, 8195, 8196, 8197, 8198, 8199, 8200,
        8201, 8202, 8232, 8233, 8239, 8287, 12288)) <> ''),
    CONSTRAINT sessions_is_active_boolean CHECK (is_active IN (0, 1)),
    CONSTRAINT sessions_metadata_json CHECK (metadata IS NULL OR json_valid(metadata)),
    CONSTRAINT sessions_last_heartbeat_utc_ms
        CHECK (last_heartbeat BETWEEN '0001' AND ':' AND last_heartbeat IS strftime('%Y-%m-%dT%H:%M:%fZ', last_heartbeat)),
    CONSTRAINT sessions_created_at_utc_ms
        CHECK (created_at BETWEEN '0001' AND ':' AND created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at)),
    CONSTRAINT sessions_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001' AND ':' AND updated_at IS strftime('%Y-%m-%dT%H:%M:%fZ', updated_at))
) STRICT;

-- A heartbeat moves a row in the last of the three only.
CREATE INDEX idx_sessions_client_id      ON sessions (client_id, is_active, created_at, id);
CREATE INDEX idx_sessions_is_active      ON sessions (is_active, created_at, id);
CREATE INDEX idx_sessions_last_heartbeat ON sessions (is_active, last_heartbeat, id);
