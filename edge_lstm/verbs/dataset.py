"""dataset: write a labelled synthetic recording."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_lstm.datasets.pump import write_pump
from edge_lstm.errors import ConfigError

KINDS = ("pump",)


@dataclass(frozen=True)
class Written:
    """What was written: rows, and the number of rows and of events that are labelled as faults."""

    path: str
    rows: int
    fault_rows: int
    faults: dict[str, int]


def dataset(kind: str, out: Path, rows: int = 20_000, seed: int = 7) -> Written:
    """Write ``rows`` seconds of a pump with labelled faults to the CSV ``out``.

    Raises ConfigError for an unknown kind, OutputError where ``out`` cannot be written.
    """
    if kind not in KINDS:
        raise ConfigError(f"dataset '{kind}' is unknown; choose from {', '.join(KINDS)}")
    pump = write_pump(Path(out), rows, seed)
    faults: dict[str, int] = {}
    for fault in pump.faults:
        faults[fault.kind] = faults.get(fault.kind, 0) + 1
    return Written(str(out), rows, int(pump.label.sum()), faults)
