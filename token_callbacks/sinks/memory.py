"""A sink that keeps everything in lists: for tests, and for programs that want no files."""

from __future__ import annotations

from token_callbacks.records import CallRecord, RunSummary


class MemorySink:
    """Records in the order they were made, and the latest summary of each run. It grows with every call."""

    def __init__(self) -> None:
        self.records: list[CallRecord] = []
        self.summaries: dict[str, RunSummary] = {}

    def write_record(self, record: CallRecord) -> None:
        """Keep one record."""
        self.records.append(record)

    def write_summary(self, summary: RunSummary) -> None:
        """Keep a run's summary, in place of an earlier one."""
        self.summaries[summary.run_id] = summary

    def summary_path(self, run_id: str) -> None:
        """Tell that there is no file."""

    def close(self) -> None:
        """Keep everything: the lists stay readable."""
