"""Adding up with DuckDB: on all cores, in bounded memory.

DuckDB's JSON reader is fast and lenient. So every value is taken as JSON and checked; a file with one line that is not
beyond doubt is left to the streaming engine as a whole, which then also tells which line it was. The engines therefore
agree on every line of valid JSON, and on every line that is none of ours. (What DuckDB takes and JSON does not allow,
a comma after the last member say, is read by DuckDB alone.)
"""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from token_callbacks.errors import MissingExtra
from token_callbacks.records import Operation, Outcome, Provenance
from token_callbacks.reports.logs import CallsFile
from token_callbacks.reports.parts import CHOSEN, FIGURES, TOLD, Key, Part, Plan
from token_callbacks.reports.places import Remote

try:
    import duckdb
except ImportError as error:
    raise MissingExtra("this engine needs DuckDB: pip install 'token-callbacks[analytics]'") from error

MEMORY = "1GB"
"""What DuckDB may use before it spills to the disk; the process needs some more."""
BATCH_BYTES = 512 << 20
BATCH_FILES = 500
"""Files are added up in batches, so that what comes back never needs memory by the number of all lines."""

_FETCH = 10_000
_MICROSECONDS = 1_000_000
_TEXTS = ("step", "agent", "provider", "model", "response_model")
_SOURCES = ("embedding", "prompt", "completion")
_READ = ("schema_version", "call_id", "run_id", "operation", "outcome", "cached", "started_at", *_TEXTS)
_TOLD = f"json_extract(provider_usage, {[f'$.{name}' for name in TOLD]})::VARCHAR[]"


def _shape() -> str:
    """Say ``parts.shape_of`` in SQL."""
    zero = {name: f"coalesce({name}, 0)" for name in FIGURES}
    prompt, completion = zero["prompt_tokens"], zero["completion_tokens"]
    cached = f"({zero['cache_read_tokens']} + {zero['cache_write_tokens']})"
    seen = f"({zero['audio_prompt_tokens']} + {zero['image_prompt_tokens']} + {zero['video_prompt_tokens']})"
    thought, spoken = zero["reasoning_tokens"], zero["audio_completion_tokens"]
    bits = (
        "embedding_tokens IS NULL",
        "prompt_tokens IS NULL",
        "completion_tokens IS NULL",
        f"{cached} > {prompt}",
        f"{seen} > {prompt}",
        f"{cached} + {seen} > {prompt}",
        f"{thought} > {completion}",
        f"{spoken} > {completion}",
        f"{thought} + {spoken} > {completion}",
        f"{zero['cache_write_1h_tokens']} > {zero['cache_write_tokens']}",
        f"{cached} + {seen} > {zero['embedding_tokens']}",
    )
    return " + ".join(f"({bit})::INTEGER * {1 << position}" for position, bit in enumerate(bits))


_SHAPE = _shape()
_TIME = r'"(19[7-9]\d|[2-9]\d{3})-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"'


def batches(files: Iterable[CallsFile]) -> Iterator[list[CallsFile]]:
    """Gather files of one kind and place that are added up at once."""
    batch: list[CallsFile] = []
    size = 0
    for file in files:
        is_like = not batch or (file.is_parquet, type(file.place)) == (batch[0].is_parquet, type(batch[0].place))
        if batch and (not is_like or size + file.size > BATCH_BYTES or len(batch) == BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += file.size
    if batch:
        yield batch


@contextmanager
def connected() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory that spills to a folder of its own and never goes online."""
    with tempfile.TemporaryDirectory(prefix="token-callbacks-") as spill:
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": MEMORY,
            "temp_directory": spill,
            "threads": str(min(len(os.sched_getaffinity(0)), 8)),
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
        }
        with duckdb.connect(config=config) as connection:
            connection.execute("SET enable_progress_bar = false")
            yield connection


def added(
    connection: duckdb.DuckDBPyConnection, files: Sequence[CallsFile], plan: Plan, left: list[CallsFile]
) -> Iterator[Part]:
    """Add up a batch of files; those that DuckDB cannot be trusted with are put on ``left``."""
    try:
        yield from _added(connection, files, plan, left)
    except duckdb.Error:  # one of them is no JSON or no Parquet at all, has an endless line, or is gone
        if len(files) == 1:
            left.extend(files)
            return
        middle = len(files) // 2
        for half in (files[:middle], files[middle:]):
            yield from added(connection, half, plan, left)


def _added(
    connection: duckdb.DuckDBPyConnection, files: Sequence[CallsFile], plan: Plan, left: list[CallsFile]
) -> list[Part]:
    names = {_name(connection, file): file for file in files}
    is_parquet = files[0].is_parquet
    query = _query(plan, _parquet_source(plan) if is_parquet else _json_source(plan))
    rows = connection.execute(query, [[glob.escape(name) for name in names]])
    parts: list[tuple[str, Part]] = []
    doubtful: set[str] = set()
    while fetched := rows.fetchmany(_FETCH):
        for name, is_clean, *values in fetched:
            if is_clean:
                parts.append((name, _part(values, is_json=not is_parquet)))
            else:
                doubtful.add(name)
    left.extend(names[name] for name in sorted(doubtful))
    return [part for name, part in parts if name not in doubtful]


def _name(connection: duckdb.DuckDBPyConnection, file: CallsFile) -> str:
    if not isinstance(file.place, Remote):
        return file.path
    filesystem = file.place.filesystem
    protocol = filesystem.protocol if isinstance(filesystem.protocol, str) else filesystem.protocol[0]
    if not connection.filesystem_is_registered(protocol):
        connection.register_filesystem(filesystem)
    return file.shown


def _part(values: list[Any], *, is_json: bool) -> Part:
    *texts, operation, slot, band, shape, told, outcome, cached, embedding, prompt, completion, calls, sample = values[
        : -len(FIGURES)
    ]
    if is_json:
        texts = [None if text is None else msgspec.json.decode(text) for text in texts]
    sources = (None if source is None else Provenance(source) for source in (embedding, prompt, completion))
    operation = None if operation is None else Operation(operation)
    told = None if told is None or not any(told) else tuple(told)
    key = Key._make((*texts, operation, slot, band, shape, told, Outcome(outcome), cached, *sources))
    return Part(key, calls, sample, values[-len(FIGURES) :])


def _query(plan: Plan, source: str) -> str:
    chosen = ", ".join(name if name in plan.columns else f"NULL AS {name}" for name in CHOSEN)
    slot = "NULL" if plan.slot_seconds is None else f"epoch_us(moment) // {plan.slot_seconds * _MICROSECONDS}"
    band = " + ".join(f"(coalesce(prompt_tokens, 0) >= {start})::INTEGER" for start in plan.band_starts) or "0"
    sums = ", ".join(f"sum({name})" for name in FIGURES)
    shape = _SHAPE if plan.is_priced else "0"
    sample = f"any_value([{', '.join(FIGURES)}])" if plan.is_priced else "NULL"
    within = " AND ".join(["true", *_bounds(plan)])
    return f"""
        SELECT name, is_clean, {chosen}, {slot} AS slot, {band} AS band, {shape} AS shape, told, outcome, cached,
               embedding_source, prompt_source, completion_source, count(*), {sample}, {sums}
        FROM ({source}) WHERE NOT is_clean OR ({within}) GROUP BY ALL"""  # noqa: S608 - made of our own names


def _bounds(plan: Plan) -> Iterator[str]:
    for moment, sign in ((plan.since, ">="), (plan.until, "<")):
        if moment is not None:
            yield f"moment {sign} TIMESTAMP '{_plain(moment)}'"


def _plain(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")


def _parquet_source(plan: Plan) -> str:
    told = _TOLD if plan.is_priced else "NULL"
    return f"""
        SELECT *, filename AS name, coalesce(starts_with(schema_version, '1.'), false) AS is_clean,
               epoch_us(started_at) AS us, make_timestamp(epoch_us(started_at)) AS moment, {told} AS told
        FROM read_parquet(?, hive_partitioning = false, filename = true)"""  # noqa: S608


def _json_source(plan: Plan) -> str:
    read = (*_READ, "usage", "provenance", *(("provider_usage",) if plan.is_priced else ()))
    shape = ", ".join(f"{name}: 'JSON'" for name in read)
    told = _TOLD if plan.is_priced else "NULL"
    texts = ", ".join(f"{name}::VARCHAR AS {name}" for name in (*_READ, "usage", "provenance"))
    unpacked = ", ".join(
        [f"u.{name}::VARCHAR AS {name}_text" for name in FIGURES]
        + [f"TRY_CAST(u.{name}::VARCHAR AS BIGINT) AS {name}" for name in FIGURES]
        + [f"p.{name}::VARCHAR AS {name}_text" for name in _SOURCES]
    )
    kept = ", ".join([*(name for name in ("run_id", *_TEXTS)), *FIGURES])
    sources = ", ".join(f"{name}_text[2:-2] AS {name}_source" for name in _SOURCES)
    return f"""
        SELECT name, coalesce({_is_clean()}, false) AS is_clean, {kept}, {sources}, told, moment,
               operation[2:-2] AS operation, outcome[2:-2] AS outcome, cached = 'true' AS cached
        FROM (
            SELECT *, {unpacked}, TRY_CAST(started_at[2:-3] AS TIMESTAMP) AS moment
            FROM (
                SELECT *, json_transform(usage, '{_members(FIGURES)}') AS u,
                       json_transform(provenance, '{_members(_SOURCES)}') AS p
                FROM (
                    SELECT filename AS name, {told} AS told, {texts}
                    FROM read_json(?, format = 'newline_delimited', ignore_errors = true, filename = true,
                                   columns = {{{shape}}}))))"""  # noqa: S608


def _is_clean() -> str:
    """Say what makes a line one that both engines read alike."""
    checks = [
        r"""regexp_full_match(schema_version, '"1\.\d+"')""",
        """call_id[1] = '"' AND run_id[1] = '"'""",
        *(f"""({name} IS NULL OR {name}[1] = '"')""" for name in _TEXTS),
        f"operation IN ({_quoted(Operation)}) AND outcome IN ({_quoted(Outcome)}) AND cached IN ('true', 'false')",
        f"regexp_full_match(started_at, '{_TIME}') AND moment IS NOT NULL",
        "usage[1] = '{' AND provenance[1] = '{'",
        *(f"({name}_text IS NULL OR ({name}::VARCHAR = {name}_text AND {name} >= 0))" for name in FIGURES),
        *(f"({name}_text IS NULL OR {name}_text IN ({_quoted(Provenance)}))" for name in _SOURCES),
    ]
    return " AND ".join(checks)


def _quoted(members: Iterable[str]) -> str:
    return ", ".join(f"""'"{member}"'""" for member in members)


def _members(names: Iterable[str]) -> str:
    return "{" + ", ".join(f'"{name}": "JSON"' for name in names) + "}"
