"""``token-callbacks count``: the tokens of files, offline."""

from __future__ import annotations

from collections.abc import Iterable
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
    from rich.console import Console
    from rich.table import Table

    from token_callbacks.cli.pricing import price_book
    from token_callbacks.counting.files import prompt_price
    from token_callbacks.ledger import utc_now
    from token_callbacks.prices.costs import as_text
    from token_callbacks.reports.texts import priced

    files = list(counted)
    total, is_exact = sum(file.tokens for file in files), all(file.is_exact for file in files)
    price = prompt_price(model, total, book=price_book(), moment=utc_now())
    if as_json:
        told = {"model": model, "files": files, "tokens": total, "is_exact": is_exact, "prompt_price": _shaped(price)}
        click.echo(msgspec.json.encode(told))
        return
    table = Table("file", "tokens", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for file in files:
        table.add_row(file.name, _tokens(file.tokens, file.is_exact))
    table.add_section()
    table.add_row(f"total for {model}", _tokens(total, is_exact))
    table.add_row("as a prompt", "-" if price is None else f"{as_text(price.amount)} {price.currency}")
    screen = Console()
    screen.print(table)
    if price is not None:
        screen.print(f"prices: {priced([price.told_by])}", soft_wrap=True)


def _shaped(price: Price | None) -> PromptPrice | None:
    from token_callbacks.prices.costs import as_text
    from token_callbacks.reports.shapes import PromptPrice

    if price is None:
        return None
    amount = as_text(price.amount)
    return PromptPrice(amount=amount, currency=price.currency, source=price.source, dated=price.dated, day=price.day)


def _tokens(tokens: int, is_exact: bool) -> str:
    return f"{'' if is_exact else '~'}{tokens:,}"
