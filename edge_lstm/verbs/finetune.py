"""finetune: a trained float model learns with the integers that ``quantize`` will give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edge_lstm.errors import DataError
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.registry.record import Step, data_record, parent_record, validation_figures, with_step
from edge_lstm.training.config import FinetuneConfig
from edge_lstm.training.finetune import Finetuned
from edge_lstm.training.finetune import finetune as finetune_graph
from edge_lstm.training.fit import versions
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
    quantizer, config = quantizer or QuantizeConfig(), config or FinetuneConfig()
    graph, parent, options = read_graph(model), parent_record(model), options or StreamOptions()
    dataset = read_stream(Path(data), options, graph.stream)
    rows = network_rows(dataset, graph.stream, train_config(graph.made))
    calibration = rows.x[rows.learn & rows.present.any(axis=1)]
    if len(calibration) < 2:
        raise DataError("calibration: no normal rows before the test part; check the label column")
    tuned = finetune_graph(graph, dataset, calibration, quantizer, config, progress)
    tables = {"config": config.to_mapping(), "quantizer": asdict(quantizer), "stream": options.to_mapping()}
    figures = validation_figures(
        {**tuned.graph.made["figures"], "windows": {"validation": tuned.losses["after"]}}
    )
    record = data_record(data, dataset.rows)
    step = Step("finetune", tables, versions(), record, parent, config.seed, figures)
    graph = replace(tuned.graph, made=with_step(tuned.graph.made, step))
    save(tuned.model, graph.stream, graph.made, Path(out), graph.predictor, graph.ahead)
    return FinetuneResult(str(out), replace(tuned, graph=graph), dataset.notes)
