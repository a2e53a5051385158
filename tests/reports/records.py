"""Records as a program would have made them, and lines that no program of ours ever wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from token_callbacks.records import CallRecord, OpenRun, Operation, Outcome, Provenance, Sources, Usage
from token_callbacks.sinks.json_files import JsonFiles

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
RUNS = [f"20261121T12000{number}-00000000000{number}" for number in range(4)]


def record(number: int = 0, **changes: Any) -> CallRecord:
    """Make a record of a chat call; ``changes`` are fields, and figures of its usage."""
    usage = {name: changes.pop(name) for name in Usage.__struct_fields__ if name in changes}
    fields: dict[str, Any] = {
        "call_id": f"call-{number}",
        "run_id": RUNS[0],
        "step": None,
        "framework": "litellm",
        "operation": Operation.CHAT,
        "provider": "openai",
        "model": "gpt-4o",
        "response_model": "gpt-4o-2024-08-06",
        "response_id": "response-3",
        "streamed": False,
        "attempt": 1,
        "outcome": Outcome.COMPLETED,
        "cached": False,
        "error": None,
        "started_at": NOON,
        "ended_at": NOON + timedelta(seconds=3),
        "time_to_first_token_seconds": None,
        "usage": Usage(**(usage or {"prompt_tokens": 3, "completion_tokens": 4})),
        "provenance": Sources(prompt=Provenance.REPORTED, completion=Provenance.REPORTED),
        "counting_method": None,
        "provider_usage": None,
    }
    return CallRecord(**(fields | changes))


def write(folder: Path, records: Iterable[CallRecord], *, runs: Iterable[OpenRun] = ()) -> Path:
    """Write records as a counter does, with the markers of runs that are open, and return the file of calls."""
    sink = JsonFiles(folder)
    for run in runs:
        sink.open_run(run)
    for each in records:
        sink.write_record(each)
    sink.close()
    return next(folder.glob(f"calls-*{sink.writer}*.jsonl"))


def open_run(run_id: str, name: str, **tags: str) -> OpenRun:
    """Make what is known of a run that is open."""
    return OpenRun(run_id=run_id, parent_run_id=None, name=name, tags=tags, started_at=NOON)


COSTS: list[Any] = [0, 3, 0.25, 1.4999999999999999e-05, 2e-9, 1e-30, 123456.125, 10**7, 1e300, -1, None, True, "0.25"]
"""What may stand where a cost does."""
WORDS: list[dict[str, Any]] = [
    {},
    {"prompt_tokens": 3},
    {"service_tier": "flex"},
    {"service_tier": None, "speed": "fast"},
    {"cost": 0.25, "service_tier": "default"},
    *({"cost": cost, "is_byok": False} for cost in COSTS),
    *({"cost": 3, "is_byok": True, "cost_details": {"upstream_inference_cost": cost, "other": 4}} for cost in COSTS),
    *({"cost": cost, "cost_details": None, "service_tier": "flex"} for cost in COSTS),
    *({"cost": {"total_cost": cost, "currency": "EUR"}} for cost in COSTS),
    *({"cost": {"total_cost": 0.25, "currency": currency}, "is_byok": True} for currency in (None, "", 4)),
    *({"cost_in_usd_ticks": cost, "cost": 0.25, "is_byok": False} for cost in COSTS),
    {"details": {"cost": 3, "is_byok": True, "speed": "fast"}},
]
"""Usage objects of providers."""

figures = st.none() | st.integers(0, 9) | st.sampled_from([200_000, 2**40])
sources = st.none() | st.sampled_from(Provenance)
names = st.none() | st.sampled_from(["draft", 'é "quoted"\n', "Straße", ""])
moments = st.sampled_from([datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 10, 24, tzinfo=UTC)]).flatmap(
    lambda day: st.integers(0, 3 * 86_400_000_000).map(lambda passed: day + timedelta(microseconds=passed))
)
usages = st.builds(Usage, **dict.fromkeys(Usage.__struct_fields__, figures))

records = st.builds(
    record,
    number=st.integers(0, 10**9),
    run_id=st.sampled_from(RUNS),
    step=names,
    agent=names,
    operation=st.sampled_from(Operation),
    provider=st.none() | st.sampled_from(["openai", "anthropic", "openrouter"]),
    model=st.none() | st.sampled_from(["gpt-4o", "GPT-4o-mini", "claude-sonnet-4-5"]),
    response_model=names,
    outcome=st.sampled_from(Outcome),
    cached=st.booleans(),
    attempt=st.integers(1, 3),
    started_at=moments,
    usage=usages,
    provenance=st.builds(Sources, embedding=sources, prompt=sources, completion=sources),
    provider_usage=st.none() | st.sampled_from(WORDS),
)


def _changed(change: dict[str, Any]) -> bytes:
    return json.dumps(json.loads(msgspec.json.encode(record())) | change).encode()


def _without(name: str) -> bytes:
    fields = json.loads(msgspec.json.encode(record()))
    del fields[name]
    return json.dumps(fields).encode()


WHOLE = msgspec.json.encode(record())
UNREADABLE = [
    b"not json",
    b"{}",
    b'{"a":1}{"a":2}',
    b"[1, 2]",
    b"null",
    b'"text"',
    b"\xff\xfe\x00",
    b"\x00" * 40,
    b"[" * 5000,
    WHOLE[:-9],
    WHOLE + b" x",
    WHOLE + WHOLE,
    WHOLE.replace(b"gpt-4o", b"gpt\xff4o"),
    *(_without(name) for name in ("call_id", "run_id", "operation", "outcome", "cached", "started_at", "usage")),
    *(_changed({name: 5}) for name in ("call_id", "run_id", "step", "model", "provider", "usage", "provenance")),
    *(_changed({"usage": {"prompt_tokens": figure}}) for figure in ("12", -3, 1.5, 4.0, True, [], {}, 2**63, 2**64)),
    *(_changed({"usage": usage}) for usage in (None, [], "")),
    *(_changed({"started_at": time}) for time in ("2026-13-01T00:00:00Z", "yesterday", 0, None, "2026-11-21")),
    _changed({"outcome": "lost"}),
    _changed({"operation": None}),
    _changed({"cached": 0}),
    _changed({"provenance": {"prompt": "guessed"}}),
]
"""Lines that are no calls; every reader passes over them."""

ODD = [
    _changed({"schema_version": "1.7", "colour": "green", "usage": {"prompt_tokens": 3, "smell_tokens": 4}}),
    _changed({"started_at": "2026-11-21T12:00:00+02:00"}),
    _changed({"started_at": "2026-11-21T12:00:00"}),
    _changed({"started_at": "1969-12-31T23:59:59.5Z"}),
    _changed({"started_at": "0001-01-01T00:00:00+05:00", "ended_at": "0001-01-01T00:00:00"}),
    _changed({"started_at": "9999-12-31T23:59:59-05:00"}),
    _changed({"usage": {"prompt_tokens": 2**63 - 1}}),
    _changed({"usage": {"prompt_tokens": None}}),
    b"  " + WHOLE + b"  \r",
    _without("schema_version"),
    _without("agent"),
]
"""Lines that are calls, though no version of ours wrote them so."""

NEWER = [
    _changed({"schema_version": "2.0"}),
    b'{"schema_version":"3.1","call":7}',
    _changed({"schema_version": "10.0"}),
]
BLANK = [b"", b"   ", b"\r"]
