"""What is done about irregular stamps, gaps, missing values, duplicate stamps and constant channels.

Reads and writes the rows of one file; every policy that changed or marked something adds one line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray
from edge_lstm.datasets.table import listed
from edge_lstm.errors import ConfigError, raise_all

BoolArray = npt.NDArray[np.bool_]
IndexArray = npt.NDArray[np.int64]

JITTER = 0.1  # of the median step: a step further off is irregular

CHOICES = {
    "irregular": ("mask", "resample", "refuse"),
    "gaps": ("mask", "resample", "hold", "refuse"),
    "missing": ("mask", "hold", "refuse"),
    "duplicates": ("last", "mean", "refuse"),
    "constant": ("drop", "keep", "refuse"),
}


@dataclass(frozen=True)
class Policy:
    """The answers of ``read_csv`` to what recordings suffer from; ``refuse`` makes each a DataError.

    irregular: stamps off the median step: ``mask`` keeps the rows as they come; ``resample`` puts them on
        a grid of the median step, with the mean of each bin; an empty bin repeats the one before it once.
    gaps: ``mask`` lets no window and no state cross them; ``resample`` fills them with missing rows, at
        most as many as the file has; ``hold`` ignores them.
    missing: empty cells: ``mask`` leaves them out, channel by channel; ``hold`` repeats the channel's last
        value.
    duplicates: equal stamps: keep the ``last`` row or the ``mean``; anomalous when one of them is.
    constant: channels with one value in the whole file: ``drop`` or ``keep``.
    gap_factor: a step above this many median steps is a gap.
    hold_rows: most rows in a row that ``missing`` holds; the others are masked.
    """

    irregular: str = "mask"
    gaps: str = "mask"
    missing: str = "mask"
    duplicates: str = "last"
    constant: str = "drop"
    gap_factor: float = 5.0
    hold_rows: int = 5

    def __post_init__(self) -> None:
        problems = [
            f"{name} is '{getattr(self, name)}', expected one of {', '.join(choices)}"
            for name, choices in CHOICES.items()
            if getattr(self, name) not in choices
        ]
        factor: Any = self.gap_factor
        if not (isinstance(factor, (int, float)) and 1 < factor < float("inf")):
            problems.append(f"gap_factor is {factor}, expected a number above 1")
        if not (isinstance(self.hold_rows, int) and self.hold_rows >= 1):
            problems.append(f"hold_rows is {self.hold_rows}, expected a whole number of 1 or more")
        raise_all(ConfigError, "policy", problems)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a file on their way to a Dataset.

    values: (rows, channels), NaN where missing.  label: uint8 (rows,) or None.  time: (rows,) float,
    never decreasing, in ``unit`` ("s", or "rows" where no time is known).  gap: bool (rows,).
    line: line of the file, 0 for a row that was filled in.
    """

    values: FloatArray
    label: npt.NDArray[np.uint8] | None
    time: FloatArray
    gap: BoolArray
    line: IndexArray
    unit: str

    def take(self, index: npt.NDArray[Any]) -> Rows:
        """The rows at ``index`` (numbers or a mask)."""
        label = None if self.label is None else self.label[index]
        return Rows(self.values[index], label, self.time[index], self.gap[index], self.line[index], self.unit)


class Report:
    """Collects one line for each policy that was applied and each that refused."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.problems: list[str] = []

    def add(self, choice: str, found: str, done: str, remedy: str) -> None:
        """File ``found`` as a problem with its remedy where the policy refuses, else as a note."""
        if choice == "refuse":
            self.problems.append(f"{found}; {remedy}")
        else:
            self.notes.append(f"{found}: {done}")


def apply_time(rows: Rows, policy: Policy, report: Report) -> Rows:
    """Merge duplicate stamps, mark or fill gaps, and put irregular rows on a grid."""
    rows = merge_duplicates(rows, policy, report)
    steps = np.diff(rows.time)
    if len(steps) == 0:
        return rows
    period = float(np.median(steps))
    rows = replace(rows, gap=np.concatenate([[False], steps > policy.gap_factor * period * (1 + 1e-9)]))
    rows = even_out(rows, policy, period, report)
    return bridge_gaps(rows, policy, period, report)


def merge_duplicates(rows: Rows, policy: Policy, report: Report) -> Rows:
    """One row for each stamp: the last one or the mean of present values; label 1 if any is 1."""
    new = np.concatenate([[True], np.diff(rows.time) > 0])
    extra = len(new) - int(new.sum())
    if extra == 0:
        return rows
    if policy.duplicates == "last" and extra > len(new) / 2:
        report.problems.append(
            f"{extra} of {len(new)} rows repeat the stamp before them, so the stamps are coarser than the "
            "rows; pass an empty time column (none), or the policy duplicates 'mean'"
        )
    line = rows.line[np.flatnonzero(~new)[0]]
    found = f"duplicate stamps: {extra} rows repeat the stamp before them, the first in line {line}"
    done = {"last": "kept the last of each", "mean": "averaged"}.get(policy.duplicates, "")
    report.add(
        policy.duplicates, found, done, "remove them, or choose the policy duplicates 'last' or 'mean'"
    )
    return _merge(rows, np.cumsum(new) - 1, mean=policy.duplicates == "mean")


def _merge(rows: Rows, group: IndexArray, mean: bool) -> Rows:
    """One row for each group 0, 1 ...; group: (rows,), never decreasing."""
    last = np.flatnonzero(np.diff(group, append=group[-1] + 1))
    first = np.concatenate([[0], last[:-1] + 1])
    merged = rows.take(last)
    values = merged.values
    if mean:
        present = ~np.isnan(rows.values)
        count = np.add.reduceat(present.astype(np.int64), first, axis=0)
        total = np.add.reduceat(np.where(present, rows.values, 0.0), first, axis=0)
        averaged = total / np.maximum(count, 1)
        # one present value stays as it is: a sum could only round it
        values = np.where(count > 1, averaged, np.where(count == 1, total, np.nan))
    label = None if rows.label is None else np.maximum.reduceat(rows.label, first)
    return replace(
        merged, values=values, label=label, gap=np.logical_or.reduceat(rows.gap, first), line=rows.line[first]
    )


def even_out(rows: Rows, policy: Policy, period: float, report: Report) -> Rows:
    """Report steps that are neither a gap nor the median; ``resample`` puts each segment on a grid."""
    steps = np.diff(rows.time)
    inside = ~rows.gap[1:]
    off = inside & (np.abs(steps - period) > JITTER * period)
    if not off.any():
        return rows
    found = (
        f"irregular stamps: {off.sum()} of {len(steps)} steps are more than {JITTER:.0%} off the median of "
        f"{period:g} {rows.unit} ({steps[inside].min():g} to {steps[inside].max():g})"
    )
    even = rows
    if policy.irregular == "resample" and not _too_many(steps[inside], rows, period, found, report):
        even = _on_grid(rows, period)
    done = f"resampled to {len(even.time)} rows" if policy.irregular == "resample" else "kept as they come"
    report.add(policy.irregular, found, done, "choose the policy irregular 'mask' or 'resample'")
    return even


def _too_many(steps: FloatArray, rows: Rows, period: float, found: str, report: Report) -> bool:
    """Whether resampling ``steps`` fills in more rows than the file has, which is then a problem."""
    needed = float(np.maximum(np.rint(steps / period - 1), 0).sum())
    if needed <= len(rows.time):
        return False
    report.problems.append(
        f"{found}; resampling them fills in {needed:.0f} rows, expected at most as many as the file has "
        f"({len(rows.time)}); choose the policy 'mask'"
    )
    return True


def _on_grid(rows: Rows, period: float) -> Rows:
    """Means of bins of one period, counted from the first row of each segment; gaps stay gaps."""
    segment = np.cumsum(rows.gap)
    origin = rows.time[np.searchsorted(segment, segment)]
    number = np.rint((rows.time - origin) / period).astype(np.int64)
    same = np.concatenate([[False], (np.diff(number) == 0) & ~rows.gap[1:]])
    merged = _merge(rows, np.cumsum(~same) - 1, mean=True)
    merged = replace(merged, time=(origin + number * period)[~same])
    return _fill(merged, np.where(merged.gap, 0, np.diff(number[~same], prepend=0) - 1), period, hold=True)


def _fill(rows: Rows, before: IndexArray, period: float, hold: bool) -> Rows:
    """Insert ``before[t]`` missing rows before row t, one period apart; ``hold``: the first is row t - 1.

    A filled row is anomalous when the rows on both sides are.
    """
    before = np.concatenate([[0], before[1:]])
    count = int(before.sum())
    if count == 0:
        return rows
    place = np.arange(len(before)) + np.cumsum(before)  # of the old rows among all
    follower = np.repeat(np.arange(len(before)), before)
    order = np.arange(count) - np.repeat(np.cumsum(before) - before, before)  # 0, 1 ... within one hole
    source = np.empty(len(before) + count, dtype=np.int64)
    source[place] = np.arange(len(before))
    filled = np.ones(len(source), dtype=np.bool_)
    filled[place] = False
    source[filled] = follower - 1
    result = rows.take(source)
    time, values, line = result.time.copy(), result.values.copy(), np.where(filled, 0, result.line)
    time[filled] = rows.time[follower - 1] + (order + 1) * period
    values[np.flatnonzero(filled)[(order > 0) | (not hold)]] = np.nan
    label = result.label
    if rows.label is not None and label is not None:
        label = label.copy()
        label[filled] = np.minimum(rows.label[follower - 1], rows.label[follower])
    return replace(result, time=time, values=values, line=line, label=label, gap=result.gap & ~filled)


def bridge_gaps(rows: Rows, policy: Policy, period: float, report: Report) -> Rows:
    """Keep gaps marked, fill them with missing rows, or forget them."""
    places = np.flatnonzero(rows.gap)
    if len(places) == 0:
        return rows
    steps = np.diff(rows.time, prepend=rows.time[0])
    found = (
        f"gaps: {len(places)} steps above {policy.gap_factor:g} x {period:g} {rows.unit}, the longest "
        f"{steps[places].max():g} {rows.unit} before line {rows.line[places[steps[places].argmax()]]}"
    )
    if policy.gaps != "resample":
        done = "ignored, the state is held across them" if policy.gaps == "hold" else "no window crosses them"
        report.add(policy.gaps, found, done, "choose the policy gaps 'mask', 'resample' or 'hold'")
        return replace(rows, gap=rows.gap & (policy.gaps != "hold"))
    if _too_many(steps[places], rows, period, found, report):
        return rows
    before = np.where(rows.gap, np.rint(steps / period - 1), 0).astype(np.int64)
    report.add("resample", found, f"filled with {before.sum()} missing rows", "")
    filled = _fill(rows, before, period, hold=False)
    return replace(filled, gap=np.zeros_like(filled.gap))


def apply_missing(rows: Rows, names: tuple[str, ...], policy: Policy, report: Report) -> Rows:
    """Keep missing values as NaN, or repeat the last value of the channel within its segment."""
    missing = np.isnan(rows.values)
    if not missing.any():
        return rows
    where = [names[place] for place in np.flatnonzero(missing.any(axis=0))]
    found = f"missing values: {missing.sum()} of {missing.size} ({missing.mean():.2%}) in {listed(where, 8)}"
    if policy.missing != "hold":
        report.add(policy.missing, found, "masked", "choose the policy missing 'mask' or 'hold'")
        return rows
    index = np.arange(len(missing))[:, None]
    last = np.maximum.accumulate(np.where(missing, -1, index), axis=0)
    segment = np.cumsum(rows.gap)
    first = np.searchsorted(segment, segment)[:, None]
    held = missing & (last >= first) & (index - last <= policy.hold_rows)
    values = np.where(held, np.take_along_axis(rows.values, np.maximum(last, 0), axis=0), rows.values)
    left = int(missing.sum() - held.sum())
    report.add("hold", found, f"{held.sum()} held for up to {policy.hold_rows} rows, {left} masked", "")
    return replace(rows, values=values)


def find_constant(rows: Rows, names: tuple[str, ...], policy: Policy, report: Report) -> BoolArray:
    """Bool (channels,): which channels stay."""
    empty = np.isnan(rows.values).all(axis=0)
    if empty.any():
        report.problems.append(
            f"no value is left of {listed([names[place] for place in np.flatnonzero(empty)], 8)} once "
            "duplicate stamps are merged; choose the policy duplicates 'mean', or name other channels"
        )
        return np.logical_not(empty)
    low: FloatArray = np.nanmin(rows.values, axis=0)
    constant: BoolArray = np.equal(low, np.nanmax(rows.values, axis=0))
    kept: BoolArray = ~constant | (policy.constant == "keep")
    if not constant.any():
        return kept
    texts = [f"{names[place]} = {low[place]:g}" for place in np.flatnonzero(constant)]
    found = f"constant channels: {listed(texts, 8)}"
    if constant.all() and policy.constant != "keep":
        report.problems.append(f"{found}; no channel changes, so there is nothing to learn; record more rows")
        return kept
    done = {"drop": "left out of the network", "keep": "kept"}.get(policy.constant, "")
    report.add(policy.constant, found, done, "leave them out, or choose the policy constant 'drop' or 'keep'")
    return kept
