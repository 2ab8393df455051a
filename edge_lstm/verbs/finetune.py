"""finetune: a trained float model learns with the integers that ``quantize`` will give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_lstm.errors import DataError
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.training.config import FinetuneConfig
from edge_lstm.training.finetune import Finetuned
from edge_lstm.training.finetune import finetune as finetune_graph
from edge_lstm.training.model import save
from edge_lstm.verbs.streams import StreamOptions, network_rows, read_graph, read_stream, train_config
from edge_lstm.verbs.train import check_output


@dataclass(frozen=True, eq=False)
class FinetuneResult:
    """The written file, the network with its losses, and what is to be known of the recording."""

    path: str
    finetuned: Finetuned
    notes: tuple[str, ...]


def finetune(
    model: Path,
    data: Path,
    out: Path,
    quantizer: QuantizeConfig | None = None,
    config: FinetuneConfig | None = None,
    options: StreamOptions | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> FinetuneResult:
    """Train the .keras ``model`` of this toolkit on in integers, on the recording it was trained on.

    ``quantize`` with the same data and ``quantizer`` then gives the integers that training ended with; they
    are never worse on the validation rows than those of ``model`` itself.  Writes ``out``, a .keras file.
    Raises ModelError for a model without training options.
    """
    check_output(Path(out))
    graph = read_graph(model)
    dataset = read_stream(Path(data), options or StreamOptions(), graph.stream)
    rows = network_rows(dataset, graph.stream, train_config(graph.made))
    calibration = rows.x[rows.learn & rows.present.any(axis=1)]
    if len(calibration) < 2:
        raise DataError("calibration: no normal rows before the test part; check the label column")
    tuned = finetune_graph(
        graph, dataset, calibration, quantizer or QuantizeConfig(), config or FinetuneConfig(), progress
    )
    save(tuned.model, tuned.graph.stream, tuned.graph.made, Path(out), tuned.graph.predictor)
    return FinetuneResult(str(out), tuned, dataset.notes)
