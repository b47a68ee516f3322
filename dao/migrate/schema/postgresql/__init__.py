"""What a database is on PostgreSQL: its catalog, the structure that is read from it, and the schema as one text."""
