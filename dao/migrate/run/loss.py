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
    lossy = [(path, str(path or id), losses) for path, id, losses in found if losses]
    if not lossy:
        return
    names = ", ".join(name for _, name, _ in lossy)
    alone = len(lossy) == 1
    declare = "".join(
        f"write {' and '.join(f'`{loss.declaration}`' for loss in losses)} at the top of {path.name}, or "
        for path, _, losses in lossy
        if path
    )
    options = dict.fromkeys(f"--allow-loss {shlex.quote(loss.name)}" for *_, losses in lossy for loss in losses)
    raise CheckFailed(
        f"{names} loses data without saying that it means to"
        if alone
        else "these scripts lose data without saying that they mean to",
        violations=[loss for *_, losses in lossy for loss in losses],
        details=[loss if alone else f"{name}: {loss}" for _, name, losses in lossy for loss in losses],
        advice=f"Mend {'the script' if alone else 'them'}; or, if that is meant, {declare}allow it for this run with "
        + " ".join(options),
    )
