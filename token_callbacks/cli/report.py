"""``token-callbacks report``: what was used, by run, day, model and so on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import tzinfo
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

import click
import msgspec

from token_callbacks.cli.options import (
    Span,
    no_calls,
    paths_argument,
    span_of,
    span_options,
    tag_option,
    zone_option,
)

if TYPE_CHECKING:
    from token_callbacks.reports.groups import Aggregate, Filter
    from token_callbacks.reports.rows import Row

OVER, NOT_SURE = 3, 4

_FORM = f"{__name__}.form"

_EXIT_CODES = """\b
Exit codes:
  0  done, and within the limits of --fail-over and --fail-over-tokens
  1  could not be done, or nothing is logged
  2  wrong use, such as a folder that is not there
  3  over a limit
  4  within the limits as far as is known, but some calls have no price, or
     used more than is known, or some lines could not be read"""


def _grouping(context: click.Context, parameter: click.Parameter, text: str) -> str:
    from token_callbacks.reports.groups import GROUPINGS, TAG

    if text not in GROUPINGS and not (text.startswith(TAG) and text != TAG):
        raise click.BadParameter(f"{text[:99]!r} is none of {', '.join(GROUPINGS)}, tag:KEY", context, parameter)
    return text


def _groupings(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from token_callbacks.reports.groups import GROUPINGS, TAG

    del context, parameter  # click's signature
    return [name for name in (*GROUPINGS, TAG) if name.startswith(incomplete)]


def _form(context: click.Context, parameter: click.Parameter, is_chosen: bool) -> None:
    if not is_chosen:
        return
    if (other := context.meta.setdefault(_FORM, parameter.name)) != parameter.name:
        raise click.UsageError(f"--{other} and --{parameter.name} are two forms of one report: choose one")


def _amount(context: click.Context, parameter: click.Parameter, text: str | None) -> Decimal | None:
    if text is None:
        return None
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise click.BadParameter(f"{text[:99]!r} is no amount of dollars: write 5 or 0.25", context, parameter)
    return amount


class _Limits(NamedTuple):
    usd: Decimal | None
    tokens: int | None


class _Looks(NamedTuple):
    """How the report is to look."""

    form: str
    by: str
    zone: ZoneInfo
    span: Span


@click.command(short_help="What was used, by day, model, run and so on.", epilog=_EXIT_CODES)
@paths_argument
@click.option("--by", callback=_grouping, metavar="GROUPING", shell_complete=_groupings, default="day",
              show_default=True, help="run, day, week, month, model, provider, step, agent, or tag:KEY.")  # fmt: skip
@span_options
@click.option("--run", metavar="RUN", help="Only this run: an id, the beginning of one, or a name.")
@click.option("--model", metavar="PATTERN", help="Only models of this name; * stands for anything.")
@tag_option
@zone_option
@click.option("--details", is_flag=True, help="Below each row, the same by model.")
@click.option(
    "--json",
    is_flag=True,
    callback=_form,
    expose_value=False,
    help="Print one JSON object: token-callbacks schema report.",
)
@click.option("--csv", is_flag=True, callback=_form, expose_value=False, help="Print CSV, with all columns.")
@click.option(
    "--markdown",
    is_flag=True,
    callback=_form,
    expose_value=False,
    help="Print a Markdown table, with all columns and the notes.",
)
@click.option("--prices", type=click.Path(exists=True, dir_okay=False), help="A table of your own prices (TOML, JSON).")
@click.option("--fail-over", metavar="USD", callback=_amount, help="End with exit code 3 if it cost more.")
@click.option("--fail-over-tokens", type=click.IntRange(min=0), metavar="N",
              help="End with exit code 3 if the total (prompt and completion) is more.")  # fmt: skip
def report(
    *,
    paths: tuple[str, ...],
    by: str,
    since: str | None,
    until: str | None,
    run: str | None,
    model: str | None,
    tag: tuple[str, str | None] | None,
    zone: ZoneInfo,
    details: bool,
    prices: str | None,
    fail_over: Decimal | None,
    fail_over_tokens: int | None,
) -> None:
    """Report what was used, from the lines in PATHS: folders, calls-*.jsonl files or addresses (token_logs).

    "≥" stands before a lower bound, "~" before what holds an estimate, and a dash for what is not known. A terminal
    that is too narrow gets fewer columns.

    \b
    Examples:
      token-callbacks report
      token-callbacks report --by model --since 7d
      token-callbacks report --by run --run nightly-digest --details
      token-callbacks report --by tag:team --since 2026-11-01 --until 2026-11-30 --csv > november.csv
      token-callbacks report --since today --fail-over 5
    """  # noqa: D301 - click reads the backspace: it leaves the lines after it as they are
    from token_callbacks.reports.groups import Filter

    form = click.get_current_context().meta.get(_FORM, "table")
    span = span_of(since, until, zone)
    where = Filter(since=span.since, until=span.until, run=run, model=model, tag=tag)
    made = _made(paths, by=by, where=where, zone=zone, details=details, prices=prices)
    if made.total.calls == 0:
        _explain_nothing(paths, made, where)
    _print(made, _Looks(form, by, zone, span), names=_names(paths, by))
    _hold_to(_Limits(fail_over, fail_over_tokens), made)


def _made(
    paths: Sequence[str], *, by: str, where: Filter, zone: tzinfo, details: bool, prices: str | None
) -> Aggregate:
    from token_callbacks.cli.pricing import price_book
    from token_callbacks.cli.terminal import ReadingBar
    from token_callbacks.reports.groups import aggregated
    from token_callbacks.reports.logs import load

    with ReadingBar() as bar:
        return aggregated(
            load(*paths), by=by, where=where, tz=zone, book=price_book(prices), details=details, progress=bar
        )


def _names(paths: Sequence[str], by: str) -> dict[str | None, str]:
    """Read the names of runs, where the groups are runs."""
    from token_callbacks.reports.logs import load

    if by != "run":
        return {}
    return {facts.run_id: facts.name for facts in load(*paths).run_facts().values()}


def _explain_nothing(paths: Sequence[str], made: Aggregate, wanted: Filter) -> None:
    if filters := [f"--{name}" for name, value in msgspec.structs.asdict(wanted).items() if value is not None]:
        click.echo(f"no calls in {', '.join(paths)} fit {' and '.join(filters)}", err=True)
        return
    raise no_calls(paths, made.skipped)


def _print(made: Aggregate, looks: _Looks, *, names: dict[str | None, str]) -> None:
    if looks.form == "table":
        _print_table(made, looks, names)
    elif looks.form == "markdown":
        _print_markdown(made, looks)
    else:
        if looks.form == "json":
            _print_json(made, looks, names)
        else:
            _print_csv(made)
        for note in made.skipped.told():
            click.echo(f"not in it: {note}", err=True)


def _print_csv(made: Aggregate) -> None:
    from token_callbacks.reports.tables import as_csv, lines

    click.echo(as_csv(lines(made.rows, made.total, made.details)), nl=False)


def _print_markdown(made: Aggregate, looks: _Looks) -> None:
    from token_callbacks.reports.notes import notes
    from token_callbacks.reports.tables import as_markdown, lines, notes_as_markdown
    from token_callbacks.reports.texts import PRETTY

    click.echo(as_markdown(lines(made.rows, made.total, made.details), head=looks.by), nl=False)
    click.echo(notes_as_markdown(notes(made, PRETTY)), nl=False)


def _print_json(made: Aggregate, looks: _Looks, names: dict[str | None, str]) -> None:
    from token_callbacks.reports.documents import shaped_row, shaped_skipped
    from token_callbacks.reports.shapes import Report

    details: Sequence[Sequence[Row] | None] = made.details or [None] * len(made.rows)
    rows = [
        shaped_row(row, name=names.get(row.group), models=models)
        for row, models in zip(made.rows, details, strict=True)
    ]
    document = Report(
        by=looks.by,
        timezone=looks.zone.key,
        since=looks.span.since,
        until=looks.span.until,
        rows=rows,
        total=shaped_row(made.total),
        skipped=shaped_skipped(made.skipped),
    )
    click.echo(msgspec.json.encode(document))


def _print_table(made: Aggregate, looks: _Looks, names: dict[str | None, str]) -> None:
    from token_callbacks.cli.terminal import console, signs, width_of
    from token_callbacks.reports.notes import notes
    from token_callbacks.reports.tables import fitted_lines, lines

    if not made.rows:
        return
    screen = console()
    shown = list(lines(made.rows, made.total, made.details, names=names))
    table, left_out = fitted_lines(shown, head=looks.by, width=width_of(screen), signs=signs())
    screen.print(table)
    if left_out:
        screen.print(f"no room for: {', '.join(left_out)}", style="dim")
    for note in notes(made, signs()):
        screen.print(note, style="dim")


def _hold_to(limits: _Limits, made: Aggregate) -> None:
    """End the command with exit code 3 or 4 where a limit is passed, or may be."""
    over = list(_over(limits, made.total))
    if over:
        click.echo(f"over the limit: {'; '.join(over)}", err=True)
        raise click.exceptions.Exit(OVER)
    doubts = list(_doubts(limits, made))
    if doubts:
        click.echo(f"within the limit as far as is known, but {'; '.join(doubts)}", err=True)
        raise click.exceptions.Exit(NOT_SURE)


def _over(limits: _Limits, total: Row) -> Iterator[str]:
    dollars = total.costs.get("USD", Decimal())
    if limits.usd is not None and dollars > limits.usd:
        yield f"it cost {dollars:f} USD, the limit is {limits.usd:f}"
    if limits.tokens is not None and total.usage.total_llm_tokens > limits.tokens:
        yield f"the total is {total.usage.total_llm_tokens:,} tokens, the limit is {limits.tokens:,}"


def _doubts(limits: _Limits, made: Aggregate) -> Iterator[str]:
    from token_callbacks.reports.texts import numbered

    if limits == (None, None):
        return
    total, skipped = made.total, made.skipped
    if limits.usd is not None and total.unpriced_calls:
        calls = numbered(total.unpriced_calls, "call has", "calls have")
        yield f"{calls} no known price (--prices FILE tells yours)"
    if limits.usd is not None and (others := sorted(set(total.costs) - {"USD"})):
        yield f"some calls are priced in {', '.join(others)}, which --fail-over does not compare"
    if total.lower_bound:
        yield "what some calls used is not known, or not in full"
    if unread := skipped.unreadable + skipped.newer + skipped.too_long + skipped.unreadable_files:
        yield f"{numbered(unread, 'line or file', 'lines or files')} could not be read"
