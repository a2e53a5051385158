"""The user's own table of prices: globs, days, currencies, and mistakes in it that are told with the next step."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.test_prices import a_call, a_million
from token_callbacks.errors import InvalidPrices, TokenCallbacksError
from token_callbacks.prices import PRICES_VARIABLE, PriceBook
from token_callbacks.records import CallRecord, Operation

TOML = """
currency = "EUR"

[[price]]
model = "my-model*"
provider = "azure"
from = 2026-01-01
until = 2026-07-01
prompt = "2.50"
completion = 10.1
cache_read = "1.25"
cache_write = "3.125"
cache_write_1h = 5
reasoning = "11"
audio_prompt = "20"
audio_completion = "40"
request = "0.002"

[[price]]
model = "MY-model*"
prompt = 1
completion = 2

[[price]]
model = "embed*"
currency = "CHF"
embedding = "0.1"

[[price]]
model = "local/*"
prompt = 0
completion = 0
"""


@pytest.fixture
def book(tmp_path: Path) -> PriceBook:
    """Give a book with that table."""
    (tmp_path / "prices.toml").write_text(TOML, encoding="utf-8")
    return PriceBook(tmp_path / "prices.toml")


def _on(day: date, record: CallRecord | None = None, **told: Any) -> CallRecord:
    at = datetime(day.year, day.month, day.day, 23, 30, tzinfo=UTC)
    return a_call("my-model-7", "azure", at=at, **({"prompt_tokens": 1_000_000, "completion_tokens": 0} | told))


def test_every_part_has_its_price(book: PriceBook) -> None:
    """Parts are priced instead of, and not beside, the whole they are part of."""
    price = book.price_of(
        _on(
            date(2026, 3, 1), completion_tokens=1_000_000, cache_read_tokens=100_000, cache_write_tokens=200_000,
            cache_write_1h_tokens=100_000, audio_prompt_tokens=100_000,
        )
    )  # fmt: skip

    assert price is not None
    # 600,000 plain, 100,000 each read, written for five minutes, written for an hour, and heard
    assert Decimal("1.5") + Decimal("0.125") + Decimal("0.3125") + Decimal("0.5") + 2 == price.prompt
    assert Decimal("10.1") == price.completion
    assert price.prompt + price.completion + Decimal("0.002") == price.amount
    assert ("EUR", "own table", date(2026, 1, 1)) == (price.currency, price.source, price.dated)


def test_reasoning_and_spoken_tokens_have_a_price(book: PriceBook) -> None:
    """Where they overlap with each other, nobody can tell."""
    told = {"completion_tokens": 1_000_000, "reasoning_tokens": 600_000}
    beside = book.price_of(_on(date(2026, 3, 1), audio_completion_tokens=400_000, **told))

    assert beside is not None
    assert Decimal("6.6") + 16 == beside.completion
    overlapping = book.price_of(_on(date(2026, 3, 1), audio_completion_tokens=400_001, **told))
    assert overlapping is not None
    assert None is overlapping.dated  # the second entry, which has no price for either


@pytest.mark.parametrize(
    ("day", "expected"),
    [
        (date(2025, 12, 31), "1"),
        (date(2026, 1, 1), "2.502"),
        (date(2026, 6, 30), "2.502"),
        (date(2026, 7, 1), "1"),
    ],
)
def test_prices_hold_from_a_day_until_another(book: PriceBook, day: date, expected: str) -> None:
    """By the UTC day of the call; on ``until`` the price is over."""
    assert Decimal(expected) == book.price_of(_on(day)).amount  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("model", "provider", "expected"),
    [
        ("my-model-7", None, "3"),
        ("My-Model", "openai", "3"),
        ("azure/my-model-7", None, "3"),
        ("local/llama", "hosted_vllm", "0"),
        ("hosted_vllm/local/llama", None, "0"),
        ("not-my-model", None, None),
    ],
)
def test_globs_tell_models_and_sellers(book: PriceBook, model: str, provider: str | None, expected: str | None) -> None:
    """Of the name as written, or without its prefix; upper and lower case are one. 0 is a price."""
    price = book.price_of(a_million(model, provider))

    assert (None if expected is None else Decimal(expected)) == (None if price is None else price.amount)


def test_the_name_that_was_answered_with_counts_too(book: PriceBook) -> None:
    """Where the one that was asked for is in no table."""
    assert 3 == book.price_of(a_million("deployment", "azure", response_model="my-model-7")).amount  # type: ignore[union-attr]


def test_embeddings_and_currencies(book: PriceBook) -> None:
    """An entry may have a currency of its own; one without a price for what was done is passed over."""
    price = book.price_of(a_call("embed-3", operation=Operation.EMBEDDING, embedding_tokens=1_000_000))

    assert price is not None
    assert (Decimal("0.1"), "CHF") == (price.amount, price.currency)
    assert book.price_of(a_million("embed-3")) is None


def test_json_and_mappings_are_the_same_table(tmp_path: Path) -> None:
    """A float of JSON is the decimal number that stands there."""
    table = {"price": [{"model": "m", "prompt": 0.1, "completion": 0.2, "from": "2026-01-01"}]}
    (tmp_path / "prices.json").write_text(json.dumps(table), encoding="utf-8")

    for own in (table, tmp_path / "prices.json", str(tmp_path / "prices.json")):
        assert Decimal("0.3") == PriceBook(own).price_of(a_million("m")).amount  # type: ignore[union-attr]


def test_the_environment_names_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is given in code."""
    (tmp_path / "prices.toml").write_text(TOML, encoding="utf-8")
    monkeypatch.setenv(PRICES_VARIABLE, str(tmp_path / "prices.toml"))

    assert "EUR" == PriceBook().price_of(a_million("my-model")).currency  # type: ignore[union-attr]
    assert PriceBook({"price": []}).price_of(a_million("my-model")) is None


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"model": "m", "promt": 3}, r"price 2 \('m'\): there is no 'promt'; there are model, .*prompt"),
        ({"model": "m", "prompt": -3, "completion": 4}, "prompt is the price of a million tokens, 0 or more.*not -3"),
        ({"model": "m", "prompt": "cheap"}, "not 'cheap'"),
        ({"model": "m", "prompt": float("nan")}, "not nan"),
        ({"model": "m", "prompt": True}, "not True"),
        ({"model": "m", "request": [3]}, r"price of a request.*not \[3\]"),
        ({"prompt": 3}, "needs a model"),
        ({"model": "m", "cache_read": 3}, "a price for prompt, embedding, request: add it"),
        ({"model": "m", "completion": 3, "request": 1}, "prompt is missing: add it"),
        ({"model": 3, "prompt": 3}, "model is a name or a glob.*not 3"),
        ({"model": "m", "prompt": 3, "provider": ""}, "provider is a name or a glob"),
        ({"model": "m", "prompt": 3, "from": "soon"}, "from is a day, such as 2026-07-01, not 'soon'"),
        ({"model": "m", "prompt": 3, "until": datetime(2026, 1, 1, tzinfo=UTC)}, "until is a day"),
        ({"model": "m", "prompt": 3, "from": date(2026, 2, 1), "until": date(2026, 2, 1)}, "is not after from"),
        ({"model": "m", "prompt": 3, "currency": "euro"}, "three letters.*not 'euro'"),
        ("m", "an entry is a table"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_the_next_step(entry: Any, message: str) -> None:
    """Our own error names the entry, the value and what was expected."""
    with pytest.raises(InvalidPrices, match=message) as caught:
        PriceBook({"price": [{"model": "right", "prompt": 1}, entry]})

    assert isinstance(caught.value, TokenCallbacksError)
    assert str(caught.value).startswith("prices, price 2")


@pytest.mark.parametrize("table", [{}, {"price": {}}, {"prices": []}, {"price": [], "curency": "EUR"}])
def test_what_is_no_table_is_told(table: dict[str, Any]) -> None:
    """With what a table has."""
    with pytest.raises(InvalidPrices, match="prices: "):
        PriceBook(table)


def test_what_is_no_path_is_told() -> None:
    """Nor a mapping."""
    with pytest.raises(InvalidPrices, match="path of a table"):
        PriceBook(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("prices.toml", "price = [", "is no TOML"),
        ("prices.json", "{", "is no JSON"),
        ("prices.txt", None, "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_is_told(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    """With its name."""
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")

    with pytest.raises(InvalidPrices, match=message) as caught:
        PriceBook(tmp_path / name)
    assert name in str(caught.value)
