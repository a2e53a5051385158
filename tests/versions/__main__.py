"""Run the promises of the adapters on releases of LiteLLM, LlamaIndex and LaVague, in an environment each.

    python -m tests.versions                        # the releases of ROWS
    python -m tests.versions 'litellm==1.98.*'      # any other, also 'llama-index-core==0.12.30'

Prints one table and exits with 1 if a test failed or a release could not be installed. Needs `uv`; environments are
kept in the folder that `TOKEN_CALLBACKS_VENVS` names, by default one under the system's folder for temporary files. A
plain `pytest` runs the same tests on the releases that are installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

ROOT = Path(__file__).parents[2]
VENVS = Path(os.environ.get("TOKEN_CALLBACKS_VENVS") or Path(tempfile.gettempdir(), "token-callbacks-versions"))
NEEDED = ("boto3", "hypothesis", "mcp", "pytest>=8.3", "sse-starlette>=3.0", "starlette>=1.0", "uvicorn>=0.35")
"""What the suites need beside this project and the framework; `litellm.responses` imports `mcp`."""

BEDROCK = "tests/versions/test_bedrock_seed.py"
CALLS = "tests/litellm/test_calls.py"
ASKING = "tests/test_asking.py"
LLAMA_INDEX = "tests/versions/test_llama_index.py"
LAVAGUE = ("tests/lavague/test_agents.py", "tests/lavague/test_counter.py")
PROXY = "tests/examples/test_examples.py::test_litellm_proxy"
GENERATE_CONTENT = "tests/litellm/test_generate_content.py"
LONGEST_SECONDS = 600

WITHOUT_USAGE = tuple(
    f"{CALLS}::{test}"
    for test in (
        "test_a_stream_without_usage_is_one_counted_record[claude_completion streamed-never]",
        "test_a_stream_without_usage_is_one_counted_record[claude_acompletion streamed-never]",
        "test_a_stream_without_usage_is_one_counted_record[bridged_responses streamed-never]",
        "test_asked_for_usage_that_never_came_is_not_reported[claude_completion streamed]",
        "test_asked_for_usage_that_never_came_is_not_reported[claude_acompletion streamed]",
    )
)
"""Anthropic streams without usage, which the real one never sends: LiteLLM 1.80.17 and 1.95.1 raise a KeyError."""


class Row(msgspec.Struct, frozen=True):
    """A release to test on, the packages that it does not work with when they are new, and what is run."""

    requirement: str
    beside: tuple[str, ...] | list[str] = ()
    suites: tuple[str, ...] = (CALLS, ASKING, BEDROCK)
    left_out: tuple[str, ...] = ()

    @property
    def package(self) -> str:
        """What is tested."""
        return re.split(r"[^\w-]", self.requirement)[0]

    @property
    def title(self) -> str:
        """What is tested, with the extras that are installed."""
        return re.split(r"[<>=!~\s]", self.requirement)[0]

    @property
    def folder(self) -> Path:
        """Where its virtual environment is kept."""
        return VENVS / re.sub(r"[^\w.]+", "-", self.requirement).strip("-.")


ROWS = (
    Row("litellm==1.63.14", beside=("openai<2",), suites=(BEDROCK,)),  # BerriAI/litellm#9577
    Row("litellm==1.80.*", beside=("openai<3",), left_out=WITHOUT_USAGE),
    Row("litellm==1.95.*", left_out=WITHOUT_USAGE),
    Row("litellm==1.106.*"),
    Row("litellm"),
    Row("litellm[proxy]==1.106.*", suites=(PROXY, GENERATE_CONTENT)),
    *(
        Row(f"llama-index-core=={release}", beside=beside, suites=(LLAMA_INDEX,))
        for release, *beside in (
            ("0.10.56", "llama-index-llms-openai", "llama-index-embeddings-openai"),  # LaVague's pin
            ("0.11.*", "llama-index-llms-openai", "llama-index-embeddings-openai"),
            ("0.12.*", "llama-index-llms-openai", "llama-index-embeddings-openai"),
            ("0.13.*", "llama-index-llms-openai<0.6", "llama-index-embeddings-openai"),
            ("0.14.*", "llama-index-llms-openai", "llama-index-embeddings-openai"),
        )
    ),
    # LaVague's readers import pkg_resources, and nltk 3.10 refuses files that uv links into several environments.
    Row(
        "lavague-core==0.2.23",
        beside=("lavague-drivers-selenium==0.2.10", "nltk<3.10", "setuptools<81"),
        suites=LAVAGUE,
    ),
    Row(
        "lavague-core==0.2.35",
        beside=("lavague-drivers-selenium==0.2.15", "litellm", "nltk<3.10", "setuptools<81"),
        suites=LAVAGUE,
    ),
)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a row; `failures` has the test and the first line of its error."""

    version: str
    passed: int = 0
    skipped: int = 0
    left_out: int = 0
    failures: tuple[tuple[str, str], ...] = ()


def main(requirements: list[str]) -> int:
    """Run the rows asked for, all when none is, and return the exit status."""
    console = Console()
    known = {row.requirement: row for row in ROWS}
    results: dict[str, Result] = {}
    for row in [known.get(name, Row(name)) for name in requirements] or ROWS:
        try:
            with console.status(f"{row.requirement}: installing"):
                version = installed(row)
        except subprocess.CalledProcessError as error:
            results[row.requirement] = Result(version=row.requirement, failures=(("the installation", str(error)),))
            continue
        version = f"{row.title} {version}"
        if version in results:  # the newest that installs is one of those before it
            continue
        with console.status(f"{row.requirement}: testing {version}"):
            results[version] = tested(row, version)
    console.print(table_of(results))
    for result in results.values():
        for test, error in result.failures:
            console.print(f"{result.version}  {test}\n    {error}", markup=False, highlight=False, soft_wrap=True)
    return 1 if any(result.failures for result in results.values()) else 0


def installed(row: Row) -> str:
    """Make the environment, or bring it up to date, and return the framework's version in it."""
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("python -m tests.versions makes its environments with uv: pip install uv")
    python = row.folder / "bin" / "python"
    if not python.exists():
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, row.folder], check=True)
    packages = ["--editable", str(ROOT), row.requirement, *row.beside, *NEEDED]
    install = [uv, "pip", "install", "--quiet", "--python", python, "--upgrade-package", row.package, *packages]
    subprocess.run(install, check=True)
    ask = f"from importlib.metadata import version; print(version({row.package!r}))"
    return subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip()


def tested(row: Row, version: str) -> Result:
    """Run the row's suites in its environment; a run that hangs or ends early is a failure of its own."""
    report = row.folder / "report.xml"
    report.unlink(missing_ok=True)
    deselected = [f"--deselect={test}" for test in row.left_out]
    command = [row.folder / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    try:
        done = subprocess.run(
            [*command, *deselected, *row.suites],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Result(version=version, failures=(("the run", f"did not end within {LONGEST_SECONDS} s"),))
    if not report.exists():
        return Result(version=version, failures=(("the run", (done.stdout + done.stderr).strip()[-2000:]),))
    return read_report(report, version=version, left_out=len(row.left_out))


def read_report(report: Path, *, version: str, left_out: int) -> Result:
    """Read what pytest wrote about a run."""
    cases = list(ET.parse(report).iter("testcase"))
    failures = tuple(
        (f"{case.get('classname')}::{case.get('name')}", (bad.get("message") or "").partition("\n")[0][:200])
        for case in cases
        for bad in (*case.iter("failure"), *case.iter("error"))
    )
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - failed - skipped
    return Result(version=version, passed=passed, skipped=skipped, left_out=left_out, failures=failures)


def table_of(results: dict[str, Result]) -> Table:
    """Lay out one line a release."""
    table = Table("release")
    for heading in ("passed", "failed", "skipped", "left out"):
        table.add_column(heading, justify="right")
    for result in results.values():
        counts = (result.passed, len(result.failures), result.skipped, result.left_out)
        table.add_row(escape(result.version), *map(str, counts))
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
