"""The prices that the subcommands apply."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from token_callbacks.prices import PriceBook
    from token_callbacks.recovery import Pricing


def pricing() -> Pricing:
    """Return what prices the sums of a run, as of now."""
    from token_callbacks.ledger import utc_now
    from token_callbacks.prices import cost_of

    book = price_book()
    return lambda totals: cost_of(totals.charges, book, now=utc_now())


def price_book(own: str | None = None) -> PriceBook:
    """Open the user's own prices (``None``: those that the environment names, if it does) and the installed ones."""
    from token_callbacks.errors import InvalidPrices
    from token_callbacks.prices import PriceBook

    try:
        return PriceBook(own)
    except InvalidPrices as error:
        raise click.ClickException(str(error)) from error
