"""Where the command prints: a terminal of some width, a pipe, an encoding that may not say everything."""

from __future__ import annotations

import os
import sys
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Self

from token_callbacks.reports.texts import Signs, signs_for

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_NO_LIMIT = 100_000
"""The width of what is no terminal, for rich, which wants one."""
_PATIENCE_SECONDS = 1.0


def console(*, is_error: bool = False) -> Console:
    """Make a console that prints texts as they are: no markup, no emoji codes, no guessed highlights."""
    from rich.console import Console

    stream = sys.stderr if is_error else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _NO_LIMIT
    return Console(stderr=is_error, markup=False, emoji=False, highlight=False, soft_wrap=False, width=width)


def width_of(console: Console) -> int | None:
    """Tell how many columns there are; ``None`` where nobody looks: in a pipe or a file."""
    return None if console.width == _NO_LIMIT else console.width


def signs() -> Signs:
    """Choose the signs that standard output can say."""
    return signs_for(sys.stdout.encoding)


class ReadingBar:
    """A bar on a terminal's standard error, once reading has taken more than a second; silent anywhere else.

    Called with the bytes read and the bytes there are; until then it only tells that something goes on.
    """

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(_PATIENCE_SECONDS, self._show)
        self._timer.daemon = True

    def __call__(self, done: int, whole: int) -> None:
        """Tell how far reading has come."""
        with self._lock:
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=done, total=max(done, whole))

    def _show(self) -> None:
        # From a thread: one long file may be read by DuckDB in one go.
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("reading"), BarColumn(), TimeElapsedColumn())
        with self._lock:
            self._bar = Progress(*columns, console=console(is_error=True), transient=True)
            self._bar.add_task("reading", total=None)
            self._bar.start()

    def __enter__(self) -> Self:
        """Start the clock, where there is somebody to see the bar."""
        if sys.stderr.isatty():
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar away."""
        self._timer.cancel()
        if self._timer.is_alive():
            self._timer.join()
        if self._bar is not None:
            self._bar.stop()
