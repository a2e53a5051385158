"""The JSON Schemas of the files and of what the command prints, generated from the types that are written.

They ship in the package as files; ``python -m token_callbacks.schemas`` writes them anew after a change of the types,
and a test holds them to each other.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from token_callbacks.records import SCHEMA_VERSION, CallRecord, RunSummary
from token_callbacks.reports.shapes import CountedFiles, Report, RunList, ShownRun

SHAPES: dict[str, type[msgspec.Struct]] = {
    "call": CallRecord,
    "run": RunSummary,
    "report": Report,
    "runs": RunList,
    "show": ShownRun,
    "count": CountedFiles,
}
"""``call`` is a line of ``calls-*.jsonl``, ``run`` is ``runs/<run_id>.json``; the others are what a command prints."""


def generated(shape: str) -> dict[str, Any]:
    """Generate the schema of a shape from its type."""
    schema = msgspec.json.schema(SHAPES[shape])
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:token-callbacks:{shape}:{SCHEMA_VERSION}",
    }
    return head | schema


def shipped(shape: str) -> str:
    """Read the schema of a shape as it ships with the package."""
    return (files("token_callbacks") / "schema" / f"{shape}.schema.json").read_text(encoding="utf-8")


def as_text(schema: dict[str, Any]) -> str:
    """Write a schema the way the shipped files are written."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in SHAPES:
        path = Path(__file__).parent / "schema" / f"{name}.schema.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(as_text(generated(name)), encoding="utf-8")
