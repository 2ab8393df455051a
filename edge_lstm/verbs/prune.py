"""prune: a float model becomes a smaller or sparser one, trained on with what was removed held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.training.config import PruneConfig
from edge_lstm.training.model import save
from edge_lstm.training.prune import Pruned
from edge_lstm.training.prune import prune as prune_graph
from edge_lstm.verbs.streams import StreamOptions, read_graph, read_stream
from edge_lstm.verbs.train import check_output


@dataclass(frozen=True, eq=False)
class PruneResult:
    """The written file, the pruned network with its report, and what is to be known of the recording."""

    path: str
    pruned: Pruned
    notes: tuple[str, ...]


def prune(
    model: Path,
    data: Path,
    out: Path,
    config: PruneConfig | None = None,
    options: StreamOptions | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> PruneResult:
    """Prune the .keras ``model`` of this toolkit on the recording it was trained on; write it to ``out``.

    Raises ModelError for a model without training options or without a unit to remove.
    """
    check_output(Path(out))
    graph = read_graph(model)
    dataset = read_stream(Path(data), options or StreamOptions(), graph.stream)
    pruned = prune_graph(graph, dataset, config or PruneConfig(), progress)
    save(pruned.model, pruned.graph.stream, pruned.graph.made, Path(out), pruned.graph.predictor)
    return PruneResult(str(out), pruned, dataset.notes)
