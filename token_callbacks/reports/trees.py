"""A run as a tree: its steps, agents and calls, and the runs opened in it. Of the calls a few are kept, not all."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime

from token_callbacks.records import CallRecord, FourTotals, RunSummary
from token_callbacks.reports.shapes import RunBranch, RunTree
from token_callbacks.totals import Totals

_MOST_LEVELS = 50
"""Of runs in runs: a job that starts itself again from inside its run makes as many as it likes."""


class _Branch:
    """What is kept of one step and agent while the lines are read."""

    __slots__ = ("_first", "_most", "_seen", "began", "totals")

    def __init__(self, most: int) -> None:
        self.totals = Totals()
        self.began: datetime | None = None
        self._most = most
        self._first: list[tuple[float, int, CallRecord]] = []
        self._seen = 0

    def add(self, record: CallRecord) -> None:
        self.totals.add(record)
        self.began = min(self.began or record.started_at, record.started_at)
        self._seen += 1
        # A heap whose top is the latest of those kept: it goes when an earlier one comes.
        kept = (-record.started_at.timestamp(), -self._seen, record)
        if len(self._first) < self._most:
            heapq.heappush(self._first, kept)
        elif self._first:
            heapq.heappushpop(self._first, kept)

    def shaped(self, step: str | None, agent: str | None) -> RunBranch:
        calls = [record for _, _, record in sorted(self._first, reverse=True, key=lambda kept: kept[:2])]
        four: FourTotals = self.totals.four
        return RunBranch(
            step=step,
            agent=agent,
            embedding_tokens=four.embedding_tokens,
            llm_prompt_tokens=four.llm_prompt_tokens,
            llm_completion_tokens=four.llm_completion_tokens,
            total_llm_tokens=four.total_llm_tokens,
            calls=calls,
            calls_left_out=self._seen - len(calls),
        )


def tree(run: RunSummary, *, runs: Iterable[RunSummary], records: Iterable[CallRecord], most_calls: int) -> RunTree:
    """Make the tree of a run.

    ``runs``: all there are, of which the nested ones are taken. ``most_calls``: how many calls of a step and agent
    are kept, the earliest ones; their figures have all of them.
    """
    children: dict[str | None, list[RunSummary]] = {}
    for other in runs:
        children.setdefault(other.parent_run_id, []).append(other)
    wanted, left_out = _family(run, children)
    branches: dict[str, dict[tuple[str | None, str | None], _Branch]] = {run_id: {} for run_id in wanted}
    for record in records:
        if (of_run := branches.get(record.run_id)) is not None:
            key = (record.step, record.agent)
            branch = of_run.get(key)
            if branch is None:
                branch = of_run[key] = _Branch(most_calls)
            branch.add(record)
    return _shaped(run, wanted, left_out, children, branches)


def runs_in(tree: RunTree) -> Iterator[RunSummary]:
    """Yield the runs of a tree: its own, and those that were opened in it."""
    yield tree.run
    for nested in tree.nested:
        yield from runs_in(nested)


def _family(
    run: RunSummary, children: dict[str | None, list[RunSummary]]
) -> tuple[dict[str, RunSummary], Counter[str]]:
    """Find the runs of a tree, and of each of the deepest ones how many more lie in it."""
    wanted, left_out = {run.run_id: run}, Counter[str]()
    seen = {run.run_id}
    ahead: list[tuple[str, int, str | None]] = [(run.run_id, 1, None)]
    while ahead:
        run_id, level, deepest = ahead.pop()
        deepest = run_id if level == _MOST_LEVELS else deepest
        for child in children.get(run_id, ()):
            if child.run_id in seen:  # a file that somebody edited may name its own child as its parent
                continue
            seen.add(child.run_id)
            ahead.append((child.run_id, level + 1, deepest))
            if deepest is None:
                wanted[child.run_id] = child
            else:
                left_out[deepest] += 1
    return wanted, left_out


def _shaped(
    run: RunSummary,
    wanted: dict[str, RunSummary],
    left_out: Counter[str],
    children: dict[str | None, list[RunSummary]],
    branches: dict[str, dict[tuple[str | None, str | None], _Branch]],
) -> RunTree:
    del wanted[run.run_id]
    ordered = sorted(branches[run.run_id].items(), key=lambda item: item[1].began or run.started_at)
    nested = sorted(children.get(run.run_id, ()), key=lambda child: (child.started_at, child.run_id))
    return RunTree(
        run=run,
        branches=[branch.shaped(*key) for key, branch in ordered],
        nested=[_shaped(child, wanted, left_out, children, branches) for child in nested if child.run_id in wanted],
        nested_left_out=left_out[run.run_id],
    )
