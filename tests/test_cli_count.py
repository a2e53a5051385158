"""``token-callbacks count``: tokens by file and in all, offline."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from token_callbacks.cli import main
from token_callbacks.counting import count_completion, files
from token_callbacks.prices import PriceBook

TEXT = "The library opens at nine in the morning. "


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    """Write two files."""
    (tmp_path / "one.txt").write_text(TEXT, encoding="utf-8")
    (tmp_path / "two.txt").write_text(TEXT * 20_000, encoding="utf-8")
    return [str(tmp_path / "one.txt"), str(tmp_path / "two.txt")]


def _count(*arguments: str, **options: Any) -> Any:
    result = CliRunner().invoke(main, ["count", *arguments], **options)
    assert 0 == result.exit_code, result.output
    return result.stdout


def _tiktoken(text: str) -> int:
    return int(json.loads(_count("--json", input=text))["tokens"])


def test_files_are_counted_each_and_in_all(texts: list[str]) -> None:
    """A row a file, and the sum."""
    told = json.loads(_count(*texts, "--json"))

    assert texts == [file["name"] for file in told["files"]]
    expected = [count_completion(model="gpt-4o", text=text).tokens for text in (TEXT, TEXT * 20_000)]
    assert expected == [file["tokens"] for file in told["files"]]
    assert (sum(expected), True, "gpt-4o") == (told["tokens"], told["is_exact"], told["model"])


def test_what_comes_in_is_counted() -> None:
    """Without a file, standard input is."""
    done = subprocess.run(
        [sys.executable, "-c", "from token_callbacks.cli import main; main()", "count", "--json"],
        input=TEXT.encode(), capture_output=True, check=True,
    )  # fmt: skip

    assert count_completion(model="gpt-4o", text=TEXT).tokens == json.loads(done.stdout)["tokens"]


def test_the_table_names_the_model_and_marks_estimates(texts: list[str]) -> None:
    """``~`` before what is not the model's own count."""
    exact, estimate = _count(texts[0]), _count(texts[0], "--model", "nobodys-model")

    assert "gpt-4o" in exact
    assert "~" not in exact
    assert "~" in estimate


def test_a_known_price_is_told_and_an_unknown_one_is_not_zero() -> None:
    """A million tokens of gpt-4o's prompt are 2.5 USD; nobody knows what another costs."""
    pytest.importorskip("genai_prices")

    book, moment = PriceBook({"price": []}), datetime(2026, 11, 21, tzinfo=UTC)
    price = files.prompt_price("gpt-4o", 1_000_000, book=book, moment=moment)

    assert price is not None
    assert (Decimal("2.5"), "USD") == (price.amount, price.currency)
    assert files.prompt_price("nobodys-model", 1_000_000, book=book, moment=moment) is None


def test_the_price_is_that_of_the_own_table(tmp_path: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With its currency, its source, the day from which on it holds and today's, in both shapes."""
    (tmp_path / "prices.toml").write_text(
        'currency = "EUR"\n[[price]]\nmodel = "*"\nfrom = 2026-01-03\nprompt = 1000000\ncompletion = 0\n'
    )
    monkeypatch.setenv("TOKEN_CALLBACKS_PRICES", str(tmp_path / "prices.toml"))
    monkeypatch.setattr("token_callbacks.ledger.utc_now", lambda: datetime(2026, 11, 21, 23, 30, tzinfo=UTC))
    told = json.loads(_count(texts[0], "--json"))

    source = {"source": "own table", "dated": "2026-01-03", "day": "2026-11-21"}
    assert {"amount": str(told["tokens"]), "currency": "EUR"} | source == told["prompt_price"]
    assert [f"{told['tokens']} EUR", "prices: own table since 2026-01-03, for 2026-11-21"] == [
        line.removeprefix("as a prompt").strip() for line in _count(texts[0]).splitlines()[-2:]
    ]
    monkeypatch.setenv("TOKEN_CALLBACKS_PRICES", "nowhere.toml")
    assert "nowhere.toml cannot be read" in CliRunner().invoke(main, ["count", texts[0]]).output


def test_a_name_is_printed_as_it_is(tmp_path: Path) -> None:
    """No part of it is markup, and none acts upon the terminal."""
    name = tmp_path / "[red]a\x1b[31m.txt"
    name.write_text("one")

    assert f"{tmp_path}/[red]a\\x1b[31m.txt" in _count(str(name))


def test_bytes_that_are_no_text_are_counted(tmp_path: Path) -> None:
    """A file of anything is no reason to fail."""
    (tmp_path / "junk").write_bytes(bytes(range(256)) * 10)

    assert json.loads(_count(str(tmp_path / "junk"), "--json"))["tokens"] > 0


def test_characters_are_not_cut_where_pieces_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A character of four bytes may be in two pieces."""
    monkeypatch.setattr(files, "_PIECE", 3)
    (tmp_path / "emoji").write_text("👩‍👩‍👧‍👦 né " * 20, encoding="utf-8")
    cut = json.loads(_count(str(tmp_path / "emoji"), "--json"))["tokens"]
    monkeypatch.undo()

    assert _tiktoken("👩‍👩‍👧‍👦 né " * 20) == cut


def test_a_file_that_is_not_there_is_an_error_with_its_name() -> None:
    """Exit code 2, as for other wrong arguments, and no traceback."""
    result = CliRunner().invoke(main, ["count", "nowhere.txt"])

    assert (2, True) == (result.exit_code, "nowhere.txt" in result.output)
