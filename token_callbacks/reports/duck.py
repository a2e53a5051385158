"""Adding up with DuckDB: on all cores, in bounded memory.

DuckDB's JSON reader is fast and lenient. So every value is taken as JSON and checked: those that differ from line to
line in SQL, those that many lines share here, once for all of them. A file with one line that is not beyond doubt is
left to the streaming engine as a whole, which then also tells which line it was. The engines therefore agree on every
line of valid JSON, and on every line that is none of ours. (What DuckDB takes and JSON does not allow, a comma after
the last member say, is read by DuckDB alone.)
"""

from __future__ import annotations

import functools
import glob
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from token_callbacks.errors import MissingExtra
from token_callbacks.records import SCHEMA_VERSION, Operation, Outcome, Provenance
from token_callbacks.reports.logs import CallsFile
from token_callbacks.reports.parts import CHOSEN, FIGURES, Key, Part, Plan
from token_callbacks.reports.places import Remote
from token_callbacks.reports.streaming import Sources

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
_REMEMBERED = 10_000
_DAY = 86_400_000_000
"""Microseconds."""
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Microseconds since 1970 of the first and the last moment that Python knows."""
_TEXTS = ("step", "agent", "provider", "model", "response_model")
_SOURCES = ("embedding_source", "prompt_source", "completion_source")
_READ = ("schema_version", "call_id", "run_id", "operation", "outcome", "cached", "started_at", *_TEXTS, "usage")
_TOLD = ("cost", "cost_details", "cost_in_usd_ticks", "is_byok", "service_tier", "speed")
"""What of a provider's own usage object bears on the price."""


def _shape() -> str:
    """Say ``parts.shape_of`` in SQL."""
    zero = {name: f"coalesce({name}, 0)" for name in FIGURES}
    # In JSON the word stands in quotation marks.
    is_embedding = """operation IN ('embedding', '"embedding"')"""
    prompt = f"CASE WHEN {is_embedding} THEN {zero['embedding_tokens']} ELSE {zero['prompt_tokens']} END"
    completion = f"CASE WHEN {is_embedding} THEN 0 ELSE {zero['completion_tokens']} END"
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
    )
    return " + ".join(f"({bit})::INTEGER * {1 << position}" for position, bit in enumerate(bits))


_SHAPE = _shape()
TIME = r'"(19[7-9]\d|[2-9]\d{3})-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"'
USAGE = r'\{("[a-z0-9_]+":\d{1,18}(,"[a-z0-9_]+":\d{1,18})*)?\}'
_BAND = '_error_band":'
_MONEY = "DECIMAL(38, 28)"
"""Of what a provider told: amounts that do not fit in this to the last digit are left to the other engine."""


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
    source, sources = (_parquet_source(plan), _SOURCES) if is_parquet else (_json_source(plan), ("provenance",))
    rows = connection.execute(_query(plan, source, sources), [[glob.escape(name) for name in names]])
    decode = functools.lru_cache(maxsize=_REMEMBERED)(_plain_words if is_parquet else _json_words)
    columns = len(CHOSEN) + len(("tier", "currency", "outcome", "cached")) + len(sources)
    parts: list[tuple[str, Part]] = []
    doubtful: set[str] = set()
    while fetched := rows.fetchmany(_FETCH):
        for name, is_clean, *values in fetched:
            part = _part(values, columns, decode) if is_clean else None
            if part is None:
                doubtful.add(name)
            else:
                parts.append((name, part))
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


class _Doubtful(Exception):
    """A value that many lines of a file share is none that a line of ours can have."""


def _part(values: Sequence[Any], columns: int, decode: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Part | None:
    try:
        *names, tier, currency, outcome, cached, embedding, prompt, completion = decode(tuple(values[:columns]))
    except _Doubtful:
        return None
    slot, band, shape, calls, reported, *figures = values[columns:]
    key = Key._make((*names, slot, band, shape, tier, currency, outcome, cached, embedding, prompt, completion))
    return Part(key, calls, figures, reported)


def _plain_words(words: tuple[Any, ...]) -> tuple[Any, ...]:
    """Decode what the lines of a part share, out of Parquet."""
    *texts, operation, tier, currency, outcome, cached, embedding, prompt, completion = words
    try:
        sources = (None if source is None else Provenance(source) for source in (embedding, prompt, completion))
        operation = None if operation is None else Operation(operation)
        return (*texts, operation, tier, currency, Outcome(outcome), cached, *sources)
    except ValueError as error:
        raise _Doubtful from error


def _json_words(words: tuple[Any, ...]) -> tuple[Any, ...]:
    """Decode what the lines of a part share, out of JSON."""
    *texts, operation, tier, currency, outcome, cached, provenance = words
    try:
        sources = _sources.decode(provenance)
        return (
            *(None if text is None else _text.decode(text) for text in texts),
            None if operation is None else _operation.decode(operation),
            *(None if text is None else _text.decode(text) for text in (tier, currency)),
            _outcome.decode(outcome),
            _flag.decode(cached),
            *(sources.embedding, sources.prompt, sources.completion),
        )
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:  # TypeError: there is none
        raise _Doubtful from error


_text, _flag = msgspec.json.Decoder(str), msgspec.json.Decoder(bool)
_operation, _outcome = msgspec.json.Decoder(Operation), msgspec.json.Decoder(Outcome)
_sources = msgspec.json.Decoder(Sources)


def _query(plan: Plan, source: str, sources: Sequence[str]) -> str:
    chosen = ", ".join(name if name in plan.columns else f"NULL AS {name}" for name in CHOSEN)
    sums = ", ".join(f"sum({name})" for name in FIGURES)
    shape = _SHAPE if plan.is_priced else "0"
    within = " AND ".join(["true", *_bounds(plan)])
    return f"""
        SELECT name, is_clean, {chosen}, tier, currency, outcome, cached, {", ".join(sources)}, {_slot(plan)} AS slot,
               {_band(plan)} AS band, {shape} AS shape, count(*), sum(reported), {sums}
        FROM ({source}) WHERE NOT is_clean OR ({within}) GROUP BY ALL"""  # noqa: S608 - made of our own names


def _slot(plan: Plan) -> str:
    """Say ``Plan.slot_of`` in SQL."""
    if not plan.cuts:
        return "NULL"
    passed = f"((epoch_us(moment) % {_DAY} + {_DAY}) % {_DAY})"
    pieces = "".join(f" + ({passed} >= {cut * 1_000_000})::INTEGER" for cut in plan.cuts[1:])
    return f"(epoch_us(moment) - {passed}) // {_DAY} * {len(plan.cuts)}{pieces}"


def _band(plan: Plan) -> str:
    if not plan.band_starts:
        return "0"
    past = " + ".join(f"(prompt_tokens >= {start})::INTEGER" for start in plan.band_starts)
    return f"CASE WHEN prompt_tokens >= {plan.band_starts[0]} THEN {past} ELSE 0 END"


def _bounds(plan: Plan) -> Iterator[str]:
    for moment, sign in ((plan.since, ">="), (plan.until, "<")):
        if moment is not None:
            yield f"moment {sign} TIMESTAMP '{_plain(moment)}'"


def _plain(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")


def _parquet_source(plan: Plan) -> str:
    told = "service_tier AS tier, reported_currency AS currency, reported_cost AS amount"
    nothing = "NULL AS tier, NULL AS currency, NULL AS amount"
    return f"""
        SELECT *, make_timestamp(epoch_us(started_at)) AS moment, amount::{_MONEY} AS reported
        FROM (
            SELECT *, filename AS name, {told if plan.is_priced else nothing},
                   coalesce(starts_with(schema_version, '1.') AND {_fits("amount")} AND epoch_us(started_at)
                            BETWEEN {_FIRST} AND {_LAST}, false) AS is_clean
            FROM read_parquet(?, hive_partitioning = false, filename = true))"""  # noqa: S608


def _fits(amount: str) -> str:
    return rf"({amount} IS NULL OR regexp_full_match({amount}, '\d{{1,6}}(\.\d{{1,28}})?'))"


def _json_source(plan: Plan) -> str:
    shape = ", ".join(f"{name}: 'JSON'" for name in (*_READ, "provenance", "provider_usage"))
    texts = ", ".join(f"{name}::VARCHAR AS {name}" for name in _READ)
    taken = ", ".join(told()) if plan.is_priced else "NULL AS t, NULL AS is_openrouter"
    worth = money() if plan.is_priced else "NULL AS tier, NULL AS currency, NULL AS reported, true AS is_sure"
    members = ", ".join(f'"{name}": "BIGINT"' for name in FIGURES)
    return f"""
        SELECT * EXCLUDE (u, t), u.*, coalesce(is_sure AND {_is_clean()}, false) AS is_clean
        FROM (
            SELECT *, {worth}
            FROM (
                SELECT filename AS name, {texts}, TRY_CAST(started_at[2:-3] AS TIMESTAMP) AS moment,
                       json_transform(usage, '{{{members}}}') AS u, {_provenance()} AS provenance, {taken}
                FROM read_json(?, format = 'newline_delimited', ignore_errors = true, filename = true,
                               columns = {{{shape}}})))"""  # noqa: S608


def _provenance() -> str:
    """Say where the figures come from without the error bands, of which each line may have its own."""
    text = "provenance::VARCHAR"
    without = f"""regexp_replace({text}, '{_BAND}[-+.0-9eE]+', '{_BAND}0', 'g')"""
    return f"CASE WHEN contains({text}, '{_BAND}') THEN {without} ELSE {text} END"


def told() -> Iterator[str]:
    """Take apart what the provider told, where it names something that bears on the price."""
    text, members = "provider_usage::VARCHAR", ", ".join(f'"{name}": "JSON"' for name in _TOLD)
    named = " OR ".join(f"contains({text}, '{start}')" for start in ('"cost', '"service_tier"', '"speed"'))
    yield f"CASE WHEN {named} THEN json_transform(provider_usage, '{{{members}}}') END AS t"
    present = " OR ".join(f"json_exists(provider_usage, '$.{name}')" for name in ("cost_details", "is_byok"))
    by_name = " OR ".join(f"""starts_with({name}::VARCHAR, '"openrouter')""" for name in ("provider", "model"))
    yield f"""CASE WHEN contains({text}, '"cost') THEN {present} OR coalesce({by_name}, false) END AS is_openrouter"""


def money() -> str:
    """Say ``charges.service_tier`` and ``charges.reported_cost`` in SQL, and whether they are sure."""
    member = {name: f"nullif(t.{name}::VARCHAR, 'null')" for name in _TOLD}
    cost, ticks = member["cost"], member["cost_in_usd_ticks"]
    total, currency = (f"nullif(({cost}->'$.{name}')::VARCHAR, 'null')" for name in ("total_cost", "currency"))
    upstream = f"nullif(({member['cost_details']}->'$.upstream_inference_cost')::VARCHAR, 'null')"
    theirs = f"CASE WHEN {member['is_byok']} = 'true' THEN {upstream} END"
    is_object = f"starts_with({cost}, '{{')"
    in_ticks = rf"CASE WHEN regexp_full_match({ticks}, '\d{{1,15}}') THEN TRY_CAST(({ticks} || 'e-10') AS {_MONEY}) END"
    named = f"""CASE WHEN {currency} > '""' AND {currency} < '#' THEN {currency} ELSE '"USD"' END"""
    return f"""
        CASE WHEN {member["speed"]} = '"fast"' THEN '"fast"'
             WHEN starts_with({member["service_tier"]}, '"') THEN {member["service_tier"]} END AS tier,
        CASE WHEN {ticks} IS NOT NULL THEN {in_ticks}
             WHEN {is_object} THEN {_number(total)}
             WHEN is_openrouter THEN {_number(cost)} + coalesce({_number(theirs)}, 0::{_MONEY}) END AS reported,
        CASE WHEN reported IS NULL THEN NULL WHEN {ticks} IS NULL AND {is_object} THEN {named}
             ELSE '"USD"' END AS currency,
        t IS NULL OR ((reported IS NOT NULL OR ({ticks} IS NULL AND ({cost} IS NULL OR NOT
            ({is_object} OR coalesce(is_openrouter, false))))) AND ({theirs} IS NULL OR {_number(theirs)} IS NOT NULL))
            AS is_sure"""


def _number(text: str) -> str:
    """Say ``Decimal(repr(float(text)))`` in SQL; NULL where that does not fit, or is none."""
    figure = f"TRY_CAST({text} AS DOUBLE)"
    fits = f"({figure} = 0 OR {figure} BETWEEN 1e-11 AND 999999)"
    is_number = rf"regexp_full_match({text}, '\d[-+.0-9eE]*')"
    return f"CASE WHEN {is_number} AND {fits} THEN TRY_CAST({figure}::VARCHAR AS {_MONEY}) END"


def _is_clean() -> str:
    """Say what makes a line one that both engines read alike, besides the words that ``_json_words`` decodes."""
    strings = " AND ".join(f"({name} IS NULL OR {is_string(name)})" for name in _TEXTS)
    checks = [
        rf"""(schema_version = '"{SCHEMA_VERSION}"' OR regexp_full_match(schema_version, '"1\.\d+"'))""",
        f"{is_string('call_id')} AND {is_string('run_id')} AND {strings} AND operation IS NOT NULL",
        f"regexp_full_match(started_at, '{TIME}') AND moment IS NOT NULL",
        f"regexp_full_match(usage, '{USAGE}') AND provenance IS NOT NULL",
    ]
    return " AND ".join(checks)


def is_string(name: str) -> str:
    """Compare instead of looking at the first letter: that is decided by the prefix that DuckDB keeps."""
    return f"""({name} >= '"' AND {name} < '#')"""
