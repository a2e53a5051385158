"""A run's tree as a terminal shows it: where a line is too long it ends between two facts, never inside one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from token_callbacks.records import CallRecord, Outcome, Provenance, RunSummary, in_zone
from token_callbacks.reports.listing import duration, run_cells
from token_callbacks.reports.shapes import RunBranch, RunTree
from token_callbacks.reports.texts import LONGEST_NAME, Signs, fitted, numbered, readable

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

_GUIDE = 4
"""Columns that a level of the tree takes."""
_LEAST_ROOM = 20


class _Fact(NamedTuple):
    text: str
    style: str = ""


class TreePrinter:
    """Draws trees for a terminal of so many columns (``None``: as wide as it takes), with the times of one zone."""

    def __init__(self, *, zone: ZoneInfo, signs: Signs, width: int | None) -> None:
        self._zone = zone
        self._signs = signs
        self._width = width

    def drawn(self, tree: RunTree) -> Tree:
        """Draw a run, its steps, agents and calls, and below them the runs that were opened in it."""
        from rich.tree import Tree

        root = Tree(self._run(tree.run, 0), guide_style="dim")
        self._add_to(root, tree, 1)
        return root

    def _add_to(self, node: Tree, tree: RunTree, depth: int) -> None:
        for step, branches in _by_step(tree.branches).items():
            if step is None:
                self._add_branches(node, branches, depth)
            else:
                below = node.add(self._titled("step", step, branches, depth))
                self._add_branches(below, branches, depth + 1)
        for nested in tree.nested:
            self._add_to(node.add(self._run(nested.run, depth)), nested, depth + 1)
        if tree.nested_left_out:
            more = _Fact(
                f"{self._signs.cut} {numbered(tree.nested_left_out, 'run', 'runs')} more, in one another", "dim"
            )
            node.add(self._wrapped([more], depth))

    def _add_branches(self, node: Tree, branches: Iterable[RunBranch], depth: int) -> None:
        for branch in branches:
            if branch.agent is None:
                self._add_calls(node, branch, depth)
            else:
                below = node.add(self._titled("agent", branch.agent, [branch], depth))
                self._add_calls(below, branch, depth + 1)

    def _add_calls(self, node: Tree, branch: RunBranch, depth: int) -> None:
        for record in branch.calls:
            node.add(self._wrapped(self._call(record), depth))
        if branch.calls_left_out:
            more = _Fact(f"{self._signs.cut} {_calls(branch.calls_left_out)} more (--calls N shows N)", "dim")
            node.add(self._wrapped([more], depth))

    def _run(self, run: RunSummary, depth: int) -> Text:
        from rich.text import Text

        shown = run_cells(run, self._zone, self._signs)
        first = [_Fact(self._readable(run.name), "bold"), _Fact(shown["outcome"]), _Fact(shown["duration"])]
        began = f"{shown['started']} {in_zone(run.started_at, self._zone):%Z}"
        tags = (_Fact(f"{self._readable(key)}={self._readable(value)}", "dim") for key, value in run.tags.items())
        figures = [_Fact(f"{name} {shown[name]}") for name in ("embedding", "prompt", "completion", "total", "cost")]
        return Text("\n").join(
            [
                self._wrapped(first, depth),
                self._wrapped([_Fact(shown["run"], "dim"), _Fact(began, "dim"), *tags], depth),
                self._wrapped([*figures, _Fact(_calls(run.calls.llm + run.calls.embedding))], depth),
            ]
        )

    def _titled(self, kind: str, name: str, branches: list[RunBranch], depth: int) -> Text:
        facts = [
            _Fact(f"{kind} {self._readable(name)}", "bold"),
            _Fact(f"embedding {sum(branch.embedding_tokens for branch in branches):,}"),
            _Fact(f"prompt {sum(branch.llm_prompt_tokens for branch in branches):,}"),
            _Fact(f"completion {sum(branch.llm_completion_tokens for branch in branches):,}"),
            _Fact(_calls(sum(len(branch.calls) + branch.calls_left_out for branch in branches))),
        ]
        return self._wrapped(facts, depth)

    def _call(self, record: CallRecord) -> Iterator[_Fact]:
        yield _Fact(f"{in_zone(record.started_at, self._zone):%H:%M:%S}", "dim")
        model = record.model or record.response_model
        yield _Fact(self._signs.unknown if model is None else self._readable(model), "bold")
        if record.outcome is not Outcome.COMPLETED:
            why = f" {self._readable(record.error)}" if record.error else ""
            yield _Fact(f"{record.outcome.value}{why}", "red")
        if record.attempt > 1:
            yield _Fact(f"attempt {record.attempt}")
        if record.cached:
            yield _Fact("from the cache")
        yield from self._figures(record)
        if record.time_to_first_token_seconds is not None:
            yield _Fact(f"first token {duration(record.time_to_first_token_seconds)}")
        yield _Fact(f"took {duration(max(0.0, (record.ended_at - record.started_at).total_seconds()))}")

    def _figures(self, record: CallRecord) -> Iterator[_Fact]:
        usage, sources = record.usage, record.provenance
        prompt_parts = {"cached": usage.cache_read_tokens, "written": usage.cache_write_tokens}
        yield from self._figure("embedding", usage.embedding_tokens, sources.embedding, {})
        yield from self._figure("prompt", usage.prompt_tokens, sources.prompt, prompt_parts)
        parts = {"reasoning": usage.reasoning_tokens}
        yield from self._figure("completion", usage.completion_tokens, sources.completion, parts)

    def _figure(
        self, name: str, figure: int | None, source: Provenance | None, parts: dict[str, int | None]
    ) -> Iterator[_Fact]:
        if figure is None and source is None:
            return
        marks = {Provenance.ESTIMATED: self._signs.about, Provenance.PARTIAL: self._signs.at_least, None: ""}
        shown = self._signs.unknown if figure is None else f"{marks.get(source, '')}{figure:,}"
        told = ", ".join(f"{part} {count:,}" for part, count in parts.items() if count)
        yield _Fact(f"{name} {shown}{f' ({told})' if told else ''}{f' {source.value}' if source else ''}")

    def _wrapped(self, facts: Iterable[_Fact], depth: int) -> Text:
        from rich.text import Text

        room = None if self._width is None else max(_LEAST_ROOM, self._width - _GUIDE * depth)
        text, used = Text(), 0
        for fact in facts:
            shown = Text(fact.text if room is None else fitted(fact.text, room, self._signs.cut), fact.style)
            if used and room is not None and used + 2 + shown.cell_len > room:
                text, used = text.append("\n"), 0
            text.append("  " if used else "").append_text(shown)
            used += shown.cell_len + (2 if used else 0)
        return text

    def _readable(self, text: str) -> str:
        return readable(text, LONGEST_NAME, self._signs.cut)


def _by_step(branches: Iterable[RunBranch]) -> dict[str | None, list[RunBranch]]:
    steps: dict[str | None, list[RunBranch]] = {}
    for branch in branches:
        steps.setdefault(branch.step, []).append(branch)
    return steps


def _calls(number: int) -> str:
    return numbered(number, "call", "calls")
