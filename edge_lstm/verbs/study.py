"""study: is an LSTM worth trying on a recording, and how?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.analysis.advice import Advice, advise
from edge_lstm.analysis.findings import Findings, examine
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.errors import ConfigError
from edge_lstm.files import write_text
from edge_lstm.reporting.study import render_study
from edge_lstm.verbs.streams import StreamOptions, read_stream

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, eq=False)
class Study:
    """What was found and what follows from it.  page: the written file, "" for none."""

    data: str
    dataset: Dataset
    findings: Findings
    advice: Advice
    notes: tuple[str, ...]
    page: str

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the recording itself."""
        return {
            "data": self.data,
            "advice": asdict(self.advice),
            "findings": self.findings.to_json(),
            "notes": list(self.notes),
            "page": self.page,
        }


def study(
    data: Path,
    out: Path | None = None,
    rate_hz: float | None = None,
    options: StreamOptions | None = None,
    progress: Progress | None = None,
) -> Study:
    """Examine the CSV ``data``; write one HTML page to ``out`` where that is given.

    rate_hz: rows a second of a recording that has no clock.
    Raises DataError for a recording that cannot be used, ConfigError for a rate beside a clock.
    """
    show: Progress = progress or (lambda done, total, text: None)
    options = options or StreamOptions()
    if options.policy.constant == "drop":  # they are found and named here
        options = replace(options, policy=replace(options.policy, constant="keep"))
    dataset = _timed(read_stream(Path(data), options), rate_hz, str(data))
    findings = examine(dataset, show)
    advice = advise(findings, str(data))
    notes = (*dataset.notes, *findings.notes)
    result = Study(str(data), dataset, findings, advice, notes, "" if out is None else str(out))
    if out is not None:
        show(4, 5, "draw")
        write_text(Path(out), render_study(Path(data).name, dataset, findings, advice, notes))
    show(5, 5, "done")
    return result


def _timed(dataset: Dataset, rate_hz: float | None, where: str) -> Dataset:
    """The recording with the stated rate where it has no clock."""
    if rate_hz is None:
        return dataset
    if dataset.period_s or not 0 < rate_hz < float("inf"):
        raise ConfigError(
            f"{where}: --rate-hz is {rate_hz:g}; it must be above 0, and is for recordings without a clock"
        )
    return replace(dataset, period_s=1 / rate_hz, time_s=np.asarray(dataset.time_s) / rate_hz)
