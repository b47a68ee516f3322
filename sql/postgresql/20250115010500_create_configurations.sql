-- Configurations: settings by key. The value is JSON text, so that it keeps its type.
-- New table: locks nothing that exists and rewrites nothing. Its rollback drops every setting.

CREATE TABLE configurations (
    key        text COLLATE "C" NOT NULL PRIMARY KEY,
    value      text             NOT NULL,
    updated_at timestamptz(3)   NOT NULL DEFAULT date_trunc('milliseconds', clock_timestamp()),

    CONSTRAINT configurations_key_not_empty CHECK (key <> ''),
    CONSTRAINT configurations_value_json CHECK (value IS JSON),
    CONSTRAINT configurations_updated_at_utc_ms
        CHECK (updated_at BETWEEN '0001-01-01 00:00:00+00' AND '9999-12-31 23:59:59.999+00')
);
