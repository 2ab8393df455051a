"""The tables of a study: findings in, rows of text cells out."""

from __future__ import annotations

from edge_lstm.analysis.findings import Findings
from edge_lstm.analysis.forecasts import CURVED, LINE, PERSISTENCE, SEASONAL, Forecasts
from edge_lstm.analysis.redundancy import Redundancy
from edge_lstm.reporting.tables import NONE, Table, cells


def channels_table(findings: Findings) -> Table:
    """Kind, range, missing values and steps of every channel."""
    rows = [
        cells(f"{channel.name} ({channel.unit})" if channel.unit else channel.name, channel.kind,
              channel.low, channel.high, channel.mean, channel.spread, channel.distinct,
              f"{channel.missing:.2%}", f"{channel.resolution:g}", channel.int8_step, channel.steps_in_one
              if channel.resolution else None)
        for channel in findings.channels
    ]  # fmt: skip
    columns = ["channel", "kind", "low", "high", "mean", "spread", "values", "missing", "resolution",
               "int8 step", "steps in one"]  # fmt: skip
    return Table(
        "Channels; the last columns: what one int8 code of the range stands for.", columns, rows, (1,)
    )


def memory_table(findings: Findings) -> Table:
    """Stationarity, memory and season of every channel that changes."""
    rows = [
        cells(name, memory.verdict, _p(memory.adf_p), _p(memory.kpss_p), _p(memory.ljung_box_p), memory.order,
              memory.season or None, memory.strength if memory.season else None)
        for name, memory in findings.memory.items()
    ]  # fmt: skip
    return Table(
        "p of a unit root (ADF), of a steady level (KPSS) and of independent rows (Ljung-Box, 20 lags); "
        "last lag of the PACF that matters; season in rows.",
        ["channel", "verdict", "ADF p", "KPSS p", "Ljung-Box p", "PACF ends", "season", "strength"],
        rows, (1,),
    )  # fmt: skip


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def pairs_table(redundancy: Redundancy) -> Table | None:
    """The strongest pairs; None where there is none."""
    rows = [
        cells(f"{pair.first}, {pair.second}", f"{pair.correlation:.3f}", f"{pair.best:.3f}", pair.lag)
        for pair in redundancy.pairs
    ]
    caption = "Strongest pairs; lag: rows that the second comes later."
    return Table(caption, ["channels", "same row", "strongest", "lag"], rows) if rows else None


def forecast_table(forecasts: Forecasts) -> Table:
    """R2 by channel and method, and what is left in the line's errors."""
    methods = [name for name in (PERSISTENCE, SEASONAL, LINE, CURVED) if name in forecasts.r2]
    rows = [
        cells(
            name,
            *(_r2(forecasts.r2[method].get(name)) for method in methods),
            _p(forecasts.ljung_box_p[name]),
        )
        for name in forecasts.error
    ]
    means = cells("mean", *(_r2(forecasts.mean(method)) for method in methods), NONE)
    return Table(
        f"R2 of the next row on {forecasts.rows:,} rows not learnt from; Ljung-Box p of the line's errors.",
        ["channel", *methods, "Ljung-Box p"], [*rows, means] if len(rows) > 1 else rows,
    )  # fmt: skip


def _r2(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}".replace("-", "\N{MINUS SIGN}")
