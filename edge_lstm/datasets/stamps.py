"""The time column of a CSV: text stamps, epochs, seconds or row numbers become one rising time axis."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray

IndexArray = npt.NDArray[np.int64]

SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0}
TIME_NAME = re.compile(
    r"(t|ts|time|date|datetime|date[ _]time|time[ _]?stamp|epoch|clock|zeit|index_time)"
    r"([ _](?P<unit>s|sec|seconds|ms|us|ns|min|h|utc|local))?"
)
COUNTER_NAME = re.compile(r"(unnamed: 0|index|idx|row|row[ _]?id|sample[ _]?id|)")
CLOCK_TIME = re.compile(r"\d{1,3}:\d\d(:\d\d(\.\d+)?)?")
EPOCHS = ((5e8, 1.0), (5e11, 1e-3), (5e14, 1e-6), (5e17, 1e-9))  # 1985 to 2128 in s, ms, us, ns
YEAR_FIRST = re.compile(r"\d{4}")
HOUR_S = 3600.0


@dataclass(frozen=True, eq=False)
class Clock:
    """A time axis: time (rows,) from 0, never decreasing, in ``unit`` ("s" or "rows"); ISO start or ""."""

    time: FloatArray
    unit: str
    start: str = ""
    notes: tuple[str, ...] = ()


def row_numbers(rows: int) -> Clock:
    """The time axis of a file without a time column."""
    return Clock(np.arange(rows, dtype=np.float64), "rows")


def looks_like_stamp(pandas: Any, cell: str) -> bool:
    """Whether a text cell is a stamp: at least four digits, a separator, and pandas reads it."""
    cell = cell.strip()
    if CLOCK_TIME.fullmatch(cell):
        return True
    if sum(character.isdigit() for character in cell) < 4 or not re.search(r"[-/:.T ]", cell):
        return False
    return not _parse(pandas, pandas.Series([cell], dtype=object)).isna().iloc[0]


def read_clock(
    pandas: Any, column: Any, name: str, unit: str, lines: IndexArray
) -> tuple[Clock | None, list[str]]:
    """The time axis of a column (a pandas Series), or None and what is wrong with it.

    name, unit: of the column, without brackets.  lines: line of the file for each row.
    """
    if column.isna().all():
        return None, [f"time column '{name}' holds no stamp; pass an empty time column for none"]
    missing = np.flatnonzero(column.isna().to_numpy())
    if len(missing):
        return None, [
            f"time column '{name}' has no stamp in line {lines[missing[0]]} ({len(missing)} of {len(column)} "
            "rows); fill them in, or pass an empty time column for none"
        ]
    if pandas.api.types.is_bool_dtype(column):
        return None, [f"time column '{name}' holds true and false, expected stamps; choose another column"]
    if pandas.api.types.is_numeric_dtype(column):
        return _numeric(column.to_numpy(dtype=np.float64), name, unit, lines)
    return _text(pandas, column.astype(str).str.strip(), name, lines)


def _numeric(number: FloatArray, name: str, unit: str, lines: IndexArray) -> tuple[Clock | None, list[str]]:
    """Epochs by their size, row numbers by their step of 1, else seconds or the unit in the name."""
    if np.isinf(number).any():
        line = lines[np.flatnonzero(np.isinf(number))[0]]
        return None, [f"time column '{name}' holds an infinite number in line {line}, expected a stamp"]
    match = TIME_NAME.fullmatch(name.lower())
    unit = (unit or (match and match["unit"]) or "").lower()
    if unit and unit not in SECONDS and unit not in ("utc", "local"):
        return None, [
            f"time column '{name}' is in '{unit}', expected one of {', '.join(SECONDS)}; "
            "rename it, or pass an empty time column for none"
        ]
    for lowest, seconds in EPOCHS:
        if number.min() >= lowest and number.max() < 10 * lowest:
            moment = datetime.fromtimestamp(0, timezone.utc) + timedelta(seconds=float(number[0] * seconds))
            return _rising((number - number[0]) * seconds, name, lines, number, moment.isoformat())
    if number.max() >= 5e9 and unit not in SECONDS:
        return None, [
            f"time column '{name}' holds {number.max():.15g} in line {lines[number.argmax()]}, neither an "
            "epoch of 1985 to 2128 nor seconds; write ISO stamps, or the unit in its name, as in 'time [us]'"
        ]
    steps = np.diff(number)
    whole = bool((number == np.rint(number)).all())
    counts = whole and len(steps) > 0 and float(np.median(steps)) == 1.0 and number[0] in (0, 1)
    if unit not in SECONDS and (counts or (whole and COUNTER_NAME.fullmatch(name.lower()))):
        note = f"time column '{name}' counts rows: the time between rows is not known"
        return _rising(number - number[0], name, lines, number, "", "rows", (note,))
    return _rising((number - number[0]) * SECONDS.get(unit, 1.0), name, lines, number)


def _text(pandas: Any, text: Any, name: str, lines: IndexArray) -> tuple[Clock | None, list[str]]:
    """Stamps in any one format that pandas reads, or a time of day or elapsed time such as 1:02:03."""
    if CLOCK_TIME.fullmatch(text.iloc[0]):
        full = text.where(text.str.count(":") != 1, text + ":00")
        parsed = pandas.to_timedelta(full, errors="coerce")
    else:
        parsed = _parse(pandas, text)
    bad = np.flatnonzero(parsed.isna().to_numpy())
    if len(bad):
        return None, [
            f"time column '{name}' line {lines[bad[0]]} holds '{text.iloc[bad[0]]}', expected a stamp in "
            f"the format of the others ({len(bad)} of {len(text)} rows); correct it, or pass an empty time "
            "column for none"
        ]
    time = (parsed - parsed.iloc[0]).dt.total_seconds().to_numpy()
    if CLOCK_TIME.fullmatch(text.iloc[0]):
        return _rising(time, name, lines, text.to_numpy())
    first = parsed.iloc[0].to_pydatetime(warn=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a format that pandas infers slowly is still read
        aware = pandas.to_datetime(text.iloc[0]).tzinfo is not None
    start = first.isoformat() if aware else first.replace(tzinfo=None).isoformat()
    notes: tuple[str, ...] = ()
    if not aware:
        time, notes = _undo_clock_change(time, name, lines)
    return _rising(time, name, lines, text.to_numpy(), start, "s", notes)


def _parse(pandas: Any, text: Any) -> Any:
    """UTC moments, NaT where unreadable: the one reading that fits most rows, then goes back least.

    Month first is tried before day first, so 01/02 is January 2nd unless a later row contradicts.
    """
    dated = text.str.count(r"\d") >= 4  # pandas also reads "today" and "Monday"
    best, best_score = None, (0, 0)
    for options in ({}, {"dayfirst": True}, {"format": "ISO8601"}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says that a format was inferred or that dayfirst did not matter
            parsed = pandas.to_datetime(text, utc=True, errors="coerce", **options).where(dated)
            parsed = parsed.where(parsed.dt.year.between(1, 9999))
        back = int((parsed.diff().dt.total_seconds() < 0).sum())
        score = (int(parsed.isna().sum()), back)
        if best is None or score < best_score:
            best, best_score = parsed, score
        if best_score == (0, 0) or (best_score[0] == 0 and YEAR_FIRST.match(text.iloc[0])):
            break
    return best


def _undo_clock_change(time: FloatArray, name: str, lines: IndexArray) -> tuple[FloatArray, tuple[str, ...]]:
    """Move on what follows a local clock that was set back by one hour (end of daylight saving)."""
    steps = np.diff(time)
    if not (steps < 0).any():
        return time, ()
    period = float(np.median(steps))
    back = np.flatnonzero((steps < 0) & (np.abs(steps + HOUR_S - period) <= 0.5 * period))
    moved = time.copy()
    notes = []
    for place in back:
        moved[place + 1 :] += HOUR_S
        notes.append(
            f"time column '{name}' goes back by one hour in line {lines[place + 1]} (end of daylight "
            "saving): later stamps were moved on by one hour"
        )
    return moved, tuple(notes)


def _rising(
    time: FloatArray,
    name: str,
    lines: IndexArray,
    shown: npt.NDArray[Any],
    start: str = "",
    unit: str = "s",
    notes: tuple[str, ...] = (),
) -> tuple[Clock | None, list[str]]:
    """The clock where ``time`` never decreases, else the first place where it does; shown: its cells."""
    back = np.flatnonzero(np.diff(time) < 0)
    if len(back) == 0:
        return Clock(time, unit, start, notes), []
    row = int(back[0]) + 1
    return None, [
        f"time column '{name}' is not sorted: line {lines[row]} holds {shown[row]} after {shown[row - 1]} "
        f"({len(back)} rows go back); sort the file by time, choose another time column, or pass an empty "
        "one for none"
    ]
