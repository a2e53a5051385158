"""Count the tokens of files, piece by piece, for the ``count`` command."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec

from token_callbacks.charges import Charge, band_of, period_of
from token_callbacks.counting.streams import StreamCounter
from token_callbacks.prices import Price, PriceBook
from token_callbacks.records import Usage

_PIECE = 2**18
"""Bytes that are read at once."""

_LONG = 2**22
"""Bytes from which on a terminal is shown how far it has come."""


class FileCount(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of one file; ``-`` is what came in."""

    name: str
    tokens: int
    is_exact: bool


def counted_files(names: Sequence[str], model: str) -> Iterator[FileCount]:
    """Count file by file; raises ``OSError`` for one that cannot be read."""
    for name in names:
        if name == "-":
            yield _counted(name, sys.stdin.buffer, None, model)
        else:
            path = Path(name)
            with path.open("rb") as stream:
                yield _counted(name, stream, path.stat().st_size, model)


def prompt_price(model: str, tokens: int, *, book: PriceBook, moment: datetime) -> Price | None:
    """Price a prompt, as if it were sent at that moment; ``None`` where the price is not known."""
    charge = Charge(
        provider=None,
        model=model,
        day=moment.astimezone(UTC).date(),
        period=period_of(moment.astimezone(UTC)),
        band=band_of(tokens),
    )
    return book.price(charge, Usage(prompt_tokens=tokens, completion_tokens=0), calls=1)


def _counted(name: str, stream: BinaryIO, size: int | None, model: str) -> FileCount:
    counter = StreamCounter(model)
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    with _progress(name, stream, size) as readable:
        while piece := readable.read(_PIECE):
            counter.feed(decode(piece))
    counter.feed(decode(b"", final=True))
    return FileCount(name=name, tokens=counter.total(), is_exact=counter.is_exact)


def _progress(name: str, stream: BinaryIO, size: int | None) -> nullcontext[BinaryIO]:
    if size is None or size < _LONG or not sys.stderr.isatty():
        return nullcontext(stream)
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import wrap_file

    return wrap_file(stream, size, description=escape(name), console=Console(stderr=True), transient=True)  # type: ignore[return-value]
