"""The house keeps its rules: light imports, public names, shipped schemas, commands that exist."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from itertools import chain
from pathlib import Path

import pytest
from click.testing import CliRunner

import token_callbacks
from token_callbacks.cli import main
from token_callbacks.schemas import SHAPES, as_text, generated, shipped

ROOT = Path(__file__).parent.parent
NEEDED_BY_A_COUNTER = {"msgspec", "wrapt"}


def _named(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _heavy() -> set[str]:
    """Name the modules of all that pyproject.toml asks for, in extras too, and of what the frameworks bring along."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = chain(project["dependencies"], *project["optional-dependencies"].values())
    names = {_named(re.split(r"[^\w.-]", each)[0]) for each in asked} - {project["name"]}
    modules = packages_distributions().items()
    return {module for module, of in modules if names & set(map(_named, of))} | {"openai", "pydantic"}


HEAVY = _heavy()


def _modules_after(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(*sorted(sys.modules))"
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    return {name.partition(".")[0] for name in output.split()}


def _imports_at_work(tree: ast.AST, *, is_in_function: bool = False, is_watched: bool = False) -> Iterator[int]:
    """Give the lines of what is imported in functions, but for what is below a ``with importing:``."""
    is_in_function = is_in_function or isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    if isinstance(tree, ast.With):
        is_watched = is_watched or any(ast.unparse(item.context_expr) == "importing" for item in tree.items)
    for below in ast.iter_child_nodes(tree):
        is_import = isinstance(below, ast.Import | ast.ImportFrom) or (
            isinstance(below, ast.Call) and ast.unparse(below.func) == "importlib.import_module"
        )
        if is_import and is_in_function and not is_watched:
            yield below.lineno
        yield from _imports_at_work(below, is_in_function=is_in_function, is_watched=is_watched)


def test_no_fork_falls_into_an_import_of_ours() -> None:
    """But for the public names' own, and those of commands and reports, which nobody forks from."""
    package = ROOT / "token_callbacks"
    besides = (package / "cli", package / "reports", package / "counting" / "files.py", package / "__init__.py")
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted(package.rglob("*.py"))
        if not any(path.is_relative_to(place) for place in besides)
        for line in _imports_at_work(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert [] == found


def test_importing_the_package_imports_nothing_heavy() -> None:
    """``import token_callbacks`` costs next to nothing: no framework, and no dependency of ours."""
    loaded = _modules_after("import token_callbacks")

    assert set() == loaded & HEAVY


def test_making_a_counter_imports_no_framework() -> None:
    """A counter waits for the frameworks, it does not bring them in, nor what only reports and commands need."""
    loaded = _modules_after("from token_callbacks import TokenCounter; TokenCounter(log_dir=None)")

    assert set() == loaded & HEAVY - NEEDED_BY_A_COUNTER


def test_what_is_heavy_is_known_by_the_name_it_is_imported_by() -> None:
    """Which may not be the name in pyproject.toml."""
    assert {"httpx_sse", "llama_index", "tzlocal"} <= HEAVY


def test_all_lists_what_can_be_imported() -> None:
    """Every name in ``__all__`` is there, and ``dir`` shows it."""
    program = "from token_callbacks import *; import token_callbacks as t; assert set(dir(t)) == set(t.__all__)"
    subprocess.run([sys.executable, "-c", program], check=True)

    assert token_callbacks.__all__ == [
        "CallRecord",
        "LiteLLMTokenCallback",
        "Provenance",
        "Run",
        "RunSummary",
        "StreamCounter",
        "TokenCallbacksError",
        "TokenCounter",
        "TokenCountingHandler",
        "Usage",
        "load",
        "uninstall",
    ]


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy module is strict about its names."""
    with pytest.raises(AttributeError, match="has no attribute 'TokenCouter'"):
        token_callbacks.TokenCouter  # noqa: B018


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("LiteLLMTokenCallback", "litellm", "litellm"), ("TokenCountingHandler", "llama_index", "llama-index")],
)
def test_a_missing_framework_names_the_extra(name: str, module: str, extra: str) -> None:
    """Where the framework is not installed, the error says what to install."""
    program = f"import sys; sys.modules[{module!r}] = None; from token_callbacks import {name}"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)

    assert f"MissingExtra: {name} needs {module}" in done.stderr
    assert f"pip install 'token-callbacks[{extra}]'" in done.stderr


@pytest.mark.parametrize("shape", SHAPES)
def test_the_shipped_schema_is_that_of_the_types(shape: str) -> None:
    """A change of the file format shows up as a change of the schema: ``python -m token_callbacks.schemas``."""
    assert as_text(generated(shape)) == shipped(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_schema_command_prints_the_shipped_schema(shape: str) -> None:
    """Users get the schema without looking into the package."""
    result = CliRunner().invoke(main, ["schema", shape])

    assert 0 == result.exit_code
    assert json.loads(shipped(shape)) == json.loads(result.output)


def test_the_schema_command_names_the_shapes_it_knows() -> None:
    """A wrong shape is answered with the right ones."""
    result = CliRunner().invoke(main, ["schema", "summary"])

    assert 2 == result.exit_code
    assert all(f"'{shape}'" in result.output for shape in SHAPES)


def test_the_readme_has_two_commands_that_a_shell_can_read() -> None:
    """Set-up is one command for the quickstart and one for the tests, each on one line, and both parse."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python3 .*$", readme, flags=re.MULTILINE)

    assert 2 == len(commands)
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)
    assert commands[0].endswith("examples/quickstart.py")
    assert " -m pytest " in commands[1]
