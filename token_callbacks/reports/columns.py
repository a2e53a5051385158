"""Calls as flat columns: the shape of an export and of every table that ``load(...)`` makes.

The names are those of the lines. The figures of ``usage`` stand by themselves, ``provenance`` becomes
``prompt_source``, ``prompt_error_band`` and so on, ``provider_usage`` is JSON in a string, and the name and the tags of
the run stand beside its id.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any

import msgspec

from token_callbacks.errors import MissingExtra
from token_callbacks.prices.costs import as_text
from token_callbacks.records import CallRecord, Usage
from token_callbacks.reports.parts import told_of
from token_callbacks.reports.skipped import Skipped

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra("this needs pyarrow: pip install 'token-callbacks[analytics]'") from error

if TYPE_CHECKING:
    from token_callbacks.reports.logs import RunFacts

__all__ = ["SCHEMA", "batches", "pa", "pq", "records_of_parquet", "table"]

_BATCH = 4_000
"""Calls that are objects of Python at one time: many more keep the garbage collector busy."""

_TIME = pa.timestamp("us", tz="UTC")
_SOURCES = ("embedding_source", "prompt_source", "completion_source")
_TIMES = ("started_at", "ended_at")
_TOLD = ("service_tier", "reported_cost", "reported_currency")
"""What of ``provider_usage`` bears on the price, so that nobody has to take the JSON apart for it."""
_BANDS = ("embedding_error_band", "prompt_error_band", "completion_error_band")
_TYPES: dict[str, Any] = {
    "tags": pa.list_(pa.string()),
    "streamed": pa.bool_(),
    "attempt": pa.int64(),
    "cached": pa.bool_(),
    "started_at": _TIME,
    "ended_at": _TIME,
    "time_to_first_token_seconds": pa.float64(),
    "doubts": pa.list_(pa.string()),
}
"""Of the fields that are no strings."""

SCHEMA = pa.schema(
    [
        (name, _TYPES.get(name, pa.string()))
        for name in CallRecord.__struct_fields__
        if name not in ("usage", "provenance")
    ]
    + [(name, pa.int64()) for name in Usage.__struct_fields__]
    + [(name, pa.string()) for name in _SOURCES]
    + [(name, pa.float64()) for name in _BANDS]
    + [(name, pa.string()) for name in _TOLD]
    + [("run_name", pa.string()), ("run_tags", pa.map_(pa.string(), pa.string()))]
)
"""The columns, in order."""


def batches(records: Iterable[CallRecord], runs: Mapping[str, RunFacts]) -> Iterator[pa.RecordBatch]:
    """Turn records into batches of columns; ``runs``: what is known of theirs."""
    records = iter(records)
    while chunk := list(itertools.islice(records, _BATCH)):
        yield _batch(chunk, runs)


def table(records: Iterable[CallRecord], runs: Mapping[str, RunFacts]) -> pa.Table:
    """Turn records into one table."""
    return pa.Table.from_batches(batches(records, runs), schema=SCHEMA)


def _batch(records: list[CallRecord], runs: Mapping[str, RunFacts]) -> pa.RecordBatch:
    columns = dict(
        zip(CallRecord.__struct_fields__, zip(*map(msgspec.structs.astuple, records), strict=True), strict=True)
    )
    usages, sources = columns.pop("usage"), columns.pop("provenance")
    columns.update(zip(_TOLD, zip(*map(_told, records), strict=True), strict=True))
    columns["provider_usage"] = tuple(map(_as_json, columns["provider_usage"]))
    columns.update(zip(Usage.__struct_fields__, zip(*map(msgspec.structs.astuple, usages), strict=True), strict=True))
    columns.update(zip((*_SOURCES, *_BANDS), zip(*map(msgspec.structs.astuple, sources), strict=True), strict=True))
    facts = [runs.get(run_id) for run_id in columns["run_id"]]
    columns["run_name"] = tuple(None if run is None else run.name for run in facts)
    columns["run_tags"] = tuple(None if run is None else tuple(run.tags.items()) for run in facts)
    return pa.RecordBatch.from_arrays([_array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


def records_of_parquet(file: IO[bytes], *, shown: str, skipped: Skipped) -> Iterator[CallRecord]:
    """Read the calls of an exported file; ``OSError`` where it is none."""
    try:
        number = 0
        for read in pq.ParquetFile(file).iter_batches(batch_size=_BATCH):
            for row in _without_zones(read).to_pylist():
                number += 1
                try:
                    yield _record(row)
                except (msgspec.DecodeError, KeyError, TypeError):
                    skipped.note("unreadable", f"{shown}:{number}")
    except pa.ArrowException as error:
        raise OSError(f"{shown} is no Parquet file of ours") from error


def _record(row: dict[str, Any]) -> CallRecord:
    usage = {name: row.pop(name) for name in Usage.__struct_fields__}
    names = (*_SOURCES, *_BANDS)
    provenance = {name.removesuffix("_source"): row.pop(name) for name in names}
    if row["provider_usage"] is not None:
        row["provider_usage"] = msgspec.json.decode(row["provider_usage"])
    return msgspec.convert({**row, "usage": usage, "provenance": provenance}, CallRecord)


def _without_zones(read: pa.RecordBatch) -> pa.RecordBatch:
    """Make times plain UTC texts: Python's own type would need a library for the zone."""
    import pyarrow.compute as pc

    for name in _TIMES:
        position = read.schema.get_field_index(name)
        if position >= 0:
            text = pc.strftime(read.column(position).cast(_TIME), format="%Y-%m-%dT%H:%M:%SZ")
            read = read.set_column(position, name, text)
    return read


def _as_json(value: object) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _told(record: CallRecord) -> tuple[str | None, str | None, str | None]:
    told = told_of(record)
    return told.tier, None if told.cost is None else as_text(told.cost), told.currency


def _array(values: tuple[Any, ...], kind: Any) -> pa.Array:
    return pa.array(values, type=kind)
