-- Drops every setting.

DROP TABLE configurations;
