"""Moments and time zones as users write them: ``2026-11-01``, ``7d``, ``yesterday``, ``Europe/Berlin``."""

from __future__ import annotations

import contextlib
import difflib
import re
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import click

_AGO = re.compile(r"(\d{1,6})\s*([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def zone_of(context: click.Context, parameter: click.Parameter, name: str | None) -> ZoneInfo:
    """Read the name of a time zone; ``None`` is that of the machine."""
    if name is None:
        return _local()
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        known = available_timezones()
        alike = difflib.get_close_matches(name[:99], known, n=3) or ["UTC", "Europe/Berlin"]
        hint = "" if known else "; no time zones are installed here: pip install tzdata"
        text = f"{name[:99]!r} is no time zone; names look like {', '.join(alike)}{hint}"
        raise click.BadParameter(text, context, parameter) from error


def since_of(text: str, zone: ZoneInfo, now: datetime) -> datetime:
    """Read when a span begins; a day is meant from its first moment on. Raises ``ValueError``."""
    found = _moment(text, zone, now)
    return _midnight(found, zone) if not isinstance(found, datetime) else found


def until_of(text: str, zone: ZoneInfo, now: datetime) -> datetime:
    """Read when a span ends: the first moment after it. A day is meant as a whole. Raises ``ValueError``."""
    found = _moment(text, zone, now)
    return _midnight(found + timedelta(days=1), zone) if not isinstance(found, datetime) else found


def _moment(text: str, zone: ZoneInfo, now: datetime) -> date | datetime:
    """Read a day, or a moment of one in UTC."""
    word = text.strip().lower()
    today = now.astimezone(zone).date()
    if word in {"today", "yesterday"}:
        return today if word == "today" else today - timedelta(days=1)
    if word == "now":
        return now
    try:
        if (ago := _AGO.fullmatch(word)) is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        if re.fullmatch(r"\d{4}-\d\d-\d\d", word):
            return date.fromisoformat(word)
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=moment.tzinfo or zone).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{text[:99]!r} is no moment; write a day (2026-11-01), a time (2026-11-01T09:30), a span back from now"
            " (7d, 24h, 30m), today or yesterday"
        ) from error


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    # Where the clock skips midnight, as it did in Cairo, this is the moment of the skip.
    return datetime.combine(day, time(), tzinfo=zone).astimezone(UTC)


def _local() -> ZoneInfo:
    import tzlocal

    with contextlib.suppress(ZoneInfoNotFoundError, ValueError, OSError):  # where TZ names nothing that is known here
        return ZoneInfo(str(tzlocal.reload_localzone()))  # by its name: DuckDB and the JSON need one
    click.echo("the time zone of this machine is not known, days are those of UTC: --tz ZONE names it", err=True)
    return ZoneInfo("UTC")
