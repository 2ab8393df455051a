"""A recording as arrays: what every reader and synthetic machine makes and training takes.

Also splits one into training, validation and test parts in time order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import FloatArray, frozen
from edge_lstm.errors import DataError, raise_all

MIN_ROWS = 4  # a part below this has neither a median step nor a residual spread

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Sensor rows in time order, checked when built; the arrays are read-only copies.

    values: float64 (rows, channels) in real units, NaN exactly where present is False.
    present: bool (rows, channels).
    gap: bool (rows,), True where time was interrupted right before the row; row 0 is False.
    label: uint8 (rows,), 1 = anomalous, or None.
    time_s: float64 (rows,), seconds since row 0; rows since row 0 where period_s is 0.
    start: ISO stamp of row 0, "" where the file has no clock.
    period_s: median seconds between rows, 0 where no time is known.
    notes: one line for each policy that changed or marked something.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: FloatArray
    present: BoolArray
    gap: BoolArray
    label: npt.NDArray[np.uint8] | None
    time_s: FloatArray
    start: str = ""
    period_s: float = 0.0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, dtype in (
            ("values", np.float64), ("present", np.bool_), ("gap", np.bool_), ("label", np.uint8),
            ("time_s", np.float64),
        ):  # fmt: skip
            if getattr(self, name) is not None:
                object.__setattr__(self, name, frozen(getattr(self, name), dtype))
        raise_all(DataError, "dataset", self._shape_problems() or self._content_problems())

    def _shape_problems(self) -> list[str]:
        if self.values.ndim != 2 or self.values.size == 0:
            return [f"values is {self.values.shape}, expected (rows, channels) with at least one of each"]
        rows, channels = self.values.shape
        problems = [
            f"{name} has {len(getattr(self, name))} entries for {channels} channels"
            for name in ("names", "units")
            if len(getattr(self, name)) != channels
        ]
        expected: dict[str, tuple[int, ...]] = {
            "present": (rows, channels), "gap": (rows,), "label": (rows,), "time_s": (rows,),
        }  # fmt: skip
        for name, shape in expected.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                problems.append(f"{name} is {array.shape}, expected {shape}")
        return problems

    def _content_problems(self) -> list[str]:
        problems = []
        if len(set(self.names)) != len(self.names):
            problems.append(f"two channels have the same name: {', '.join(self.names)}")
        if np.isinf(self.values).any() or (np.isnan(self.values) == self.present).any():
            problems.append("values must be finite where present and NaN where not")
        if self.gap[0]:
            problems.append("row 0 is marked as after a gap; nothing comes before it")
        if self.label is not None and self.label.max() > 1:
            problems.append(f"label holds {self.label.max()}, expected 0 or 1")
        if not np.isfinite(self.time_s).all() or self.time_s[0] != 0 or (np.diff(self.time_s) < 0).any():
            problems.append("time_s must start at 0 and never decrease; sort the rows by time")
        if not (np.isfinite(self.period_s) and self.period_s >= 0):
            problems.append(f"period_s is {self.period_s}, expected seconds of 0 or more")
        return problems

    @property
    def rows(self) -> int:
        return int(self.values.shape[0])

    @property
    def channels(self) -> int:
        return int(self.values.shape[1])

    @property
    def normal(self) -> BoolArray:
        """Bool (rows,): label is 0; True everywhere without a label."""
        if self.label is None:
            return np.ones(self.rows, dtype=np.bool_)
        normal: BoolArray = self.label == 0
        return normal

    def stamp(self, row: int) -> str:
        """ISO stamp of a row, "" where the file has no clock."""
        if not self.start:
            return ""
        moment = datetime.fromisoformat(self.start) + timedelta(seconds=float(self.time_s[row]))
        return moment.isoformat()

    def slice(self, start: int, stop: int) -> Dataset:
        """Rows ``start`` to ``stop`` (not included) as a dataset of its own, its time counted from ``start``.

        Raises DataError where that range is empty or outside.
        """
        if not 0 <= start < stop <= self.rows:
            raise DataError(
                f"dataset: rows {start} to {stop} asked for, but it has rows 0 to {self.rows}; "
                "the range must hold at least one row"
            )
        gap = self.gap[start:stop].copy()
        gap[0] = False
        return replace(
            self,
            values=self.values[start:stop],
            present=self.present[start:stop],
            gap=gap,
            label=None if self.label is None else self.label[start:stop],
            time_s=self.time_s[start:stop] - self.time_s[start],
            start=self.stamp(start),
        )


class Splits(NamedTuple):
    """Three parts of one dataset in time order."""

    train: Dataset
    validation: Dataset
    test: Dataset


def split(dataset: Dataset, train: float = 0.6, validation: float = 0.2) -> Splits:
    """Cut a dataset at fractions of its rows; the test part is what remains.  Nothing is shuffled.

    train, validation: above 0, their sum below 1.  Raises DataError on other fractions and on parts
    of fewer than MIN_ROWS rows.
    """
    problems = [
        f"the {name} fraction is {value}, expected above 0 and below 1"
        for name, value in (("train", train), ("validation", validation))
        if not _is_fraction(value)
    ]
    if not problems and train + validation >= 1 - 1e-9:  # 0.7 + 0.3 is not exactly 1 in binary
        problems.append(
            f"train {train} and validation {validation} leave nothing for the test part; lower one of them"
        )
    raise_all(DataError, "split", problems)
    first = round(dataset.rows * train)
    second = round(dataset.rows * (train + validation))
    if min(first, second - first, dataset.rows - second) < MIN_ROWS:
        # + 1 covers the rounding of both cuts
        needed = ceil((MIN_ROWS + 1) / min(train, validation, 1 - train - validation))
        raise DataError(
            f"split: {dataset.rows} rows give parts of {first}, {second - first} and {dataset.rows - second} "
            f"rows, expected at least {MIN_ROWS} in each; record {needed} rows or more"
        )
    return Splits(dataset.slice(0, first), dataset.slice(first, second), dataset.slice(second, dataset.rows))


def _is_fraction(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < 1
