"""Attached twice, by two counters, by callbacks beside them, by adapters that were loaded again: still one record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """Give what the script tells; in a process of its own, for the modules that it loads again stay so."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.attachments_script"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'examples'}"},
        timeout=120,
    )
    assert 0 == process.returncode, process.stderr
    cases: dict[str, Any] = json.loads(process.stdout)
    return cases


def test_a_call_is_one_record_in_each_counter(told: dict[str, Any]) -> None:
    """Two counters, two callbacks and three loads of each adapter: a request is one record in each counter."""
    assert 20 < len(told)
    for case, (requests, *counters) in told.items():
        expected = [] if case == "late" else [["completed", _provenance(case), "stream" in case]]

        assert (case, 0 if case == "late" or "mock" in case else 1) == (case, requests)
        assert (case, [expected, expected]) == (case, counters)


def _provenance(case: str) -> str:
    return "estimated" if case.startswith("mock") else "reported"
