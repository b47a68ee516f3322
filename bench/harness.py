"""How it is measured: rounds in which every contender has its turn, and what is made of their times.

A round gives each contender a few milliseconds, one after the other, in an order that moves on from round to round, so that a
change of the machine's speed meets all of them. Ratios are taken within a round; what is reported is their median. Where the
system gave the processor to another program in a turn, the turn is repeated a few times; the share of the turns that were never
free of it is noted, and says how far the run is to be trusted.
"""

from __future__ import annotations

import gc
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

#: A stored run is compared by this: more than so much slower …
SLOWER_BY = 1.10
#: … and beyond the noise: the new ratios' lower quartile is above the stored ones' upper quartile.
RULE = (
    "slower: the median of the ratios to the base grew by more than 10 %, and the lower quartile of the new ratios is above "
    "the upper quartile of the stored ones"
)

#: A turn in which the system took the processor away is repeated so often at the most, unless it is a long one.
_TRIES = 4
_LONG = 0.1


@attrs.frozen
class Turn:
    """What some calls took in seconds, without their preparation, and whether the system interrupted them."""

    seconds: float
    interrupted: bool


#: Makes so many calls and says what they took.
Timed = Callable[[int], Turn]


@attrs.frozen
class Subject:
    """One contender in one operation: `run(calls)` prepares, measures and returns seconds; `units` are counted in a call."""

    name: str
    run: Timed
    units: int = 1


@attrs.frozen
class Times:
    """Seconds for a unit, one for each round, in their order, and the share of the rounds that was interrupted."""

    rounds: list[float]
    interrupted: float = 0.0

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def minimum(self) -> float:
        """The best round."""
        return min(self.rounds)


def interleave(
    subjects: Sequence[Subject], *, rounds: int, calls: int | None, seconds: float, at_most: int = 20_000
) -> dict[str, Times]:
    """Measure the subjects round by round.

    `calls` are made in each round, or, if that is None, as many as take about `seconds`, which a first run finds out. That
    run also warms the contender up.
    """
    planned = {subject.name: calls or _calibrated(subject, seconds, at_most) for subject in subjects}
    if calls is not None:
        for subject in subjects:
            subject.run(min(calls, 2))
    measured: dict[str, list[Turn]] = {subject.name: [] for subject in subjects}
    # what is there already is not searched for garbage again and again; what a contender makes in its turn is
    gc.collect()
    gc.freeze()
    try:
        for number in range(rounds):
            first = number % len(subjects)
            for subject in (*subjects[first:], *subjects[:first]):
                measured[subject.name].append(_best(subject.run, planned[subject.name]))
    finally:
        gc.unfreeze()
    return {
        subject.name: Times(
            [turn.seconds / planned[subject.name] / subject.units for turn in measured[subject.name]],
            statistics.mean(turn.interrupted for turn in measured[subject.name]),
        )
        for subject in subjects
    }


def _best(run: Timed, calls: int) -> Turn:
    """Return the first turn that was not interrupted, or else the fastest of a few."""
    best = run(calls)
    for _ in range(_TRIES - 1):
        if not best.interrupted or best.seconds > _LONG:
            break
        best = min(best, run(calls), key=lambda turn: (turn.interrupted, turn.seconds))
    return best


def interruptions() -> int:
    """Return how often the system has taken the processor away from this thread; always 0 where it does not say."""
    if not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def timed(call: Callable[..., object], prepare: Callable[[int], Sequence[tuple[Any, ...]]]) -> Timed:
    """Return what measures calls with arguments that were made before the clock starts."""

    def run(calls: int) -> Turn:
        arguments = prepare(calls)
        before = interruptions()
        begun = time.perf_counter()
        for given in arguments:
            call(*given)
        seconds = time.perf_counter() - begun
        return Turn(seconds, interruptions() != before)

    return run


def ratios(times: Times, base: Times) -> list[float]:
    """Return how much longer it took than the base, for each round."""
    return [own / other for own, other in zip(times.rounds, base.rounds, strict=True)]


def summary(measured: Mapping[str, Times], bases: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return for each contender its median, minimum and rounds, and its ratio to each base that took part."""
    found = {}
    for name, times in measured.items():
        found[name] = {"median": times.median, "minimum": times.minimum, "rounds": times.rounds, "ratios": {}}
        found[name]["interrupted"] = times.interrupted
        for base in bases:
            if base in measured:
                found[name]["ratios"][base] = statistics.median(ratios(times, measured[base]))
    return found


def _calibrated(subject: Subject, seconds: float, at_most: int) -> int:
    """Return how many calls take about so long."""
    calls = 1
    while calls < at_most:
        # the better of two: a first write makes files, and few calls in a turn would be measured as slower than many
        took = min(subject.run(calls).seconds, subject.run(calls).seconds)
        if took >= seconds / 4:
            return max(1, min(int(calls * seconds / took), at_most))
        calls *= 4
    return at_most


# ---------------------------------------------------------------- comparison


@attrs.frozen
class Slower:
    """An operation that got slower than it was in a stored run."""

    operation: str
    contender: str
    base: str
    before: float
    now: float

    def __str__(self) -> str:
        grown = (self.now / self.before - 1) * 100
        return f"{self.operation}: {self.contender} {self.before:.2f} → {self.now:.2f} × {self.base} (+{grown:.0f} %)"


def compare(now: Mapping[str, Any], before: Mapping[str, Any], contenders: Sequence[str]) -> list[Slower]:
    """Return what got slower by the `RULE`. Both are the `operations` of a document; ratios make machines comparable."""
    found = []
    for operation, measured in now.items():
        for name in contenders:
            new, old = measured["contenders"], before.get(operation, {}).get("contenders", {})
            base = measured["base"]
            if name == base or not all(who in run for who in (name, base) for run in (new, old)):
                continue
            new_ratios, old_ratios = (
                ratios(Times(run[name]["rounds"]), Times(run[base]["rounds"])) for run in (new, old)
            )
            if is_slower(new_ratios, old_ratios):
                medians = (statistics.median(old_ratios), statistics.median(new_ratios))
                found.append(Slower(operation, name, base, *medians))
    return found


def is_slower(now: Sequence[float], before: Sequence[float]) -> bool:
    """Return whether ratios grew by more than the noise, as the `RULE` says."""
    grown = statistics.median(now) > statistics.median(before) * SLOWER_BY
    return grown and _quartile(now, 1) > _quartile(before, 3)


def _quartile(values: Sequence[float], which: int) -> float:
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=4, method="inclusive")[which - 1]
