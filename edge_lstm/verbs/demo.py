"""demo: the whole road on a synthetic pump: data, train, prune, quantize, convert, prove, measure, detect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edge_lstm.files import make_folder
from edge_lstm.graph import Graph
from edge_lstm.reporting.plots import draw_overview
from edge_lstm.training.config import PruneConfig, TrainConfig
from edge_lstm.verbs.bench import Benchmark, bench_graph
from edge_lstm.verbs.convert import Converted, convert
from edge_lstm.verbs.dataset import Written, dataset
from edge_lstm.verbs.evaluate import Evaluation, detector_config, evaluate_rows
from edge_lstm.verbs.prune import PruneResult, prune
from edge_lstm.verbs.quantize import Quantized, quantize
from edge_lstm.verbs.report import report_data, write_report
from edge_lstm.verbs.streams import StreamOptions, network_rows, read_graph, read_stream, train_config
from edge_lstm.verbs.train import TrainResult, train
from edge_lstm.verbs.verify import Verification, verify_graph

Progress = Callable[[int, int, str], None]
STAGES = ("dataset", "train", "prune", "quantize", "convert", "verify", "bench", "evaluate", "report")
TRAIN = TrainConfig(units=(24,))
PRUNE = PruneConfig(method="units", sparsity=1 / 3)  # 24 units become 16
CORES = ("cortex-m0", "cortex-m4", "cortex-m33")
VERIFIED_STEPS = 10_000


@dataclass(frozen=True, eq=False)
class Demo:
    """What each verb returned."""

    folder: Path
    written: Written
    trained: TrainResult
    pruned: PruneResult
    quantized: Quantized
    converted: Converted
    verification: Verification
    benchmark: Benchmark
    evaluation: Evaluation


def demo(
    out: Path = Path("build/demo"),
    rows: int = 20_000,
    seed: int = 7,
    on: tuple[str, ...] | None = None,
    config: TrainConfig = TRAIN,
    progress: Progress | None = None,
) -> Demo:
    """Run every verb on a synthetic pump of ``rows`` seconds and leave all files in the folder ``out``.

    on: executors to verify (None: every one that is installed).  Leaves pump.csv, float.keras (before
    pruning), model.keras, model.tflite, c/, report.html and overview.png.
    """
    folder = make_folder(Path(out))
    csv, full, keras = folder / "pump.csv", folder / "float.keras", folder / "model.keras"
    tflite = folder / "model.tflite"
    stage = _Stages(progress)
    stage("dataset")
    written = dataset("pump", csv, rows, seed)
    trained = train(csv, full, replace(config, seed=seed), progress=stage("train"))
    pruned = prune(full, csv, keras, PRUNE, progress=stage("prune"))
    stage("quantize")
    quantized = quantize(keras, csv, tflite)
    stage("convert")
    converted = convert(tflite, folder / "c")
    qgraph, graph = quantized.qgraph, read_graph(keras)
    content = tflite.read_bytes()
    verification = verify_graph(qgraph, on, VERIFIED_STEPS, model=content, progress=stage("verify"))
    benchmark = bench_graph(qgraph, CORES, progress=stage("bench"))
    stage("evaluate")
    evaluation = _evaluate(csv, quantized, graph)
    stage("report")
    _report(folder, quantized, graph, evaluation, benchmark, verification)
    return Demo(folder, written, trained, pruned, quantized, converted, verification, benchmark, evaluation)


class _Stages:
    """Progress of each stage as a part of the whole."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    def __call__(self, name: str) -> Progress:
        number = STAGES.index(name)

        def show(done: int, total: int, text: str) -> None:
            if self.progress:
                share = done / total if total else 0
                self.progress(round(100 * (number + share)), 100 * len(STAGES), f"{name} {text}")

        show(0, 1, "")
        return show


def _report(
    folder: Path,
    quantized: Quantized,
    graph: Graph,
    evaluation: Evaluation,
    benchmark: Benchmark,
    verification: Verification,
) -> None:
    history = dict(graph.made.get("history", {}))
    content = report_data(quantized.qgraph, evaluation, quantized.figures, benchmark, verification, history)
    write_report(content, folder / "report.html")
    draw_overview(content, folder / "overview.png")


def _evaluate(csv: Path, quantized: Quantized, graph: Graph) -> Evaluation:
    qgraph = quantized.qgraph
    recording = read_stream(csv, StreamOptions(), qgraph.stream)
    rows = network_rows(recording, qgraph.stream, train_config(qgraph.made))
    return evaluate_rows(qgraph, rows, detector_config(qgraph), graph)
