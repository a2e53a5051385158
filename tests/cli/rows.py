"""Rows and records with figures that a test chooses."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from token_callbacks.records import CallRecord, Operation, Outcome, PriceSource, Provenance, Sources, Usage
from token_callbacks.reports.rows import Row
from token_callbacks.sinks.json_files import JsonFiles

NOON = datetime(2026, 11, 3, 12, 0, tzinfo=UTC)
RUN_ID = "20261103T120000-0123456789ab"


def row(group: str | None = "gpt-4o", **changes: Any) -> Row:
    """Make a row of three reported calls."""
    figures: dict[str, Any] = {
        "group": group,
        "calls": 3,
        "failed": 0,
        "cached": 0,
        "usage": Usage(prompt_tokens=1_234_567, completion_tokens=89_012, cache_read_tokens=4_321),
        "weakest": Sources(prompt=Provenance.REPORTED, completion=Provenance.REPORTED),
        "lower_bound": False,
        "tokens_by_source": {Provenance.REPORTED: 1_323_579},
        "calls_by_source": {Provenance.REPORTED: 3},
        "costs": {"USD": Decimal("1.25")},
        "price_sources": (
            PriceSource(
                source="genai-prices 0.2.3", dated=date(2026, 5, 1), first_day=NOON.date(), last_day=NOON.date()
            ),
        ),
        "unpriced_calls": 0,
        "unpriced_models": (),
        "calls_without_figures": 0,
    }
    return Row(**(figures | changes))


def record(number: int = 1, **changes: Any) -> CallRecord:
    """Make a record of a reported chat call that began a number of seconds past noon."""
    started_at = changes.pop("started_at", NOON + timedelta(seconds=number))
    figures: dict[str, Any] = {
        "call_id": f"call-{number}",
        "run_id": RUN_ID,
        "step": None,
        "framework": "litellm",
        "operation": Operation.CHAT,
        "provider": "openai",
        "model": "gpt-4o",
        "response_model": None,
        "response_id": None,
        "streamed": False,
        "attempt": 1,
        "outcome": Outcome.COMPLETED,
        "cached": False,
        "error": None,
        "started_at": started_at,
        "ended_at": started_at + timedelta(seconds=2),
        "time_to_first_token_seconds": 0.25,
        "usage": Usage(prompt_tokens=100 + number, completion_tokens=7),
        "provenance": Sources(prompt=Provenance.REPORTED, completion=Provenance.REPORTED),
        "counting_method": None,
        "provider_usage": None,
    }
    return CallRecord(**(figures | changes))


def written(log_dir: Path, *records: CallRecord) -> Path:
    """Write records as the package does, and return the folder."""
    files = JsonFiles(log_dir)
    for one in records:
        files.write_record(one)
    files.close()
    return log_dir
