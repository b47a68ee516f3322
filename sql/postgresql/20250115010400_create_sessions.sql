-- Sessions: clients' WebSocket sessions and when each was last heard of.
-- New table: locks nothing that exists and rewrites nothing. Its rollback drops every session.

CREATE TABLE sessions (
    id             text COLLATE "C" NOT NULL PRIMARY KEY,
    client_id      text COLLATE "C" NOT NULL,
    is_active      boolean          NOT NULL DEFAULT TRUE,
    last_heartbeat timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),
    metadata       text,
    created_at     timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),
    updated_at     timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),

    CONSTRAINT sessions_id_not_empty CHECK (id <> ''),
    CONSTRAINT sessions_client_id_not_blank CHECK (btrim(client_id,
        E'\t\n\x0b\f\r\x1c\x1d\x1e\x1f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009'
        '\u200a\u2028\u2029\u202f\u205f\u3000') <> ''),
    CONSTRAINT sessions_metadata_json CHECK (metadata IS NULL OR metadata IS JSON),
    CONSTRAINT sessions_last_heartbeat_utc_ms
        CHECK (last_heartbeat BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00'),
    CONSTRAINT sessions_created_at_utc_ms
        CHECK (created_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00'),
    CONSTRAINT sessions_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00')
);

-- A heartbeat moves a row in the last of the three only.
CREATE INDEX idx_sessions_client_id      ON sessions (client_id, is_active, created_at, id);
CREATE INDEX idx_sessions_is_active      ON sessions (is_active, created_at, id);
CREATE INDEX idx_sessions_last_heartbeat ON sessions (is_active, last_heartbeat, id);
