"""Verifies that rollbacks undo: each migration up, down and up again, on generated rows or a copy of a database."""

from dao.migrate.verification.findings import Stage, Verification
from dao.migrate.verification.verifier import verify

__all__ = ["Stage", "Verification", "verify"]
