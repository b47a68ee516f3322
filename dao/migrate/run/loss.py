"""Which losses a run may have, and the refusal of the others. `guard` finds them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence

from dao.errors import CheckFailed
from dao.migrate.schema.replay import Made
from dao.migrate.scripts.directives import Allowance
from dao.migrate.values import Loss, Step

__all__ = ["refuse", "undeclared"]


def undeclared(step: Step, losses: Sequence[Loss], allowed: Allowance, made_by: Callable[[Step], Made]) -> list[Loss]:
    """Return the losses that neither script nor run allows. A rollback may drop what its own migration made."""
    losses = [loss for loss in losses if not loss.is_declared(step.script.allows | allowed)]
    if losses and step.direction == "rollback":
        made = made_by(step)
        losses = [loss for loss in losses if not made.has(loss.table, loss.column)]
    return losses


def refuse(found: Iterable[tuple[Step, Sequence[Loss]]]) -> None:
    """Refuse what scripts have lost, each named by its file, or its id if it has none.

    Raises:
        CheckFailed: There is any; `.violations` are the losses.
    """
    lossy = [(step.script.path, str(step.script.path or step.name), losses) for step, losses in found if losses]
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
