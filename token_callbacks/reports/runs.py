"""Runs as the files tell them, those that still go on included, and one of them by what it is called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from token_callbacks.errors import TokenCallbacksError
from token_callbacks.records import RunSummary

LAST = "last"
"""What the newest run may be called."""

_MOST_NAMED = 5


class NoSuchRun(TokenCallbacksError, LookupError):
    """No run is called so, or more than one."""


def newest_first(runs: Iterable[RunSummary]) -> list[RunSummary]:
    """Sort runs by their start; of two copies of one run, that which knows of more calls stays."""
    kept: dict[str, RunSummary] = {}
    for run in runs:
        other = kept.get(run.run_id)
        if other is None or _knows(run) > _knows(other):
            kept[run.run_id] = run
    return sorted(kept.values(), key=lambda run: (run.started_at, run.run_id), reverse=True)


def named_run(wanted: str, runs: Sequence[RunSummary]) -> RunSummary:
    """Find a run by its id, by how its id begins, by its name (the newest of that name), or by "last".

    ``runs``: newest first. Raises ``NoSuchRun`` where there is none, or where more than one id begins so.
    """
    if wanted == LAST and runs:
        return runs[0]
    exact = next((run for run in runs if run.run_id == wanted), None)
    by_name = next((run for run in runs if run.name == wanted), None)
    if (found := exact or by_name) is not None:
        return found
    alike = [run for run in runs if wanted and run.run_id.startswith(wanted)]
    if len(alike) == 1:
        return alike[0]
    raise NoSuchRun(_why(wanted, alike))


def begun_within(runs: Iterable[RunSummary], since: datetime | None, until: datetime | None) -> list[RunSummary]:
    """Keep the runs that began in a span of time; ``None`` is no bound, ``until`` itself is no more in it."""
    return [
        run for run in runs if (since is None or run.started_at >= since) and (until is None or run.started_at < until)
    ]


def tagged(runs: Iterable[RunSummary], tag: tuple[str, str | None] | None) -> list[RunSummary]:
    """Keep the runs that have a tag, whatever its value where that is ``None``; all where no tag is asked for."""
    if tag is None:
        return list(runs)
    key, value = tag
    return [run for run in runs if key in run.tags and value in (None, run.tags[key])]


def _knows(run: RunSummary) -> tuple[bool, int]:
    return run.ended_at is not None, run.calls.llm + run.calls.embedding


def _why(wanted: str, alike: Sequence[RunSummary]) -> str:
    if not alike:
        return f"no run has the id, the beginning of an id, or the name {wanted!r}; token-callbacks runs lists them"
    named = ", ".join(run.run_id for run in alike[:_MOST_NAMED])
    more = ", …" if len(alike) > _MOST_NAMED else ""
    return f"{len(alike)} runs have an id that begins with {wanted!r} ({named}{more}): give more of it"
