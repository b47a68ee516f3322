"""A finding: something that a rule holds against a migration."""

from __future__ import annotations

import hashlib
from pathlib import Path

import attrs

from dao.migrate.linting.rules import Severity, by_name

__all__ = ["Finding", "finding"]


@attrs.frozen(kw_only=True)
class Finding:
    """Something that a rule holds against a migration: where it stands, what it is and what to do.

    `fingerprint` is that of the statement: it stays, wherever that moves and however the message is worded.
    `silenced` is the reason that the file gives for silencing it, or None; `in_baseline` is whether a baseline has it.
    """

    code: str
    name: str
    severity: Severity
    migration: str
    path: Path
    line: int
    message: str
    remedy: str
    fingerprint: str
    silenced: str | None = None
    in_baseline: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it counts: it is neither silenced nor in the baseline."""
        return self.silenced is None and not self.in_baseline


def finding(
    code: str, migration: str, path: Path, line: int, message: str, *, about: str, silenced: str | None = None
) -> Finding:
    """Return a finding of a rule; `about` is the text of the statement, or whatever else tells it from others."""
    rule = by_name[code.lower()]
    text = " ".join(about.split())
    return Finding(
        code=code,
        name=rule.name,
        severity=rule.severity,
        migration=migration,
        path=path,
        line=line,
        message=message,
        remedy=rule.remedy,
        fingerprint=hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8],
        silenced=silenced,
    )
