"""How it is measured: rounds in which every contender has its turn, and what is made of their times.

A round gives each contender a few milliseconds, one after the other, in an order that moves on from round to round, so
that a change of the machine's speed meets all of them. Ratios are taken within a round; their median is reported. A
turn in which the system gave the processor to another program is repeated a few times; the share of the turns that were
never free of it is noted, and says how far the run is to be trusted.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

#: How a stored run is compared.
SLOWER_BY = 1.10
RULE = (
    "slower: the median of the ratios to the base grew by more than 10 %, and the lower quartile of the new ratios is "
    "above the upper quartile of the stored ones"
)

#: A turn in which the system took the processor away is repeated so often at the most, unless it is a long one.
_TRIES = 4
_LONG = 0.1

#: The positional arguments of each call.
Arguments = Sequence[tuple[Any, ...]]


@attrs.frozen
class Turn:
    """The seconds that some calls took, without their preparation, and whether the system interrupted them."""

    seconds: float
    interrupted: bool


#: Makes so many calls and says what they took.
Timed = Callable[[int], Turn]


@attrs.frozen
class Subject:
    """One contender in one operation: `run(calls)` prepares and measures; a call counts as so many `units`."""

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
        return statistics.median(self.rounds)


def timed(call: Callable[..., object], prepare: Callable[[int], Arguments]) -> Timed:
    """Return a function that measures calls; it makes their arguments before the clock starts."""

    def run(calls: int) -> Turn:
        arguments = prepare(calls)
        before, begun = interruptions(), time.perf_counter()
        for given in arguments:
            call(*given)
        seconds = time.perf_counter() - begun
        return Turn(seconds, interruptions() != before)

    return run


def timed_async(runner: asyncio.Runner, call: Callable[..., Any], prepare: Callable[[int], Arguments]) -> Timed:
    """Return the same for a coroutine function, whose calls are awaited one after the other."""

    async def run(arguments: Arguments) -> Turn:
        before, begun = interruptions(), time.perf_counter()
        for given in arguments:
            await call(*given)
        seconds = time.perf_counter() - begun
        return Turn(seconds, interruptions() != before)

    return lambda calls: runner.run(run(prepare(calls)))


def interruptions() -> int:
    """Return how often the system has taken the processor away from this thread; always 0 where it does not say."""
    if not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def interleave(
    subjects: Sequence[Subject], *, rounds: int, calls: int | None, seconds: float, at_most: int = 20_000
) -> dict[str, Times]:
    """Measure the subjects round by round.

    Each round makes `calls`, or, if that is None, as many as take about `seconds`, which a first run finds out. The
    first run also warms the contender up.
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


# ---------------------------------------------------------------- figures


def ratio(times: Sequence[float], base: Sequence[float]) -> float:
    """Return how much longer it took than the base: the median of the rounds' own ratios."""
    return statistics.median(_ratios(times, base))


def summary(measured: Mapping[str, Times], bases: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return for each contender its base, median and rounds, and its ratio to the base, None if that took no part."""
    return {
        name: {
            "base": bases[name],
            "median": times.median,
            "ratio": ratio(times.rounds, measured[bases[name]].rounds) if bases[name] in measured else None,
            "interrupted": times.interrupted,
            "rounds": times.rounds,
        }
        for name, times in measured.items()
    }


def _ratios(times: Sequence[float], base: Sequence[float]) -> list[float]:
    return [own / other for own, other in zip(times, base, strict=True)]


# ---------------------------------------------------------------- comparison


def compare(now: Mapping[str, Any], before: Mapping[str, Any], contenders: Sequence[str]) -> list[str]:
    """Say what got slower by the `RULE`. Both are the `operations` of a document; ratios make machines comparable."""
    found = []
    for operation, entry in now.items():
        new, old = entry["contenders"], before.get(operation, {}).get("contenders", {})
        for name in contenders:
            base = new[name]["base"] if name in new else None
            if name == base or not all(who in run for who in (name, base) for run in (new, old)):
                continue
            ratios = [_ratios(run[name]["rounds"], run[base]["rounds"]) for run in (old, new)]
            if is_slower(*ratios):
                was, is_now = map(statistics.median, ratios)
                found.append(f"{operation}: {name} {was:.2f} → {is_now:.2f} × {base} (+{is_now / was - 1:.0%})")
    return found


def is_slower(before: Sequence[float], now: Sequence[float]) -> bool:
    """Return whether ratios grew by more than the noise, as the `RULE` says."""
    was, is_now = (
        statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        for values in (before, now)
    )
    return is_now[1] > was[1] * SLOWER_BY and is_now[0] > was[2]
