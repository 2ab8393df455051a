"""A sensor CSV (plain or gzip) as a Dataset: finds its time, label and channel columns, refuses the rest.

Problems of the file's form are reported together, then those of its cells, then those of its policies.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets import policies, stamps
from edge_lstm.datasets.dataset import MIN_ROWS, Dataset
from edge_lstm.datasets.policies import Policy, Report, Rows
from edge_lstm.datasets.table import Column, Table, listed, read_table
from edge_lstm.errors import DataError, raise_all
from edge_lstm.optional import require

LABEL_NAMES = (
    "label", "labels", "is_anomaly", "isanomaly", "anomaly", "anomalous", "outlier", "is_outlier", "fault",
    "is_fault", "faulty", "attack", "event", "ground_truth", "class", "target", "changepoint",
)  # fmt: skip
DECIMAL_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d*),\d+([eE][+-]?\d+)?")
DEFAULT_POLICY = Policy()


@dataclass(frozen=True)
class Roles:
    """What each used column is; notes: columns that were left out."""

    time: Column | None
    label: Column | None
    channels: tuple[Column, ...]
    notes: tuple[str, ...]


def read_csv(
    path: Path | str,
    *,
    time: str | None = None,
    channels: Sequence[str] | None = None,
    label: str | None = None,
    policy: Policy = DEFAULT_POLICY,
) -> Dataset:
    """Read a CSV with a header line; the separator is a comma, a semicolon or a tab.

    time, label: names of those columns, "" for none, None to find them by name (the time column also by
    its cells).  channels: names in the order of the network, None for every other column; a name is the
    header with or without its unit, as in ``pressure [bar]``.  A label is 0 or 1.
    Raises DataError with every problem found and the line of the file where each begins.
    """
    where = str(path)
    pandas = require("pandas", "data")
    table = read_table(pandas, Path(path))
    roles = _assign(pandas, table, time, channels, label, where)
    problems: list[str] = []
    clock = _clock(pandas, table, roles.time, problems)
    labels = _labels(table, roles.label, problems)
    values = _values(pandas, table, roles.channels, problems)
    raise_all(DataError, where, problems)
    rows = Rows(values, labels, clock.time, np.zeros(len(values), np.bool_), table.lines, clock.unit)
    return _dataset(rows, roles, clock, policy, where)


def _assign(
    pandas: Any,
    table: Table,
    time: str | None,
    channels: Sequence[str] | None,
    label: str | None,
    where: str,
) -> Roles:
    """Decide which columns are time, label and channels."""
    problems: list[str] = []
    asked = None if channels is None else [_find(table, name, "channel", problems) for name in channels]
    time_column = _find(table, time, "time", problems) if time else None
    label_column = _find(table, label, "label", problems) if label else None
    raise_all(DataError, where, problems)
    chosen = [column for column in asked or [] if column]
    named = [column for column in (*chosen, time_column, label_column) if column]
    twice = sorted({column.header for column in named if named.count(column) > 1})
    raise_all(DataError, where, [f"column '{name}' is asked for twice; name it once" for name in twice])
    free = [column for column in table.columns if column not in named]
    if time is None:
        time_column = _guess_time(pandas, table, free)
    if label is None:
        label_column = _guess_label([column for column in free if column != time_column])
    left = [column for column in free if column not in (time_column, label_column)]
    out = [] if asked is not None else [column for column in left if _is_bookkeeping(pandas, table, column)]
    notes = tuple(
        f"column '{column.header}' {'looks like a label' if _is_label_name(column) else 'counts rows'}: "
        "left out of the channels"
        for column in out
    )
    roles = Roles(
        time_column, label_column,
        tuple(chosen) if asked is not None else tuple(column for column in left if column not in out), notes,
    )  # fmt: skip
    if not roles.channels:
        headers = listed([column.header for column in table.columns])
        raise DataError(f"{where}: no channel is left among the columns {headers}; name them in channels")
    return roles


def _find(table: Table, name: str, role: str, problems: list[str]) -> Column | None:
    """The column with that header or name."""
    for column in table.columns:
        if name in (column.header, column.name):
            return column
    headers = listed([column.header for column in table.columns])
    problems.append(f"there is no {role} column '{name}'; the columns are: {headers}")
    return None


def _guess_time(pandas: Any, table: Table, free: list[Column]) -> Column | None:
    """By name, else the first text column that begins with a stamp, else pandas' row numbers."""
    for column in free:
        if stamps.TIME_NAME.fullmatch(column.name.lower()):
            return column
    for column in free:
        cells = table.frame[column.index].dropna()
        if len(cells) and isinstance(cells.iloc[0], str) and stamps.looks_like_stamp(pandas, cells.iloc[0]):
            return column
    for column in free:
        if stamps.COUNTER_NAME.fullmatch(column.name.lower()) and _counts(pandas, table, column):
            return column
    return None


def _guess_label(free: list[Column]) -> Column | None:
    """The column whose name comes first in LABEL_NAMES."""
    found = [column for column in free if _is_label_name(column)]
    return min(found, key=lambda column: LABEL_NAMES.index(column.name.lower()), default=None)


def _is_label_name(column: Column) -> bool:
    return column.name.lower() in LABEL_NAMES


def _is_bookkeeping(pandas: Any, table: Table, column: Column) -> bool:
    """Whether a column would leak: a second label of 0 and 1, or row numbers beside the stamps."""
    if stamps.COUNTER_NAME.fullmatch(column.name.lower()):
        return _counts(pandas, table, column)
    return _is_label_name(column) and bool(table.frame[column.index].isin([0, 1]).all())


def _counts(pandas: Any, table: Table, column: Column) -> bool:
    cells = table.frame[column.index]
    return bool(pandas.api.types.is_integer_dtype(cells) and (np.diff(cells.to_numpy()) == 1).all())


def _clock(pandas: Any, table: Table, column: Column | None, problems: list[str]) -> stamps.Clock:
    """The time axis; row numbers without a time column, or with one that has problems."""
    if column is None:
        return stamps.row_numbers(len(table.lines))
    cells = table.frame[column.index]
    clock, found = stamps.read_clock(pandas, cells, column.name, column.unit, table.lines)
    problems += found
    return clock or stamps.row_numbers(len(table.lines))


def _labels(table: Table, column: Column | None, problems: list[str]) -> npt.NDArray[np.uint8] | None:
    if column is None:
        return None
    cells = table.frame[column.index]
    label: npt.NDArray[np.uint8] = cells.isin([1]).to_numpy(dtype=np.uint8)
    bad = np.flatnonzero(~cells.isin([0, 1]).to_numpy(dtype=np.bool_))
    if len(bad):
        cell = cells.iloc[bad[0]]
        shown = "nothing" if cell != cell else f"'{cell}'"
        problems.append(
            f"label column '{column.header}' line {table.lines[bad[0]]} holds {shown}, expected 0 or 1 "
            f"({len(bad)} of {len(cells)} rows); correct it, or choose another label column (empty for none)"
        )
    return label


def _values(pandas: Any, table: Table, channels: Sequence[Column], problems: list[str]) -> FloatArray:
    """Float64 (rows, channels), NaN for empty cells."""
    values = np.full((len(table.lines), len(channels)), np.nan)
    for place, column in enumerate(channels):
        cells = table.frame[column.index]
        if pandas.api.types.is_numeric_dtype(cells) or pandas.api.types.is_bool_dtype(cells):
            numbers = cells.to_numpy(dtype=np.float64)
        else:
            numbers = pandas.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        values[:, place] = numbers
        text = np.flatnonzero(np.isnan(numbers) & cells.notna().to_numpy())
        infinite = np.flatnonzero(np.isinf(numbers))
        if len(text):
            problems.append(_text_problem(column, table.lines[text[0]], str(cells.iloc[text[0]]), len(text)))
        elif np.isnan(numbers).all():
            problems.append(
                f"channel '{column.header}' holds no value at all; remove it, or name the channels"
            )
        if len(infinite):
            problems.append(
                f"channel '{column.header}' line {table.lines[infinite[0]]} holds an infinite value "
                f"({len(infinite)} rows); leave such cells empty"
            )
    return values


def _text_problem(column: Column, line: int, cell: str, count: int) -> str:
    shown = cell if len(cell) <= 40 else cell[:37] + "..."
    if DECIMAL_COMMA.fullmatch(cell.strip()):
        return f"channel '{column.header}' line {line} holds '{shown}', a decimal comma; write 1.5, not 1,5"
    return (
        f"channel '{column.header}' line {line} holds the text '{shown}', expected a number or nothing "
        f"({count} rows); correct it, or name the channels to use"
    )


def _dataset(rows: Rows, roles: Roles, clock: stamps.Clock, policy: Policy, where: str) -> Dataset:
    """Apply the policies and build the Dataset."""
    report = Report()
    names = tuple(column.name for column in roles.channels)
    rows = policies.apply_time(rows, policy, report)
    kept = policies.find_constant(rows, names, policy, report)
    channels = tuple(column for column, keep in zip(roles.channels, kept, strict=True) if keep)
    names = tuple(column.name for column in channels)
    rows = policies.apply_missing(replace(rows, values=rows.values[:, kept]), names, policy, report)
    if len(rows.time) < MIN_ROWS:
        report.problems.append(
            f"{len(rows.time)} rows remain, expected at least {MIN_ROWS}; record more rows"
        )
    raise_all(DataError, where, report.problems)
    return Dataset(
        names=names,
        units=tuple(column.unit for column in channels),
        values=rows.values,
        present=~np.isnan(rows.values),
        gap=rows.gap,
        label=rows.label,
        time_s=rows.time,
        start=clock.start,
        period_s=float(np.median(np.diff(rows.time))) if clock.unit == "s" else 0.0,
        notes=(*clock.notes, *roles.notes, *report.notes),
    )
