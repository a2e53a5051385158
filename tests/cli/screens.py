"""Terminals for tests: a real pseudo-terminal, and what it shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pexpect
import pyte

ROOT = Path(__file__).parent.parent.parent
COMMAND = [sys.executable, "-c", "from token_callbacks.cli import main; main(prog_name='token-callbacks')"]
_ROWS = 40
_SECONDS = 60


def environment(**changes: str) -> dict[str, str]:
    """Return an environment that says nothing of the terminal that the tests run in."""
    ours = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "examples")]), "TERM": "xterm-256color", "TZ": "UTC"}
    foreign = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING"}
    return {name: value for name, value in os.environ.items() if name not in foreign} | ours | changes


def spawned(*arguments: str, columns: int, **changes: str) -> Any:
    """Start the command in a terminal of so many columns."""
    program, *rest = [*COMMAND, *arguments]
    return pexpect.spawn(program, rest, env=environment(**changes), dimensions=(_ROWS, columns), timeout=_SECONDS)


def typed(*arguments: str, columns: int, **changes: str) -> tuple[bytes, int]:
    """Run the command in a terminal of so many columns, and return what it sent and its exit code."""
    child = spawned(*arguments, columns=columns, **changes)
    sent = child.read()
    child.close()
    return sent, child.exitstatus


def shown(sent: bytes, *, columns: int, rows: int = 500) -> list[str]:
    """Return the lines that a terminal shows of what it was sent."""
    screen = pyte.Screen(columns, rows)
    pyte.ByteStream(screen).feed(sent)
    return "\n".join(line.rstrip() for line in screen.display).rstrip().split("\n")


def piped(*arguments: str, **changes: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command with nothing but pipes."""
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(**changes), capture_output=True, check=False, timeout=_SECONDS
    )


class Writer:
    """A process that makes runs and calls in a folder when it is told to."""

    def __init__(self, log_dir: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.writer", str(log_dir)],
            env=environment(), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def tell(self, line: str) -> None:
        """Have a line obeyed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        assert "done\n" == self._process.stdout.readline()

    def kill(self) -> None:
        """Let it die as it is."""
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        """Give the writer, which has written nothing yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
