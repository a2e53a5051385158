"""Print a run's tables, and compare its figures with the ledger of the embedded server: what the examples share."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping

import click
from rich.console import Console
from rich.table import Table

from loopback_server import LoopbackServer
from token_callbacks import RunSummary
from token_callbacks.records import GroupTotals

Figures = tuple[int, int]
"""Prompt and completion tokens."""


def print_groups(title: str, groups: Iterable[GroupTotals]) -> None:
    """Print the share of each agent, or step, in a run."""
    table = Table(title, "calls", "prompt", "completion", "total")
    for group in groups:
        figures = (group.calls, group.llm_prompt_tokens, group.llm_completion_tokens, group.total_llm_tokens)
        table.add_row(group.name, *map(str, figures))
    Console().print(table)


def figures_by_name(groups: Iterable[GroupTotals]) -> dict[str | None, Figures]:
    """Return the figures of each group."""
    return {group.name: (group.llm_prompt_tokens, group.llm_completion_tokens) for group in groups}


def ledger_by_model(server: LoopbackServer) -> dict[str | None, Figures]:
    """Return what the server really gave out, by the model that was asked."""
    prompt, completion = Counter[str](), Counter[str]()
    for entry in server.ledger:
        prompt[entry.model] += entry.prompt_tokens
        completion[entry.model] += entry.completion_tokens
    return {model: (prompt[model], completion[model]) for model in prompt}


def total_of(server: LoopbackServer) -> Figures:
    """Return what the server gave out in all."""
    totals = server.ledger_totals()
    return totals.prompt_tokens, totals.completion_tokens


def total_of_run(summary: RunSummary) -> Figures:
    """Return what the run says."""
    return summary.llm_prompt_tokens, summary.llm_completion_tokens


def end_with_verdict(ours: Mapping[str, object], theirs: Mapping[str, object]) -> None:
    """End the program: with 0 where the run and the ledger say the same, else with 1 and what differs."""
    for name, figure in ours.items():
        if figure != theirs[name]:
            click.secho(f"NOT EQUAL: {name} is {figure} in the run, {theirs[name]} in the ledger", fg="red")
    if ours == theirs:
        click.secho("Equal: the run accounts for every token.", fg="green")
    sys.exit(0 if ours == theirs else 1)
