"""Lines of a file -> columns of an export, by DuckDB: decoding each call in Python takes most of an export's time.

Only files of which every line has exactly the members that this version writes, each of its own kind, are taken;
anything else is the business of ``columns``, which tells what it passes over.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from token_callbacks.records import SCHEMA_VERSION, CallRecord, Doubt, Operation, Outcome, Provenance
from token_callbacks.reports import duck
from token_callbacks.reports.columns import SCHEMA, pa
from token_callbacks.reports.logs import CallsFile, RunFacts
from token_callbacks.reports.parts import FIGURES
from token_callbacks.reports.places import Remote

if TYPE_CHECKING:
    import duckdb

_ROWS = 100_000
"""Calls that are columns at one time."""

_TEXTS = (
    "call_id", "logical_call_id", "run_id", "step", "agent", "session_id", "framework", "operation", "provider",
    "model", "response_model", "response_id", "outcome", "error", "counting_method",
)  # fmt: skip
_NEVER_NULL = ("call_id", "run_id", "framework")
_FLAGS = ("streamed", "cached")
_TIMES = ("started_at", "ended_at")
_SOURCES = ("embedding", "prompt", "completion")
_USUAL = '{"prompt":"reported","completion":"reported"}'
"""Compared first: a pattern takes longer."""
_STRING = r'"([^"\\]|\\.)*"'
_FLOAT = r"-?\d[-+.0-9eE]*"


def batches(
    connection: duckdb.DuckDBPyConnection, file: CallsFile, runs: Mapping[str, RunFacts]
) -> Iterator[pa.RecordBatch] | None:
    """Turn the lines of a file into batches of columns; ``None``: it holds a line that is not beyond doubt."""
    import duckdb

    if file.is_parquet or isinstance(file.place, Remote):
        return None
    made = f"CREATE OR REPLACE TEMP TABLE calls AS SELECT {_columns()}, is_clean FROM ({_lines()})"  # noqa: S608
    try:
        connection.execute(made, [glob.escape(file.path)]).fetchall()
    except duckdb.Error:  # no JSON at all, an endless line, or gone
        return None
    [(calls, clean)] = connection.execute("SELECT count(*), count(*) FILTER (is_clean) FROM calls").fetchall()
    return _read_back(connection, calls, runs) if calls == clean else None


def _read_back(
    connection: duckdb.DuckDBPyConnection, calls: int, runs: Mapping[str, RunFacts]
) -> Iterator[pa.RecordBatch]:
    for start in range(0, calls, _ROWS):
        within = f"rowid >= {start} AND rowid < {start + _ROWS}"
        rows = connection.sql(f"SELECT * EXCLUDE (is_clean) FROM calls WHERE {within}").to_arrow_table()  # noqa: S608
        yield from (_with_runs(batch, runs) for batch in rows.to_batches())


def _with_runs(batch: pa.RecordBatch, runs: Mapping[str, RunFacts]) -> pa.RecordBatch:
    ids = batch.column(batch.schema.get_field_index("run_id")).dictionary_encode()
    facts = [runs.get(run_id) for run_id in ids.dictionary.to_pylist()]
    names = pa.array([None if run is None else run.name for run in facts], pa.string())
    tags = pa.array([None if run is None else list(run.tags.items()) for run in facts], SCHEMA.field("run_tags").type)
    columns = {field.name: column for field, column in zip(batch.schema, batch.columns, strict=True)}
    columns |= {"run_name": names.take(ids.indices), "run_tags": tags.take(ids.indices)}
    return pa.RecordBatch.from_arrays([columns[field.name].cast(field.type) for field in SCHEMA], schema=SCHEMA)


def _lines() -> str:
    """Take every line apart, and say of each whether it is beyond doubt."""
    members = ", ".join(f'"{name}": "JSON"' for name in CallRecord.__struct_fields__)
    fields = ", ".join(f"l.{name}::VARCHAR AS {name}" for name in CallRecord.__struct_fields__)
    figures = ", ".join(f'"{name}": "BIGINT"' for name in FIGURES)
    sources = ", ".join(f'"{name}": "VARCHAR", "{name}_error_band": "DOUBLE"' for name in _SOURCES)
    taken, worth = ", ".join(duck.told()), duck.money()
    moments = ", ".join(f"TRY_CAST({name}[2:-3] AS TIMESTAMP) AS {name}_moment" for name in _TIMES)
    return f"""
        SELECT *, coalesce(is_sure AND has_our_members AND {_is_clean()}, false) AS is_clean
        FROM (
            SELECT *, {worth}, {moments}, json_transform(usage, '{{{figures}}}') AS u,
                   json_transform(provenance, '{{{sources}}}') AS p
            FROM (
                SELECT *, {taken}
                FROM (
                    SELECT {fields}, json_keys(json) = {list(CallRecord.__struct_fields__)} AS has_our_members
                    FROM (SELECT json, json_transform(json, '{{{members}}}') AS l
                          FROM read_json_objects(?, format = 'newline_delimited', ignore_errors = true)))))"""  # noqa: S608


def _is_clean() -> str:
    member = rf'("[a-z]+_error_band":\d[-+.0-9eE]*|"[a-z]+":({_either(Provenance)}))'
    doubts, tags = f'"({"|".join(Doubt)})"', _STRING
    checks = [
        f"""schema_version = '"{SCHEMA_VERSION}"'""",
        *(f"{duck.is_string(name)}" for name in _NEVER_NULL),
        *(f"({name} IS NULL OR {duck.is_string(name)})" for name in _TEXTS if name not in _NEVER_NULL),
        f"operation IN ({_quoted(Operation)}) AND outcome IN ({_quoted(Outcome)})",
        *(f"{name} IN ('true', 'false')" for name in _FLAGS),
        *(f"regexp_full_match({name}, '{duck.TIME}') AND {name}_moment IS NOT NULL" for name in _TIMES),
        r"(attempt = '1' OR regexp_full_match(attempt, '[1-9]\d{0,17}'))",
        f"(time_to_first_token_seconds IS NULL OR regexp_full_match(time_to_first_token_seconds, '{_FLOAT}'))",
        *(_is_list(name, member) for name, member in (("doubts", doubts), ("tags", tags))),
        f"regexp_full_match(usage, '{duck.USAGE}')",
        rf"(provenance = '{_USUAL}' OR regexp_full_match(provenance, '\{{({member}(,{member})*)?\}}'))",
        "(provider_usage IS NULL OR starts_with(provider_usage, '{'))",
    ]
    return " AND ".join(checks)


def _is_list(name: str, member: str) -> str:
    return rf"({name} = '[]' OR regexp_full_match({name}, '\[{member}(,{member})*\]'))"


def _either(words: type[Provenance]) -> str:
    return "|".join(f'"{word}"' for word in words)


def _quoted(words: type[Operation | Outcome]) -> str:
    return ", ".join(f"""'"{word}"'""" for word in words)


def _columns() -> str:
    made = {
        **{name: _text(name) for name in ("schema_version", *_TEXTS)},
        **{name: f"{name} = 'true'" for name in _FLAGS},
        **{name: f"""json_transform({name}, '["VARCHAR"]')""" for name in ("tags", "doubts")},
        **{name: f"{name}_moment" for name in _TIMES},
        **{f"{name}_source": f"p.{name}" for name in _SOURCES},
        **{f"{name}_error_band": f"p.{name}_error_band" for name in _SOURCES},
        **{name: f"u.{name}" for name in FIGURES},
        "attempt": "attempt::BIGINT",
        "time_to_first_token_seconds": "time_to_first_token_seconds::DOUBLE",
        "provider_usage": "provider_usage",
        "service_tier": _text("tier"),
        "reported_currency": _text("currency"),
        "reported_cost": "rtrim(rtrim(reported::VARCHAR, '0'), '.')",
    }
    return ", ".join(f"{made[field.name]} AS {field.name}" for field in SCHEMA if field.name in made)


def _text(name: str) -> str:
    return rf"CASE WHEN contains({name}, '\') THEN {name}::JSON->>'$' ELSE {name}[2:-2] END"
