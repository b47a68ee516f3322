"""A second database: snapshots, restoring, working copies, and the rows of both."""
