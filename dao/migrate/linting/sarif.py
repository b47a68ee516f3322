"""Findings as SARIF 2.1.0, which code-review tools read (docs.oasis-open.org/sarif/sarif/v2.1.0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dao import _version
from dao.migrate.linting import RULES, Finding, LintResult

__all__ = ["report"]

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_RULES = {rule.code: number for number, rule in enumerate(RULES)}


def report(result: LintResult, *, root: Path | None = None) -> dict[str, Any]:
    """Return findings as a SARIF log, ready for `json.dumps`.

    Paths are relative to `root` (the working directory unless given), where they lie in it. Findings that are silenced
    or in the baseline are there as suppressed. The run's properties say which migrations were judged.
    """
    base = (root or Path.cwd()).resolve()
    driver = {
        "name": "dao lint",
        "version": _version.__version__,
        "rules": [
            {
                "id": rule.code,
                "name": "".join(word.capitalize() for word in rule.name.split("-")),
                "shortDescription": {"text": rule.name.replace("-", " ")},
                "fullDescription": {"text": rule.reason},
                "help": {"text": rule.remedy},
                "defaultConfiguration": {"level": rule.severity},
            }
            for rule in RULES
        ],
    }
    run = {
        "tool": {"driver": driver},
        "originalUriBaseIds": {"SRCROOT": {"uri": base.as_uri() + "/"}},
        "columnKind": "unicodeCodePoints",
        "results": [_result(finding, base) for finding in result.findings],
        "properties": {"judged": list(result.judged), "total": result.total, "selection": result.selection},
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(finding: Finding, base: Path) -> dict[str, Any]:
    location = {"artifactLocation": _artifact(finding.path, base), "region": {"startLine": finding.line}}
    result: dict[str, Any] = {
        "ruleId": finding.code,
        "ruleIndex": _RULES[finding.code],
        "level": finding.severity,
        "message": {"text": f"{finding.message}. To do: {finding.remedy}."},
        "locations": [{"physicalLocation": location}],
        "partialFingerprints": {"statement/v1": finding.fingerprint},
    }
    if finding.silenced is not None:
        result["suppressions"] = [{"kind": "inSource", "justification": finding.silenced}]
    elif finding.in_baseline:
        result["suppressions"] = [{"kind": "external", "justification": "in the baseline"}]
    return result


def _artifact(path: Path, base: Path) -> dict[str, str]:
    absolute = path.resolve()
    if not absolute.is_relative_to(base):
        return {"uri": absolute.as_uri()}
    # quoted as a URI is, and relative
    return {"uri": absolute.as_uri().removeprefix(base.as_uri()).lstrip("/"), "uriBaseId": "SRCROOT"}
