"""A database's schema: its catalog, its model, how two differ, and the schema that migrations make."""
