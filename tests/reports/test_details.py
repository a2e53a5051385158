"""Groups by model: the same from both engines, and never more than the group."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reports.records import record, write
from token_callbacks.reports.groups import Engine, aggregated
from token_callbacks.reports.logs import load


@pytest.mark.parametrize("engine", ["duckdb", "streaming"])
def test_each_group_is_told_by_model_too(tmp_path: Path, engine: Engine) -> None:
    """Most tokens first; where nobody asks, there is nothing."""
    write(
        tmp_path,
        [
            record(1, step="judge", model="gpt-4o", prompt_tokens=3),
            record(2, step="judge", model="claude", prompt_tokens=5),
            record(3, step="judge", model="gpt-4o", prompt_tokens=4),
            record(4, step=None, model=None, prompt_tokens=2),
        ],
    )
    made = aggregated(load(tmp_path), by="step", details=True, engine=engine)

    told = [[(row.group, row.calls, row.usage.prompt_tokens) for row in models] for models in made.details]
    assert [[("gpt-4o", 2, 7), ("claude", 1, 5)], [(None, 1, 2)]] == told
    assert ["judge", None] == [row.group for row in made.rows]
    assert [] == aggregated(load(tmp_path), by="step", engine=engine).details
