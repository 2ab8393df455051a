"""QScaling -> its table in C, and what a raw integer is in words."""

from __future__ import annotations

from edge_lstm.emit.c_tables import Table, one_line
from edge_lstm.scaling import QScaling

__all__ = ["raw_lines", "scalers_table"]


def scalers_table(scaling: QScaling) -> Table:
    """One elstm_scaler_t a channel."""
    columns = (array.tolist() for array in scaling.integers)
    rows = []
    for channel, *integers in zip(scaling.channels, *columns, strict=True):
        rows.append(f"    {{{', '.join(map(_literal, integers))}}}, /* {one_line(channel.name)} */")
    return Table(
        f"raw integers to codes of {scaling.fine_bits} bits below the point, a row for each channel",
        "elstm_scaler_t", "scalers", len(rows), "\n".join(rows),
    )  # fmt: skip


def raw_lines(scaling: QScaling) -> list[str]:
    """What each raw integer stands for: name, unit, step and zero."""
    lines = []
    for index, channel in enumerate(scaling.channels):
        unit = f" {channel.unit}" if channel.unit else ""
        lines.append(
            one_line(
                f"raw[{index}]: {channel.name}, counts of {channel.resolution:.9g}{unit}; "
                f"0 is {channel.zero:.9g}{unit}"
            )
        )
    return lines


def _literal(value: int) -> str:
    sign, size = "-" if value < 0 else "", abs(value)
    return f"{sign}INT64_C({size})" if size > 2**31 - 1 else str(value)
