"""What migration tools do to a SQLite database: crashes, concurrency, failures, lost rows, and time."""
