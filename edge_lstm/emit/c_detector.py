"""The detector's options in C: their constants, and what the state of a model keeps for them."""

from __future__ import annotations

from edge_lstm.detection.fixed import QDetector
from edge_lstm.emit.c_step import Field
from edge_lstm.emit.c_tables import Table, rows_text

ARRAYS = {"knee": "int16", "usual": "int16", "stuck": "uint16"}
SCALARS = ("score_mean", "depth", "hold", "cooldown", "adapt", "adapt_limit")


def option_tables(detector: QDetector) -> list[Table]:
    """The arrays of options that are on."""
    return [
        Table(
            f"detector/{name}: {kind}[{len(values)}]",
            f"{kind}_t", f"detector_{name}", len(values), rows_text(values, detector.channels),
        )
        for name, kind in ARRAYS.items()
        if (values := getattr(detector, name)) is not None
    ]  # fmt: skip


def option_members(detector: QDetector) -> dict[str, str | int]:
    """Members of elstm_detector_t; null for an array of an option that is off."""
    arrays = {name: "NULL" if getattr(detector, name) is None else f"detector_{name}" for name in ARRAYS}
    return arrays | {name: int(getattr(detector, name)) for name in SCALARS}


def option_fields(detector: QDetector) -> dict[str, Field | None]:
    """What the state keeps, by its name and in the order of elstm_channels_t; None where an option is off."""
    n, rows = detector.channels, detector.rows
    learnt = Field(4, f"int32_t learnt[{2 * rows}]", "levels, and one through the spreads, that were learnt")
    running = Field(4, "int32_t running[2]", "running mean of the scores, and its bits below Q19.12")
    still = Field(2, f"uint16_t still[{n}]", "rows in a row with an equal value")
    rest = Field(2, "uint16_t rest[1]", "rows for which the alarm stays as it is")
    return {
        "learnt": learnt if detector.adapt else None,
        "running": running if detector.depth else None,
        "still": still if detector.stuck is not None else None,
        "rest": rest if detector.hold or detector.cooldown else None,
    }


def option_arrays(detector: QDetector) -> dict[str, str]:
    """The same as C expressions of a state."""
    fields = option_fields(detector)
    return {name: f"state->{name}" if field is not None else "NULL" for name, field in fields.items()}
