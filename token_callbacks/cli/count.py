"""``token-callbacks count``: the tokens of files, offline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from token_callbacks.counting.files import FileCount
    from token_callbacks.prices import Price
    from token_callbacks.reports.shapes import PromptPrice


@click.command(short_help="The tokens of files, offline.")
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("-m", "--model", default="gpt-4o", show_default=True, help="Whose tokens to count.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
def count(files: tuple[str, ...], model: str, as_json: bool) -> None:
    """Count the tokens of FILES, or of what comes in, offline.

    Bytes that are no UTF-8 count as the replacement character. "~" stands before an estimate: where the model's own
    vocabulary is not on this machine. The price is that of a prompt sent now, and "-" where it is not known (pip
    install 'token-callbacks[prices]', or name a table of your own in TOKEN_CALLBACKS_PRICES).

    \b
    Examples:
      token-callbacks count README.md docs/*.md --model gpt-4o
      git diff | token-callbacks count -m claude-sonnet-4-5 --json
    """  # noqa: D301 - click reads the backspace: it leaves the lines after it as they are
    from token_callbacks.counting.files import counted_files

    _print_counts(counted_files(files or ("-",), model), model, as_json=as_json)


def _print_counts(counted: Iterable[FileCount], model: str, *, as_json: bool) -> None:
    from token_callbacks.cli.pricing import price_book
    from token_callbacks.counting.files import prompt_price
    from token_callbacks.ledger import utc_now

    files = list(counted)
    total, is_exact = sum(file.tokens for file in files), all(file.is_exact for file in files)
    price = prompt_price(model, total, book=price_book(), moment=utc_now())
    if as_json:
        _print_json(files, total, model, price, is_exact=is_exact)
    else:
        _print_table(files, total, model, price, is_exact=is_exact)


def _print_json(files: Sequence[FileCount], total: int, model: str, price: Price | None, *, is_exact: bool) -> None:
    from token_callbacks.reports.shapes import CountedFile, CountedFiles

    document = CountedFiles(
        model=model,
        files=[CountedFile(name=file.name, tokens=file.tokens, is_exact=file.is_exact) for file in files],
        tokens=total,
        is_exact=is_exact,
        prompt_price=None if price is None else _shaped(price),
    )
    click.echo(msgspec.json.encode(document))


def _print_table(files: Sequence[FileCount], total: int, model: str, price: Price | None, *, is_exact: bool) -> None:
    from rich.table import Table

    from token_callbacks.cli.terminal import console
    from token_callbacks.prices.costs import as_text
    from token_callbacks.reports.texts import priced, readable

    table = Table("file", "tokens", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for file in files:
        table.add_row(readable(file.name), _tokens(file.tokens, file.is_exact))
    table.add_section()
    table.add_row(f"total for {readable(model)}", _tokens(total, is_exact))
    table.add_row("as a prompt", "-" if price is None else f"{as_text(price.amount)} {price.currency}")
    screen = console()
    screen.print(table)
    if price is not None:
        screen.print(f"prices: {priced([price.told_by])}", style="dim")


def _shaped(price: Price) -> PromptPrice:
    from token_callbacks.prices.costs import as_text
    from token_callbacks.reports.shapes import PromptPrice

    amount = as_text(price.amount)
    return PromptPrice(amount=amount, currency=price.currency, source=price.source, dated=price.dated, day=price.day)


def _tokens(tokens: int, is_exact: bool) -> str:
    return f"{'' if is_exact else '~'}{tokens:,}"
