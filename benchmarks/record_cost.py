"""What it costs to close a call into its record and to write it to the JSONL, step by step."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from benchmarks.side_by_side import Variant, clock, repeated, side_by_side
from benchmarks.tables import LINE_LIMIT_MICROSECONDS, Row, limited
from token_callbacks import TokenCounter
from token_callbacks.evidence import BOTH_REPORTED, Completion, Evidence, Prompt, settle
from token_callbacks.ledger import Draft, Ending, Ledger, OpenCall, Origin, process_ledger
from token_callbacks.records import Operation, Outcome
from token_callbacks.totals import Totals
from token_callbacks.usage import Misfits, Reading, read_usage

_PAYLOAD = {
    "prompt_tokens": 1729,
    "completion_tokens": 512,
    "total_tokens": 2241,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 128, "audio_tokens": 0},
}
_CALLS = 200
_TURNS = 80


class ReportedEvidence:
    """A call whose provider told its usage."""

    def reading(self, operation: Operation) -> Reading | None:
        """Read the payload."""
        return read_usage(_PAYLOAD, operation)

    def misfits(self, operation: Operation) -> Misfits:  # noqa: ARG002 - there are none of any
        """Name nothing: all of it is counts."""
        return {}

    def rules_out_usage(self) -> bool:
        """Leave it open."""
        return False

    def has_last_word(self) -> bool:
        """Leave it open."""
        return False

    def prompt(self) -> Prompt | None:
        """Tell nothing: nobody asks."""

    def completion(self) -> Completion | None:
        """Tell nothing: nobody asks."""

    def inputs(self) -> Sequence[str] | None:
        """Tell nothing: nobody asks."""

    def names(self) -> tuple[str, str]:
        """Tell an id and a model."""
        return "chatcmpl-1", "gpt-4o-mini-2024-07-18"


def rows() -> Iterator[Row]:
    """Measure ``close_call``, up to the line in the file, and each step of it alone."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:  # not /tmp, which may be memory
        counter = TokenCounter(log_dir=folder, frameworks=("litellm",))
        with Path(folder, "bare").open("ab", buffering=0) as file:
            yield from _rows(process_ledger(), file)
        counter.close()


def open_and_close(ledger: Ledger, evidence: Sequence[Evidence]) -> None:
    """Make one record."""
    ledger.close_call(_opened(ledger, ledger.origin("litellm")), outcome=Outcome.COMPLETED, evidence=evidence)


def _rows(ledger: Ledger, file: IO[bytes]) -> Iterator[Row]:
    evidence = (ReportedEvidence(),)
    reading = read_usage(_PAYLOAD, Operation.CHAT)
    if reading is None:
        raise SystemExit("the payload was not read")
    draft = Draft(
        call=_opened(ledger, ((), None)),
        call_id="1",
        ending=Ending(Outcome.COMPLETED),
        ended_at=ledger.clock(),
        usage=reading.usage,
        sources=BOTH_REPORTED,
        reading=reading,
        names=("chatcmpl-1", "gpt-4o-mini-2024-07-18"),
    )
    record = draft.record("20261121T050000-0123456789ab", None)
    line = msgspec.json.encode(record) + b"\n"
    totals = Totals()
    steps = {
        "settle": lambda: settle(Operation.CHAT, "gpt-4o-mini", Outcome.COMPLETED, evidence),
        "record": lambda: draft.record("20261121T050000-0123456789ab", None),
        "totals": lambda: totals.fold(draft.entry, None),
        "encode": lambda: msgspec.json.encode(record),
        "write": lambda: os.write(file.fileno(), line),
    }
    variants = {name: repeated(step, number=_CALLS) for name, step in steps.items()}
    timings = side_by_side(variants | {"close": _closing(ledger, evidence)}, turns=_TURNS)
    yield limited(
        "record closed and written to the JSONL",
        timings.seconds("close") * 1e6,
        limit=LINE_LIMIT_MICROSECONDS,
        unit="us",
        baseline=f"os.write alone: {timings.seconds('write') * 1e6:.1f} us",
        compared="of it " + ", ".join(f"{name} {timings.seconds(name) * 1e6:.1f}" for name in steps) + " us",
    )


def _closing(ledger: Ledger, evidence: Sequence[Evidence]) -> Variant:
    def seconds() -> float:
        calls = [_opened(ledger, ledger.origin("litellm")) for _ in range(_CALLS)]
        start = clock()
        for call in calls:
            ledger.close_call(call, outcome=Outcome.COMPLETED, evidence=evidence)
        return (clock() - start) / _CALLS

    return seconds


def _opened(ledger: Ledger, origin: Origin) -> OpenCall:
    return ledger.open_call(
        origin, framework="litellm", operation=Operation.CHAT, provider="openai", model="gpt-4o-mini"
    )
