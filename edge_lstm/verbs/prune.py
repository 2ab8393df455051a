"""prune: a float model becomes a smaller or sparser one, trained on with what was removed held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_lstm.registry.record import Step, data_record, parent_record, validation_figures, with_step
from edge_lstm.training.config import PruneConfig
from edge_lstm.training.fit import versions
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
    graph, parent = read_graph(model), parent_record(model)
    config, options = config or PruneConfig(), options or StreamOptions()
    dataset = read_stream(Path(data), options, graph.stream)
    pruned = prune_graph(graph, dataset, config, progress)
    tables = {"config": config.to_mapping(), "stream": options.to_mapping()}
    figures, record = validation_figures(pruned.graph.made["figures"]), data_record(data, dataset.rows)
    step = Step("prune", tables, versions(), record, parent, config.seed, figures)
    graph = replace(pruned.graph, made=with_step(pruned.graph.made, step))
    save(pruned.model, graph.stream, graph.made, Path(out), graph.predictor, graph.ahead)
    return PruneResult(str(out), replace(pruned, graph=graph), dataset.notes)
