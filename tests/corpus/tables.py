"""What is printed of a replay: a table of exact figures, what was not played, and the groups that failed."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from tests.corpus.verdicts import FIGURES, RECORDS, Finding, Verdict

COLUMNS = (RECORDS, *FIGURES)


class Row(NamedTuple):
    """What a row of the table is about; exchanges that the framework answered with an exception stand apart."""

    framework: str
    shape: str
    route: str
    is_streamed: bool
    raises: bool


class Group(NamedTuple):
    """What failures have in common."""

    row: Row
    figure: str
    provenance: str | None


def exact_rows(verdicts: Iterable[Verdict]) -> Iterator[tuple[str, ...]]:
    """Give the table: what a row is about, how many plays were judged, and exact/all of each figure."""
    judged = _grouped((_row(each), each) for each in verdicts if each.played.reason_not_judged is None)
    for row in sorted(judged):
        yield (*_described(row), str(len(judged[row])), *_shares(judged[row]))
    everything = [each for group in judged.values() for each in group]
    yield ("all", "", "", "", str(len(everything)), *_shares(everything))


def not_played(verdicts: Iterable[Verdict]) -> list[tuple[str, str, str, str, int]]:
    """Count what was not played, by shape, route, streaming and the class of the error, most frequent first."""
    reasons = Counter(
        (*_described(_row(each)._replace(raises=False)), each.played.reason_not_judged)
        for each in verdicts
        if each.played.reason_not_judged is not None
    )
    return [
        (shape, route, stream, str(reason), times) for (_, shape, route, stream, reason), times in reasons.most_common()
    ]


def failing_groups(verdicts: Iterable[Verdict]) -> list[tuple[Group, list[tuple[Verdict, Finding]]]]:
    """Gather what is not exact by what the misses have in common, most numerous first."""
    groups = _grouped(
        (Group(_row(each), miss.figure, miss.provenance), (each, miss)) for each in verdicts for miss in each.misses
    )
    return sorted(groups.items(), key=lambda item: (-len(item[1]), item[0][:2]))


def failure_lines(verdicts: Iterable[Verdict], examples: int) -> Iterator[str]:
    """Tell each failing group, with some of its plays."""
    for group, misses in failing_groups(verdicts):
        yield f"{len(misses):5} x {' '.join(filter(None, _described(group.row)))}: {group.figure} ({group.provenance})"
        for each, miss in misses[:examples]:
            yield f"        {_example(each, miss)}"


def _example(verdict: Verdict, miss: Finding) -> str:
    play = verdict.played.play
    usage = msgspec.json.encode(verdict.provider_usage).decode()
    manner = "awaited" if play.is_async else "called"
    raised = f" raised {verdict.played.error}" if verdict.played.error else ""
    return f"{play.exchange['id']} {manner}{raised}: ours {miss.ours}, truth {miss.truth}; provider_usage {usage}"


def _grouped(pairs: Iterable[tuple[Hashable, Any]]) -> dict[Any, list[Any]]:
    groups: defaultdict[Any, list[Any]] = defaultdict(list)
    for key, value in pairs:
        groups[key].append(value)
    return groups


def _row(verdict: Verdict) -> Row:
    play = verdict.played.play
    return Row(
        framework=play.framework,
        shape=play.exchange["provider_shape"],
        route=play.route,
        is_streamed=play.exchange["stream"],
        raises=not verdict.is_answered,
    )


def _described(row: Row) -> tuple[str, str, str, str]:
    stream = ("stream" if row.is_streamed else "") + (" raises" if row.raises else "")
    return row.framework, row.shape, row.route, stream.strip()


def _shares(verdicts: list[Verdict]) -> list[str]:
    findings = [finding for each in verdicts for finding in each.findings]
    return [_share([finding for finding in findings if finding.figure == column]) for column in COLUMNS]


def _share(findings: list[Finding]) -> str:
    return f"{sum(finding.is_exact for finding in findings)}/{len(findings)}" if findings else ""
