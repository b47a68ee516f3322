"""The ledger of the migrations that were applied: how it is read, written, and compared with the files."""
