"""Proves that rollbacks undo: each migration up, down and up again, on generated rows or on a copy of a real database."""

from dao.migrate.verification.verifier import Stage, Verification, verify

__all__ = ["Stage", "Verification", "verify"]
