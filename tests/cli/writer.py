"""A program that makes runs and calls as it is told, by lines: ``open NAME``, ``call PROMPT COMPLETION``, ``close``."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from tests.calls import make_call
from token_callbacks import TokenCounter


def main() -> None:
    """Obey standard input, and say "done" after each line."""
    counter = TokenCounter(log_dir=sys.argv[1])
    runs: list[ExitStack] = []
    for line in sys.stdin:
        verb, *words = line.rstrip("\n").split(" ")
        if verb == "open":
            runs.append(ExitStack())
            runs[-1].enter_context(counter.run(" ".join(words).encode().decode("unicode_escape")))
        elif verb == "call":
            make_call(prompt=int(words[0]), completion=int(words[1]))
        else:
            runs.pop().close()
        print("done", flush=True)  # noqa: T201
    counter.close()


if __name__ == "__main__":
    main()
