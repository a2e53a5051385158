"""Time variants of one thing by turns, and compare them turn by turn.

A variant measures itself and returns seconds, so that it can leave its own preparation out. pyperf's runner gives each
benchmark processes of its own, and timeit knows no turns: on a shared machine either one drifts by more than what is
to be measured here. Kept of timeit are its loop and that the garbage collector rests.
"""

from __future__ import annotations

import gc
import statistics
import time
import timeit
from collections.abc import Callable, Mapping

import msgspec

Variant = Callable[[], float]
"""Do the thing once, or often, and return the seconds it took, each."""

clock = time.thread_time
"""Seconds of this thread on a processor: what other processes take meanwhile is not in it. Work only, no waiting."""


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds by variant, turn by turn."""

    turns: Mapping[str, list[float]]

    def seconds(self, name: str) -> float:
        """Return the median of one variant."""
        return statistics.median(self.turns[name])

    def added(self, name: str, *, over: str) -> float:
        """Return the median of what one variant takes more than another in the same turn, in seconds."""
        return statistics.median(a - b for a, b in zip(self.turns[name], self.turns[over], strict=True))


def side_by_side(variants: Mapping[str, Variant], *, turns: int) -> Timings:
    """Let the variants take turns, another one first each time; a turn before the first is not counted."""
    names = list(variants)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        variants[name]()
    gc.collect()
    gc.freeze()  # what the frameworks hold on to must not be collected again and again between the turns
    for turn in range(turns):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(_undisturbed(variants[name]))
    gc.unfreeze()
    return Timings(turns=taken)


def repeated(action: Callable[[], object], *, number: int) -> Variant:
    """Make a variant of an action that is too short to be timed once."""
    timer = timeit.Timer(action, timer=clock)
    return lambda: timer.timeit(number) / number


def _undisturbed(variant: Variant) -> float:
    gc.collect()
    gc.disable()
    try:
        return variant()
    finally:
        gc.enable()
