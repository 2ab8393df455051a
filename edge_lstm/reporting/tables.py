"""The tables of the page: figures in, rows of text cells out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.reporting.data import Event, ReportData, shares

NONE = "\N{EN DASH}"
MORE_IS_BETTER = ("r2", "auc", "vus", "precision", "recall", "f1", "found")
LESS_IS_BETTER = ("mse", "mae", "false", "delay", "missed")


@dataclass(frozen=True)
class Cell:
    """A table cell; tone: '', best, good or bad; share: 0 .. 1 draws a bar behind the text."""

    text: str
    tone: str = ""
    share: float | None = None


@dataclass(frozen=True)
class Table:
    """The first cell of a row is its header; ``words`` are the columns set as text, not as figures."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: Sequence[int] = ()


def number(value: float | int | None) -> str:
    """A figure for a table: thousands separated, four significant digits, a dash where there is none.

    >>> number(12345), number(0.98765), number(None)
    ('12,345', '0.9877', '–')
    """
    if value is None or not np.isfinite(value):
        return NONE
    text = f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 1000 else f"{value:#.4g}"
    return text.replace("-", "\N{MINUS SIGN}") if not text.startswith("-0") or float(value) else "0"


def aligned(values: Sequence[float | None]) -> list[str]:
    """A column of figures with the same number of decimals.

    >>> aligned([0.98125, 0.5, None])
    ['0.9812', '0.5000', '–']
    """
    known = [value for value in values if value is not None and np.isfinite(value)]
    if all(float(value).is_integer() for value in known):
        return [number(value) for value in values]
    decimals = int(np.clip(3 - np.floor(np.log10(max(map(abs, known)))), 0, 9))
    return [
        NONE
        if value is None or not np.isfinite(value)
        else f"{value:,.{decimals}f}".replace("-", "\N{MINUS SIGN}")
        for value in values
    ]


def cells(*values: Any) -> list[Cell]:
    """Texts as they are, figures as ``number`` writes them."""
    return [Cell(value if isinstance(value, str) else number(value)) for value in values]


def quality_table(data: ReportData) -> Table | None:
    """Figures by method, the best of each metric marked; None where there are none."""
    if not data.quality:
        return None
    metrics = list(dict.fromkeys(key for row in data.quality.values() for key in row))
    columns = []
    for metric in metrics:
        values = [row.get(metric) for row in data.quality.values()]
        best = _best(values, metric)
        pairs = zip(aligned(values), values, strict=True)
        columns.append([Cell(text, "best" if _is(value, best) else "") for text, value in pairs])
    rows = [[Cell(name), *cells] for name, *cells in zip(data.quality, *columns, strict=True)]
    return Table("Figures by method; the best of each column is bold.", ["method", *metrics], rows)


def _is(value: float | None, top: float | None) -> bool:
    return value is not None and top is not None and value == top


def _best(values: Sequence[float | None], metric: str) -> float | None:
    """The best of a column whose name tells which way is better; None where it does not."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    name = metric.lower()
    if len(known) < 2 or not any(word in name for word in MORE_IS_BETTER + LESS_IS_BETTER):
        return None
    return min(known) if any(word in name for word in LESS_IS_BETTER) else max(known)


def events_table(data: ReportData, first: int, last: int) -> Table | None:
    """The alarms number ``first`` to before ``last``, from 0; None where there is none."""
    columns = ["alarm", "start", "first row", "rows", "peak score"]
    columns += [] if data.label is None else ["in a labelled fault"]
    rows = [_event_row(data, number, event) for number, event in enumerate(data.events, 1)][first:last]
    words = [1, *range(5, len(columns) + 1)]
    columns.append("contributions, largest first")
    caption = "Alarms of the int8 detector; the bar is the share of the channel that contributes most."
    return Table(caption if first == 0 else "Further alarms.", columns, rows, words) if rows else None


def _event_row(data: ReportData, index: int, event: Event) -> list[Cell]:
    start = event.start
    if not start and data.time_s is not None:
        start = f"{number(float(data.time_s[event.start_row] - data.time_s[0]))} s"
    row = cells(
        str(index), start or NONE, event.start_row, event.stop_row - event.start_row, event.peak_score
    )
    if data.label is not None:
        inside = bool(data.label[event.start_row : event.stop_row].any())
        row.append(Cell("yes", "good") if inside else Cell("no", "bad"))
    parts = shares(event.contributions)
    text = ", ".join(f"{name} {share:.0%}" for name, share in parts[:3])
    return [*row, Cell(text or NONE, share=parts[0][1] if parts else None)]


def forecast_table(data: ReportData) -> Table:
    """RMSE and R2 by channel in rows without a labelled fault, and how far the two forecasts part at most."""
    normal = slice(None) if data.label is None else ~data.label
    made = {"float": data.forecast_float, "int8": data.forecast_int8}
    present = {name: forecast for name, forecast in made.items() if forecast is not None}
    columns = ["channel", *(f"{metric} {name}" for metric in ("RMSE", "R2") for name in present)]
    gap = None
    if data.forecast_float is not None and data.forecast_int8 is not None:
        gap = np.abs(data.forecast_int8 - data.forecast_float)
        columns.append("largest difference")
    rows = []
    for index, channel in enumerate(data.channels):
        figures = [_fit(data.values[normal, index], array[normal, index]) for array in present.values()]
        row = [Cell(f"{channel.name}{f' ({channel.unit})' if channel.unit else ''}")]
        row += cells(*(figure[0] for figure in figures), *(figure[1] for figure in figures))
        if gap is not None:
            known = gap[np.isfinite(gap[:, index]), index]
            row += cells(float(known.max()) if known.size else None)
        rows.append(row)
    scope = "all rows" if data.label is None else "rows without a labelled fault"
    return Table(f"Error of the forecasts over {scope}, in the channel's unit.", columns, rows)


def _fit(values: FloatArray, forecast: FloatArray) -> tuple[float | None, float | None]:
    """(RMSE, R2) where both are known; R2 is None for a constant channel."""
    known = np.isfinite(values) & np.isfinite(forecast)
    if not known.any():
        return None, None
    with np.errstate(over="ignore", invalid="ignore"):  # beyond float64: shown as unknown
        squares = float(((values[known] - forecast[known]) ** 2).mean())
        variance = float(values[known].var())
    return squares**0.5, 1 - squares / variance if variance > 0 else None


def ranges_table(data: ReportData) -> Table:
    """Range, signal-to-noise ratio and saturation of each tensor."""
    rows = []
    for tensor in data.tensors:
        row = cells(tensor.name, tensor.kind, tensor.low, tensor.high, tensor.representable_low)
        row += cells(tensor.representable_high, "no loss" if tensor.snr_db == np.inf else tensor.snr_db)
        clipped = f"{tensor.saturated:,} of {tensor.count:,}" if tensor.count else NONE
        rows.append([*row, Cell(clipped, "bad" if tensor.saturated else "")])
    columns = ["tensor", "kind", "least", "most", "codes from", "codes to", "SNR (dB)", "saturated"]
    return Table("Ranges of the quantized tensors.", columns, rows, [1])


def memory_table(data: ReportData) -> Table:
    """Flash and RAM of each core by part."""
    columns = ["core", "code", "tables", "weights", "flash", "RAM", "stack", "RAM + stack"]
    rows = [
        cells(
            core.core, core.code_bytes, core.table_bytes, core.weight_bytes, core.flash_bytes, core.ram_bytes,
            core.stack_bytes, core.ram_bytes + core.stack_bytes,
        )
        for core in data.cores
    ]  # fmt: skip
    return Table("Bytes by core.", columns, rows)


def instructions_table(data: ReportData) -> Table:
    """Mean, least and most instructions per step of each core."""
    keys = ("mean", "min", "max")
    rows = [cells(core.core, *(core.instructions_per_step[key] for key in keys)) for core in data.cores]
    return Table("Instructions per step by core.", ["core", *keys], rows)


def agreement_table(data: ReportData) -> Table | None:
    """Each executor against the reference of its profile; None where none was compared."""
    if not data.agreement:
        return None
    rows = []
    for row in data.agreement:
        outcome = Cell("differs", "bad") if row.differing else Cell("agrees", "good")
        figures = cells(row.executor, row.profile, row.codes, row.differing, row.max_difference)
        rows.append([*figures, outcome])
    columns = ["executor", "profile", "codes", "differing", "largest difference", "outcome"]
    return Table(
        "Codes compared with the reference of each executor's numerics profile.", columns, rows, [1, 5]
    )
