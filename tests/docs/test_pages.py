"""Every block of the pages is what it seems to be: programs and commands run, values fit, pictures are true."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.cli.conftest import real_log  # noqa: F401 - a fixture
from tests.cli.screens import environment
from tests.docs.pages import PAGES, ROOT, Block, blocks
from token_callbacks.prices import PriceBook
from token_callbacks.reports.tables import LEFT_OUT_FIRST
from token_callbacks.schemas import shipped

LANGUAGES = {"console", "json", "python", "text", "toml", "yaml"}
PAGES_WITH_PROGRAMS = sorted({block.page for block in blocks("python") if block.is_run})
COMMANDS = [(block, line) for block in blocks("console") if block.is_run for line in block.text.splitlines()]
PRINTED = [block for block in blocks("text") if block.noted("prints")]

FAILING = {
    "token-callbacks report --since today --fail-over 5 --fail-over-tokens 2000000": 4,  # a call failed, unpriced
}
SILENT = {"token-callbacks report --by month --csv > report.csv", 'eval "$(token-callbacks completion bash)"'}
FIGURES = {
    "docs/reading.md": [
        "nightly 18", "nightly  gpt-4o              8", "gpt-4o    8", "gpt-4o", "8", "4 calls in 1 files", "8",
    ],
    "docs/runs.md": ["34 68", "", "2"],
    "docs/counting.md": ["", "2\n5\n"],
    "docs/prices.md": ["0.0000475 USD, says genai-prices"],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give an empty folder with the command in it."""
    path = tmp_path / "bin" / "token-callbacks"
    path.parent.mkdir()
    path.write_text(f"#!{sys.executable}\nfrom token_callbacks.cli import main\nmain(prog_name='token-callbacks')\n")
    path.chmod(0o700)
    return tmp_path


@pytest.fixture(scope="session")
def quickstart_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the quickstart, and return the folder with its logs."""
    folder = tmp_path_factory.mktemp("quickstart")
    command = [sys.executable, ROOT / "examples" / "quickstart.py"]
    subprocess.run(command, env=environment(), cwd=folder, capture_output=True, check=True)
    return folder / "token_logs"


def _shell(command: str, folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    if "jq" in command and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=environment(PATH=path, **changes), cwd=folder, capture_output=True, check=False, text=True,
    )  # fmt: skip


def test_the_blocks_that_are_not_run_are_these() -> None:
    """Each with its reason; whoever adds one says it here too."""
    reasons = [(block.page, block.noted("not run")) for block in blocks(*LANGUAGES, "sh", "") if not block.is_run]

    assert [
        ("README.md", ".ci/run runs it, in an environment of its own"),
        ("README.md", ".ci/run runs it, in an environment of its own"),
        ("docs/agents.md", "tests/examples runs them"),
        ("docs/agents.md", "it is a part of examples/llama_index_agents.py"),
        ("docs/agents.md", "it is a part of examples/fastapi_stream.py"),
        ("docs/lavague.md", "needs LaVague and a browser; tests/lavague runs the same with both"),
        ("docs/servers.md", "it installs gigabytes"),
        ("docs/servers.md", "it installs gigabytes"),
        ("docs/tests.md", "it takes hours"),
    ] == reasons


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    """None hides from the tests below by its name."""
    names = re.compile(r"^```(\S+)$", flags=re.MULTILINE)

    assert set(LANGUAGES) >= {name for page in PAGES for name in names.findall((ROOT / page).read_text())}


@pytest.mark.parametrize("page", PAGES_WITH_PROGRAMS)
def test_the_programs_of_a_page_run_in_their_order(page: str, tmp_path: Path) -> None:
    """As they stand, and print the figures that they should."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.stage", page],
        env=environment(LITELLM_LOCAL_MODEL_COST_MAP="True"), cwd=tmp_path, capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])

    assert [block.place for block in blocks("python", page=page) if block.is_run] == [each["place"] for each in told]
    for each, figures in zip(told, FIGURES.get(page, []), strict=False):
        assert figures in each["output"]
    if page == "README.md":
        assert f"{told[0]['billed']} " in told[0]["output"]
        assert told[0]["billed"] > 0


@pytest.mark.usefixtures("real_log")
@pytest.mark.parametrize(("block", "command"), COMMANDS, ids=[f"{block.page} {line}" for block, line in COMMANDS])
def test_a_command_does_what_it_says(request: pytest.FixtureRequest, folder: Path, block: Block, command: str) -> None:
    """As it is written there, in a shell, beside a ``token_logs`` and a copy of the pages."""
    shutil.copytree(request.getfixturevalue("real_log"), folder / "token_logs")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "README.md", folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    done = _shell(command, folder)

    assert FAILING.get(command, 0) == done.returncode, done.stderr
    assert "Traceback" not in done.stderr
    assert (command in SILENT) is ("" == done.stdout + done.stderr)


@pytest.mark.parametrize("block", blocks("json"), ids=lambda block: block.place)
def test_a_value_fits_its_schema(block: Block) -> None:
    """Each key is one of the schema, with a value that may stand there; a page may leave keys out."""
    shape = block.noted("schema")
    assert shape is not None, f"{block.place}: say <!-- schema: run -->, or which it is"

    jsonschema.validate(json.loads(block.text), _shortened(json.loads(shipped(shape))))


def _shortened(schema: Any) -> Any:
    """Return the schema of values that may leave keys out and have no others."""
    if isinstance(schema, list):
        return [_shortened(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
    return closed | {key: _shortened(part) for key, part in schema.items() if key != "required"}


@pytest.mark.parametrize("block", blocks("toml", "yaml"), ids=lambda block: block.place)
def test_a_setting_can_be_read(block: Block, tmp_path: Path) -> None:
    """By what it is a setting of."""
    if block.language == "yaml":
        assert yaml.safe_load(block.text)
        return
    path = tmp_path / "prices.toml"
    path.write_text(block.text, encoding="utf-8")

    assert tomllib.loads(block.text)["price"]
    PriceBook(path)


@pytest.mark.parametrize("block", PRINTED, ids=lambda block: block.place)
def test_what_is_said_to_be_printed_is_printed(block: Block, quickstart_logs: Path, folder: Path) -> None:
    """From the logs of the quickstart, in a terminal of 100 columns; figures and times differ."""
    shutil.copytree(quickstart_logs, folder / "token_logs")
    done = _shell(str(block.noted("prints")), folder, COLUMNS="100")

    assert _masked(done.stdout) == _masked(block.text)


def _masked(text: str) -> list[str]:
    """Return the kinds of lines: how many calls embed the pages depends on how long they are."""
    figures = re.sub(r"\b\d[\da-f.,:TZ-]*", "#", text)
    return list(dict.fromkeys(re.sub("─+", "─", " ".join(line.split())) for line in figures.strip().splitlines()))


def test_the_readmes_summary_is_one_of_the_quickstart(quickstart_logs: Path) -> None:
    """With the keys of a real one, in their order, and the same words in it."""
    [path] = (quickstart_logs / "runs").iterdir()
    real = json.loads(path.read_text())
    [block] = blocks("json", page="README.md")

    _assert_part_of(json.loads(block.text), real)


def _assert_part_of(shown: Any, real: Any) -> None:
    assert type(real) is type(shown)
    if isinstance(shown, dict):
        assert [key for key in real if key in shown] == list(shown)
        for key, value in shown.items():
            _assert_part_of(value, real[key])
    elif isinstance(shown, list):
        for one, other in zip(shown, real, strict=False):
            _assert_part_of(one, other)
    elif not isinstance(shown, int | float):
        assert _masked(str(real)) == _masked(str(shown))


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_to_files(page: str) -> None:
    """And to headings that are there."""
    for target, heading in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", (ROOT / page).read_text()):
        path = (ROOT / page).parent / target if target else ROOT / page

        assert path.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings]


@pytest.mark.parametrize("shape", ["run", "call"])
def test_the_page_of_the_files_names_every_key(shape: str) -> None:
    """Of the summary and of the line, each in its own section, and no key that is not there."""
    page = (ROOT / "docs" / "files.md").read_text()
    heading = {"run": "## `runs/", "call": "## `calls-"}[shape]
    section = page.partition(heading)[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, flags=re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    schema = json.loads(shipped(shape))

    assert set(schema["$defs"][schema["$ref"].rpartition("/")[2]]["properties"]) == told


def test_the_picture_of_the_house_has_every_room() -> None:
    """Each module and package of ``token_callbacks``, and none that is not there."""
    [picture] = [block.text for block in blocks("text", page="README.md") if block.text.startswith("token_callbacks/")]
    rooms = set(re.findall(r"\b(\w+\.py|\w+/)(?= )", picture.partition("\n")[2]))
    there = {
        path.name + "/" * path.is_dir()
        for path in (ROOT / "token_callbacks").iterdir()
        if not path.name.startswith(("_", ".")) and path.name != "py.typed"
    }

    assert there == rooms


def test_the_reports_page_tells_the_order_in_which_columns_give_way() -> None:
    """Of the code."""
    assert ", ".join(LEFT_OUT_FIRST) in " ".join((ROOT / "docs" / "reports.md").read_text().split())
