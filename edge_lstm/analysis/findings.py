"""Everything that is found in a recording, step by step.

Reads a Dataset; writes Findings, which the advice and the page read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from edge_lstm.analysis.channels import ChannelFacts, Clock, read_channels, read_clock
from edge_lstm.analysis.excerpts import cut_notes, held, longest_stretch, pieces
from edge_lstm.analysis.forecasts import Forecasts, read_forecasts
from edge_lstm.analysis.memory import Memory, read_memory
from edge_lstm.analysis.redundancy import Redundancy, read_redundancy
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.evaluation.metrics_runs import runs
from edge_lstm.optional import require

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Findings:
    """Figures of a recording.  memory: by channel that changes.  forecasts: None where rows are too few.

    used: channels that a network should get.  season: rows of the strongest one, 0 for none.
    anomalous, events: labelled rows and runs of them, None without a label; no advice on the forecast
    reads them.
    """

    clock: Clock
    channels: tuple[ChannelFacts, ...]
    memory: dict[str, Memory]
    redundancy: Redundancy
    used: tuple[str, ...]
    season: int
    forecasts: Forecasts | None
    anomalous: int | None
    events: int | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def of(self, kind: str) -> list[ChannelFacts]:
        """Channels of one kind."""
        return [channel for channel in self.channels if channel.kind == kind]


def examine(dataset: Dataset, progress: Progress) -> Findings:
    """Examine every channel, their dependence and how far they can be forecast.

    On one thread: these matrices are small, and threads would only wait for each other.
    """
    with require("threadpoolctl", "data").threadpool_limits(1):
        return _examine(dataset, progress)


def _examine(dataset: Dataset, progress: Progress) -> Findings:
    progress(0, 5, "channels")
    channels = read_channels(dataset)
    x = held(dataset)
    moving = [place for place, channel in enumerate(channels) if channel.kind != "constant"]
    names = [channels[place].name for place in moving]
    stretch = longest_stretch(dataset.gap)
    progress(1, 5, "memory")
    memory = {name: read_memory(x[stretch, place]) for name, place in zip(names, moving, strict=True)}
    season = max(memory.values(), key=lambda found: found.strength).season if memory else 0
    progress(2, 5, "redundancy")
    taken = pieces(dataset.gap)[0]
    redundancy = read_redundancy(x[taken][:, moving], names)
    used = [
        place
        for place in moving
        if channels[place].kind != "counter" and channels[place].name not in redundancy.duplicates
    ]
    progress(3, 5, "forecasts")
    found = None
    if used:
        found = read_forecasts(
            x[:, used],
            dataset.present[:, used],
            dataset.gap,
            [channels[place].name for place in used],
            [memory[channels[place].name].season for place in used],
        )
    label = dataset.label
    return Findings(
        clock=read_clock(dataset),
        channels=tuple(channels),
        memory=memory,
        redundancy=redundancy,
        used=tuple(channels[place].name for place in used),
        season=season,
        forecasts=found,
        anomalous=None if label is None else int(label.sum()),
        events=None if label is None else len(runs(label)),
        notes=tuple(cut_notes(dataset)),
    )
