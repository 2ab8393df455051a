"""A batch of assets in one process: read, trained side by side, quantized, verified, judged, written.

Reads recordings; writes a folder with model.keras and model.tflite for each asset.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_lstm.datasets.clock import with_clock
from edge_lstm.datasets.dataset import Dataset
from edge_lstm.datasets.resolution import with_resolution
from edge_lstm.detection.config import DetectorConfig
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import Disagreement, EdgeLstmError
from edge_lstm.evaluation.metrics_runs import merged, runs
from edge_lstm.files import make_folder, write_bytes
from edge_lstm.graph import Graph
from edge_lstm.naming import identifier
from edge_lstm.qgraph import QGraph
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.registry.record import FileRecord, Step, data_record, validation_figures, with_step
from edge_lstm.training.calibration import quantize_many
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.fit import Task, Trained, fit_many, fresh_graph, trained_of, versions
from edge_lstm.training.model import save
from edge_lstm.training.prepare import Prepared, prepare
from edge_lstm.verbs.evaluate import Method, int8_method
from edge_lstm.verbs.fleet_manifest import Asset, key_of
from edge_lstm.verbs.quantize import calibration_rows, detecting, quantized_made, with_stated
from edge_lstm.verbs.streams import Rows, StreamOptions, network_rows, read_stream
from edge_lstm.verbs.verify import (
    difference,
    reference_codes,
    run_in_chunks,
    verification_stream,
)
from firmware_tools.build import find_host_compiler
from firmware_tools.host import HostExecutor, load_library

GROUP_STEPS = 1 << 20  # of calibration, of the networks that train side by side: bounds the memory
QUICK = "-O1"  # each model's C runs a few thousand rows: compiling it well takes longer


@dataclass(frozen=True, eq=False)
class Job:
    """What is done to every asset.

    base: the network to start from, or None; parent: its file.  steps: that are verified.
    """

    folder: Path
    settings: str
    train: TrainConfig
    quantize: QuantizeConfig
    detector: DetectorConfig
    options: StreamOptions
    base: Graph | None
    steps: int
    parent: FileRecord | None = None


@dataclass(frozen=True, eq=False)
class Item:
    """An asset that is loaded.  key: see ``key_of``."""

    asset: Asset
    key: str
    dataset: Dataset
    prepared: Prepared

    @property
    def shape(self) -> tuple[int, int, int]:
        """Assets that agree in it train side by side."""
        train = self.prepared.train
        return self.dataset.channels, train.timesteps, train.burn_in


def failure(asset: Asset, error: object) -> dict[str, Any]:
    """The result of an asset that failed; its message in one line."""
    line = " ".join(str(error).split())
    return {"asset": asset.name, "data": str(asset.data), "key": "", "error": line}


def run_batch(assets: Sequence[Asset], job: Job) -> list[dict[str, Any]]:
    """The results of some assets, plain JSON values; one that fails has its ``error`` and nothing written."""
    start, results, items = time.monotonic(), list[dict[str, Any]](), list[Item]()
    for asset in assets:
        with _reported(asset, results):
            items.append(_load(asset, job))
    for group in _groups(items):
        results += _train(group, job)
    share = (time.monotonic() - start) / len(assets)
    return [{**result, "seconds": share} for result in results]


@contextmanager
def _reported(asset: Asset, results: list[dict[str, Any]]) -> Iterator[None]:
    """Turn a stated failure into a result."""
    try:
        yield
    except EdgeLstmError as error:
        results.append(failure(asset, error))
    except OSError as error:
        results.append(failure(asset, f"{error.filename or asset.data}: {error.strerror or error}"))


def _load(asset: Asset, job: Job) -> Item:
    key = key_of(job.settings, asset.data)
    dataset = read_stream(asset.data, job.options, None if job.base is None else job.base.stream)
    if job.train.clock and job.base is None:
        dataset = with_clock(dataset)
    return Item(asset, key, dataset, prepare(dataset, job.train))


def _groups(items: Sequence[Item]) -> list[list[Item]]:
    """Assets of one shape, which train side by side, as many as the memory is bounded to."""
    found: dict[tuple[int, int, int], list[list[Item]]] = {}
    for item in items:
        parts = found.setdefault(item.shape, [[]])
        if parts[-1] and (len(parts[-1]) + 1) * max(item.dataset.rows, 1) > GROUP_STEPS:
            parts.append([])
        parts[-1].append(item)
    return [part for parts in found.values() for part in parts]


def _train(group: Sequence[Item], job: Job) -> list[dict[str, Any]]:
    """The results of a group; where it fails as a whole, of its assets one by one."""
    results: list[dict[str, Any]] = []
    try:
        tasks = [
            Task(_start(item, job), item.prepared.train, item.prepared.validation, job.train.seed)
            for item in group
        ]
        fitted = fit_many(tasks, job.train)
        trained = [
            _recorded(trained_of(result, item.dataset, item.prepared, job.train), item, job)
            for result, item in zip(fitted, group, strict=True)
        ]
        _finish(group, trained, job, results)
    except EdgeLstmError as error:
        if len(group) == 1:
            return [failure(group[0].asset, error)]
        return [result for item in group for result in _train([item], job)]
    return results


def _recorded(trained: Trained, item: Item, job: Job) -> Trained:
    """The network with the record of how it was made."""
    options = {
        "config": job.train.to_mapping(), "stream": job.options.to_mapping(),
        "quantize": asdict(job.quantize), "detector": asdict(job.detector),
    }  # fmt: skip
    figures, record = validation_figures(trained.figures), data_record(item.asset.data, item.dataset.rows)
    step = Step("fleet", options, versions(), record, job.parent, job.train.seed, figures)
    graph = replace(trained.graph, made=with_step(trained.graph.made, step))
    return replace(trained, graph=graph)


def _start(item: Item, job: Job) -> Graph:
    """The network before training; of a base the weights, with the asset's own scaling and line."""
    name, prepared = identifier(item.asset.name), item.prepared
    if job.base is None:
        return fresh_graph(job.train, prepared.stream, item.dataset.channels, name, prepared.predictor)
    line = prepared.predictor if prepared.predictor.lags else None
    return replace(job.base, name=name, stream=prepared.stream, predictor=line, made={})


def _finish(
    group: Sequence[Item], trained: Sequence[Trained], job: Job, results: list[dict[str, Any]]
) -> None:
    """Quantize all, compile their C at once, then judge and write each."""
    rows = [network_rows(i.dataset, i.prepared.stream, job.train) for i in group]
    graphs = []
    for own, of in zip(trained, rows, strict=True):
        stated = with_stated(own.graph)
        graphs.append(replace(stated, stream=with_resolution(stated.stream, of.dataset.values[~of.test])))
    calibrations = [calibration_rows(of) for of in rows]
    qgraphs = [
        replace(qgraph, made=quantized_made(graph, job.quantize, len(calibration)))
        for qgraph, graph, calibration in zip(
            quantize_many(graphs, calibrations, job.quantize), graphs, calibrations, strict=True
        )
    ]
    numbered = [replace(qgraph, name=f"asset_{number}") for number, qgraph in enumerate(qgraphs)]
    compiler = find_host_compiler()
    library = load_library(numbered, compiler=replace(compiler, flags=(*compiler.flags, QUICK)))
    for item, own, graph, qgraph, numbered_one, of in zip(
        group, trained, graphs, qgraphs, numbered, rows, strict=True
    ):
        with _reported(item.asset, results):
            with HostExecutor(numbered_one, library=library) as host:
                detector = detecting(qgraph, graph, of, job.detector, host)
                method = int8_method(detector, of, host)
                verified = _verify(detector, host, job.steps)
            written = _write(item, own, detector, job.folder)
            results.append({**_figures(item, own, method, of), **verified, **written})


def _verify(qgraph: QGraph, host: HostExecutor, steps: int) -> dict[str, Any]:
    """Raises Disagreement where the C computes other codes than the reference."""
    codes = verification_stream(qgraph, steps, seed=0)
    found = difference(run_in_chunks(host, codes), reference_codes(qgraph, codes))
    if found.differing:
        raise Disagreement(
            f"its C computes {found.differing:,} of {found.codes:,} codes otherwise than the reference, "
            f"the first at {found.first}; run: edge-lstm verify"
        )
    return {"verified_codes": found.codes, "differing": found.differing}


def _figures(item: Item, trained: Trained, method: Method, rows: Rows) -> dict[str, Any]:
    """What is told of an asset that was trained; alarms and quality of the test rows."""
    judged = method.alarms.to_dict() if method.alarms else {}
    return {
        "asset": item.asset.name,
        "data": str(item.asset.data),
        "key": item.key,
        "error": None,
        "rows": item.dataset.rows,
        "epochs": len(trained.history["loss"]),
        "test_rows": int(rows.test.sum()),
        "r2": method.forecast.r2 if method.forecast else None,
        "alarms": len(merged(runs(method.detection.alarm[rows.test] > 0))),
        **{name: judged.get(name) for name in ("vus_pr", "event_f1", "false_alarms")},
    }


def _write(item: Item, trained: Trained, qgraph: QGraph, folder: Path) -> dict[str, Any]:
    """Both files of an asset, in a folder of its name."""
    place, graph, content = make_folder(folder / item.asset.name), trained.graph, emit_tflite(qgraph)
    save(trained.model, graph.stream, graph.made, place / "model.keras", graph.predictor, graph.ahead)
    write_bytes(place / "model.tflite", content)
    return {"model": str(place / "model.tflite"), "size_bytes": len(content)}
