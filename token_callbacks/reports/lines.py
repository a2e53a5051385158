"""The lines of one file of calls, read one by one and never more of one than a call can have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, TypeVar

import msgspec

from token_callbacks.records import SCHEMA_VERSION
from token_callbacks.reports.skipped import Skipped
from token_callbacks.sinks.log_folder import lines_of

_MAJOR = SCHEMA_VERSION.partition(".")[0]
_Line = TypeVar("_Line", bound=msgspec.Struct)


class _Version(msgspec.Struct):
    schema_version: str


_version = msgspec.json.Decoder(_Version)


def read(file: IO[bytes], decode: Callable[[bytes], _Line], *, shown: str, skipped: Skipped) -> Iterator[_Line]:
    """Decode the lines of a file, past those that are none of ours; ``shown``: the name to tell them by.

    What they are decoded to must have a ``schema_version``. Blank lines are nothing.
    """
    for number, line in enumerate(lines_of(file), 1):
        if line is None:
            skipped.note("too_long", f"{shown}:{number}")
            continue
        try:
            record = decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if line.strip():
                skipped.note(_what_is_wrong(line), f"{shown}:{number}")
            continue
        if _is_known(record.schema_version):  # type: ignore[attr-defined]
            yield record
        else:
            skipped.note("newer", f"{shown}:{number}")


def _is_known(schema_version: str) -> bool:
    return schema_version.partition(".")[0] == _MAJOR


def _what_is_wrong(line: bytes) -> str:
    try:
        return "unreadable" if _is_known(_version.decode(line).schema_version) else "newer"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "unreadable" if line.endswith(b"\n") else "torn"
