"""The library of prices is imported while the host is at work: nobody may see what it brings half made."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest

from token_callbacks.prices.imports import import_whole

pytest.importorskip("genai_prices")

_SLOW = """
import gate
gate.is_begun.set()
gate.is_seen.wait(60)
import json.tool  # lets go of the interpreter's lock, as the import of a large module does many times
Timeout = 3
"""
_PATIENT = """
import gate
gate.is_begun.set()
while not (gate.is_imported.wait(0.01) or gate.is_waited_for()):
    pass
gate.seen.append(gate.is_imported.is_set())
Timeout = 3
"""
_GATE = """
import threading
is_begun, is_seen, is_imported, seen = threading.Event(), threading.Event(), threading.Event(), []
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the name of a module whose import waits until somebody looks at it."""
    (tmp_path / "slow_module.py").write_text(_SLOW)
    (tmp_path / "gate.py").write_text(_GATE)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("slow_module", "gate"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "slow_module"


def test_who_finds_a_module_half_made_waits_for_the_rest(slow: str) -> None:
    """As openai looks for ``httpx2`` in ``sys.modules``; what the module never has is missing afterwards as before."""
    import gate  # type: ignore[import-not-found]

    seen: list[object] = []

    def look() -> None:
        gate.is_begun.wait(60)
        module = sys.modules[slow]
        gate.is_seen.set()
        seen.extend([module.Timeout, getattr(module, "Nothing", None)])

    other = threading.Thread(target=look)
    other.start()
    import_whole(slow)
    other.join()

    assert [3, None] == seen
    assert not hasattr(sys.modules[slow], "__getattr__")


def test_who_imports_a_module_half_made_waits_for_all_of_it(slow: str, tmp_path: Path) -> None:
    """However long that takes, as with any module; its loader and its spec are those of any module as well."""
    (tmp_path / "slow_module.py").write_text(_PATIENT)
    import gate

    def ask() -> None:
        gate.is_begun.wait(60)
        module = importlib.import_module(slow)
        gate.is_imported.set()
        gate.seen.append(vars(module).get("Timeout"))

    other = threading.Thread(target=ask)
    gate.is_waited_for = lambda: ("<frozen importlib._bootstrap>", "acquire") in _functions_of(other)
    other.start()
    import_whole(slow)
    other.join()

    assert [False, 3] == gate.seen
    assert ["SourceFileLoader"] * 2 == [
        type(loader).__name__ for loader in (sys.modules[slow].__loader__, sys.modules[slow].__spec__.loader)
    ]


def _functions_of(thread: threading.Thread) -> list[tuple[str, str]]:
    """Tell the functions that a thread is in, by file and name."""
    frame = sys._current_frames().get(thread.ident or 0)
    return (
        []
        if frame is None
        else [(frame.f_code.co_filename, frame.f_code.co_name) for frame, _ in traceback.walk_stack(frame)]
    )


def test_a_module_that_fails_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next import tries again, as with any module."""
    (tmp_path / "broken_module.py").write_text("raise ZeroDivisionError")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ZeroDivisionError):
        import_whole("broken_module")

    assert "broken_module" not in sys.modules
    with pytest.raises(ImportError):
        import_whole("no_such_module_at_all")


def test_prices_are_loaded_with_the_framework() -> None:
    """Not at a run's end, which may be on an event loop; without prices not at all."""
    program = (
        "import sys; from token_callbacks import TokenCounter; TokenCounter(log_dir=None{}); "
        "before = 'genai_prices' in sys.modules; import litellm; print(before, 'genai_prices' in sys.modules)"
    )
    told = [
        subprocess.run([sys.executable, "-c", program.format(prices)], capture_output=True, text=True, check=True)
        for prices in ("", ", prices=False")
    ]

    assert ["False True\n", "False False\n"] == [done.stdout for done in told]


@pytest.mark.parametrize("end", ["close", "uninstall"])
def test_a_counter_without_prices_does_not_load_those_of_one_before_it(end: str) -> None:
    """What a counter asked for ends with it."""
    program = (
        f"import sys; from token_callbacks import TokenCounter; TokenCounter(log_dir=None).{end}(); "
        "TokenCounter(log_dir=None, prices=False); import litellm; print('genai_prices' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "False\n" == told.stdout
