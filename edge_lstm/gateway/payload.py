"""What clients send: JSON to rows, or every reason why not.

Reads bytes; writes Rows.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from edge_lstm.detection.fixed import INT32_MAX
from edge_lstm.errors import DataError, raise_all

MAX_BYTES = 1 << 16
MAX_ROWS = 1000
LATEST_S = 253402300800.0  # the year 10000
KEYS = ("time", "seq", "values", "raw")
STREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Row:
    """One row of a stream.

    kind: what it is numbered by, "time" (seconds since 1970), "seq" or "arrival" (seconds, by the gateway).
    order: that number.  stamp: as people read it.
    cells: one a channel, NaN where missing; raw: whether they are the sensors' integers.
    """

    kind: str
    order: float
    stamp: str
    cells: tuple[float, ...]
    raw: bool


def check_name(stream: str) -> None:
    """DataError for a name that no stream can have."""
    if not STREAM_NAME.fullmatch(stream):
        raise DataError(
            f"stream '{stream[:80]}': a name has 1 to 64 letters, digits, dots, dashes or underscores and "
            "begins with a letter or a digit"
        )


def read_rows(payload: bytes, names: Sequence[str], now: float) -> list[Row]:
    """The rows of one payload: a JSON object, or a list of them.

    names: of the channels.  now: seconds since 1970, of rows without ``time`` and ``seq``.
    Raises DataError with every problem; then none of the rows counts.
    """
    if len(payload) > MAX_BYTES:
        raise DataError(
            f"payload has {len(payload):,} bytes, expected {MAX_BYTES:,} at most; send fewer rows"
        )
    try:
        document = json.loads(payload, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"payload is no JSON: {error}; expected {_example(names)}") from error
    given = document if isinstance(document, list) else [document]
    if not 1 <= len(given) <= MAX_ROWS:
        raise DataError(f"payload has {len(given):,} rows, expected 1 to {MAX_ROWS:,}")
    problems: list[str] = []
    rows = []
    for index, item in enumerate(given):
        found: list[str] = []
        rows.append(_row(item, names, now, found))
        where = f"row {index}: " if len(given) > 1 else ""
        problems += [where + problem for problem in found[:8]]
    raise_all(DataError, "payload", problems[:16])
    return rows


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON, write null for a missing value")


def _example(names: Sequence[str]) -> str:
    return f'{{"time": 1767592800.0, "values": {{"{names[0]}": 1.5}}}}'


def _row(item: Any, names: Sequence[str], now: float, problems: list[str]) -> Row:
    if not isinstance(item, dict):
        problems.append(f"is {_kind(item)}, expected an object as in {_example(names)}")
        item = {"values": {}}
    problems += [f"'{key}' is unknown; expected {', '.join(KEYS)}" for key in item if key not in KEYS]
    kind, order, stamp = _order(item, now, problems)
    both = [key for key in ("values", "raw") if key in item]
    if len(both) != 1:
        problems.append(
            f"has {' and '.join(both) or 'neither values nor raw'}, expected one of values and raw"
        )
        return Row(kind, order, stamp, (), False)
    raw = both[0] == "raw"
    return Row(kind, order, stamp, _cells(item[both[0]], names, raw, problems), raw)


def _order(item: dict[str, Any], now: float, problems: list[str]) -> tuple[str, float, str]:
    """What numbers a row, its number, its stamp."""
    time, seq = item.get("time"), item.get("seq")
    if time is not None and seq is not None:
        problems.append("has time and seq, expected one of them")
    if seq is not None:
        if not isinstance(seq, int) or isinstance(seq, bool) or not 0 <= seq < 2**53:
            problems.append(f"seq is {_kind(seq)}, expected a whole number of 0 or more")
            seq = 0
        return "seq", float(seq), str(seq)
    if time is None:
        return "arrival", now, _iso(now)
    seconds = _seconds(time) if isinstance(time, str) else time
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 <= seconds < LATEST_S:
        problems.append(f"time is {_kind(time)}, expected seconds since 1970 or 2026-01-31T12:00:00Z")
        return "time", 0.0, ""
    return "time", float(seconds), time if isinstance(time, str) else _iso(float(seconds))


def _seconds(text: str) -> float | None:
    """Seconds since 1970 of ISO 8601, without a zone UTC; None of other text."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _cells(given: Any, names: Sequence[str], raw: bool, problems: list[str]) -> tuple[float, ...]:
    key = "raw" if raw else "values"
    if isinstance(given, dict):
        problems += [
            f"{key}: '{name[:40]}' is no channel; expected {', '.join(names)}"
            for name in given
            if name not in names
        ]
        given = [given.get(name) for name in names]
    elif not isinstance(given, list) or len(given) != len(names):
        what = f"a list of {len(given)}" if isinstance(given, list) else _kind(given)
        problems.append(f"{key} is {what}, expected one number or null a channel: {', '.join(names)}")
        return ()
    return tuple(
        _cell(value, f"{key}: '{name}'", raw, problems) for name, value in zip(names, given, strict=True)
    )


def _cell(value: Any, where: str, raw: bool, problems: list[str]) -> float:
    if value is None:
        return math.nan
    number = isinstance(value, int if raw else (int, float)) and not isinstance(value, bool)
    if number and abs(value) <= (INT32_MAX if raw else 1e300):
        return float(value)
    problems.append(
        f"{where} is {_kind(value)}, expected {'an integer of 32 bits' if raw else 'a number'} or null"
    )
    return math.nan


def _kind(value: Any) -> str:
    """A value of JSON as a message names it."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return json.dumps(value)[:40]


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")
