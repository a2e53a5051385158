"""Days, moments and zones as users write them, the nights on which clocks change included."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import click
import pytest

from token_callbacks.cli import moments
from token_callbacks.cli.moments import since_of, until_of, zone_of
from token_callbacks.cli.options import span_of

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 21, 15, 30, tzinfo=UTC)
CONTEXT = click.Context(click.Command("report"))
PARAMETER = click.Option(["--tz"])


def _utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("2026-11-01", "2026-10-31T23:00", "2026-11-01T23:00"),
        ("today", "2026-11-20T23:00", "2026-11-21T23:00"),
        ("Yesterday", "2026-11-19T23:00", "2026-11-20T23:00"),
        ("2026-11-01T09:30", "2026-11-01T08:30", "2026-11-01T08:30"),
        ("2026-11-01T09:30Z", "2026-11-01T09:30", "2026-11-01T09:30"),
        ("2026-11-01 09:30:00-05:00", "2026-11-01T14:30", "2026-11-01T14:30"),
        ("7d", "2026-11-14T15:30", "2026-11-14T15:30"),
        ("24h", "2026-11-20T15:30", "2026-11-20T15:30"),
        ("2w", "2026-11-07T15:30", "2026-11-07T15:30"),
        ("30m", "2026-11-21T15:00", "2026-11-21T15:00"),
        ("now", "2026-11-21T15:30", "2026-11-21T15:30"),
    ],
)
def test_a_day_is_meant_as_a_whole_and_a_moment_as_one(text: str, since: str, until: str) -> None:
    """Both bounds in Berlin, an hour ahead of UTC in November."""
    assert (_utc(since), _utc(until)) == (since_of(text, BERLIN, NOW), until_of(text, BERLIN, NOW))


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29", 23),
        ("Europe/Berlin", "2026-10-25", 25),
        ("Africa/Cairo", "2026-04-24", 23),  # the clock goes from 23:59:59 to 01:00: there is no midnight
        ("America/Sao_Paulo", "2018-11-04", 23),
        ("America/Havana", "2026-11-01", 25),  # at 01:00 the clock goes back to 00:00: there are two midnights
        ("Australia/Lord_Howe", "2026-04-05", 24.5),
        ("UTC", "2026-10-25", 24),
    ],
)
def test_days_on_which_clocks_change_are_as_long_as_they_are(zone: str, day: str, hours: float) -> None:
    """And the next day begins where they end."""
    told = ZoneInfo(zone)
    begins, ends = since_of(day, told, NOW), until_of(day, told, NOW)

    assert timedelta(hours=hours) == ends - begins
    assert day == begins.astimezone(told).date().isoformat()
    assert day == (ends - timedelta(microseconds=1)).astimezone(told).date().isoformat()


@pytest.mark.parametrize(
    "text", ["", "2026-13-01", "2026-02-30", "soon", "-7d", "7 parsecs", "999999w", "\x1b[31m", "9" * 10_000]
)
def test_what_is_no_moment_is_a_usage_error_that_shows_how_to_write_one(text: str) -> None:
    """No traceback, and no ten kilobytes in the message."""
    with pytest.raises(click.UsageError, match="2026-11-01") as raised:
        span_of(text, None, BERLIN)

    assert len(raised.value.message) < 400
    assert raised.value.message.isprintable()


def test_the_last_day_there_is_is_a_usage_error_and_no_traceback() -> None:
    """A day after it does not exist."""
    with pytest.raises(click.UsageError):
        span_of(None, "9999-12-31", BERLIN)


def test_a_span_that_holds_nothing_is_a_usage_error() -> None:
    """The two were swapped, as it seems."""
    with pytest.raises(click.UsageError, match=re.escape("--since 2026-11-03 is not before --until 2026-11-02")):
        span_of("2026-11-03", "2026-11-02", BERLIN)


def test_one_day_is_a_span() -> None:
    """``--since today --until today`` is today."""
    span = span_of("2026-11-03", "2026-11-03", BERLIN)

    assert (_utc("2026-11-02T23:00"), _utc("2026-11-03T23:00")) == span


def test_a_zone_that_does_not_exist_is_answered_with_those_alike() -> None:
    """Nobody knows their names by heart."""
    with pytest.raises(click.BadParameter, match="names look like Europe/Berlin"):
        zone_of(CONTEXT, PARAMETER, "Europe/Berln")


@pytest.mark.parametrize("name", ["/etc/passwd", "../../etc/passwd", "", "Europe", "a\0b", "x" * 10_000])
def test_a_zone_is_never_a_path(name: str) -> None:
    """Wrong names are usage errors, whatever they are."""
    with pytest.raises(click.BadParameter):
        zone_of(CONTEXT, PARAMETER, name)


@pytest.mark.parametrize(("told", "zone"), [("Asia/Kathmandu", "Asia/Kathmandu"), ("Nowhere/Atall", "UTC")])
def test_without_a_zone_it_is_that_of_the_machine(told: str, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``TZ`` says which; UTC where that is none."""
    monkeypatch.setenv("TZ", told)

    assert zone == moments.zone_of(CONTEXT, PARAMETER, None).key
