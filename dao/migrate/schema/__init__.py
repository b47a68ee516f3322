"""What a database is: its catalog, its model, how two differ, and what migrations make of an empty one."""
