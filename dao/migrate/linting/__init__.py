"""Looks for what is known to go wrong in migration scripts, with SQLite's own compiler; nothing is run on a database."""

from dao.migrate.linting.linter import Finding, lint
from dao.migrate.linting.rules import RULES, Rule, Severity

__all__ = ["RULES", "Finding", "Rule", "Severity", "lint"]
