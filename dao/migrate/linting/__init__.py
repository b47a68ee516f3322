"""Looks for known mistakes in migration scripts, with SQLite's own compiler. Runs nothing on a database."""

from dao.migrate.linting.finding import Finding
from dao.migrate.linting.linter import LintResult, lint
from dao.migrate.linting.rules import RULES, Rule, Severity

__all__ = ["RULES", "Finding", "LintResult", "Rule", "Severity", "lint"]
