"""``transformers serve`` tells the usage of every answer, of a stream in its last chunk, asked or not."""

from __future__ import annotations

import pytest

from token_callbacks import TokenCounter
from token_callbacks.records import Provenance
from token_callbacks.sinks.memory import MemorySink

from .calls import PLAIN, STREAMED, Ask, truth_of
from .conftest import Served

ALL = {f"{name} plain": ask for name, ask in PLAIN.items()} | {
    f"{name} streamed": ask for name, ask in STREAMED.items()
}


@pytest.mark.parametrize("ask", ALL.values(), ids=ALL)
def test_every_answer_is_reported(
    transformers_serve: Served, counter: TokenCounter, memory: MemorySink, ask: Ask
) -> None:
    """Plain or streamed, by whichever framework: as the server says to one who asks it directly."""
    truth = truth_of(transformers_serve)
    with counter.run("transformers"):
        ask(transformers_serve)

    assert [(*truth, Provenance.REPORTED)] == [
        (record.usage.prompt_tokens, record.usage.completion_tokens, record.provenance.weakest)
        for record in memory.records
    ]
