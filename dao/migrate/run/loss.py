"""What a run may lose, as values, and the refusal of it. `guard` finds it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from dao.errors import CheckFailed
from dao.migrate.values import Loss

__all__ = ["refuse"]


def refuse(found: Sequence[tuple[Path | None, str, Sequence[Loss]]]) -> None:
    """Refuse what scripts lost, each named by its file, if it has one, and its id.

    Raises:
        CheckFailed: There is any; `.violations` are the losses.
    """
    messages = []
    for path, id, losses in ((path, id, losses) for path, id, losses in found if losses):
        lines = "".join(f"\n  {loss}" for loss in losses)
        declarations = " and ".join(f"`{loss.declaration}`" for loss in losses)
        declare = f"write {declarations} at the top of {path.name}, or " if path else ""
        options = " ".join(f"--allow-loss {shlex.quote(loss.name)}" for loss in losses)
        messages.append(
            f"{path or id} loses data without saying that it means to{lines}\nMend the script; or, if that is meant, "
            f"{declare}allow it for this run with {options}"
        )
    if messages:
        raise CheckFailed("\n".join(messages), violations=tuple(loss for *_, losses in found for loss in losses))
