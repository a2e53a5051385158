"""Where records and summaries go. A sink is one file here that imports its own backend; nothing lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from token_callbacks.records import CallRecord, RunSummary


class Sink(Protocol):
    """Takes what a counter makes. Called under one lock, from whatever thread a call ended on.

    What a sink raises is counted under ``internal_errors``, logged once, and goes no further.
    """

    def write_record(self, record: CallRecord) -> None:
        """Keep one record."""

    def write_summary(self, summary: RunSummary) -> None:
        """Keep a run's summary, in place of an earlier one of the same run."""

    def summary_path(self, run_id: str) -> Path | None:
        """Tell the file of a run's summary; ``None`` for a sink without files."""

    def close(self) -> None:
        """Let go of files and connections; called once."""
