"""One trial of a search: reject what breaks a limit, train, quantize, judge on the validation rows.

The test part of the recording is cut off before anything is judged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.files import make_folder, write_bytes
from edge_lstm.graph import Graph
from edge_lstm.qgraph import QGraph
from edge_lstm.registry.record import Step, data_record, with_step
from edge_lstm.training.config import PruneConfig, TrainConfig
from edge_lstm.training.fit import Task, data_figures, fresh_graph, scheduled_rate, tasks_trainer, versions
from edge_lstm.training.model import from_graph, save
from edge_lstm.training.optimise import History, optimise
from edge_lstm.training.prepare import Prepared, prepare
from edge_lstm.training.prune import prune_many
from edge_lstm.training.trainer import Trainer
from edge_lstm.tuning import space
from edge_lstm.tuning.costs import Costs, Limits, measure_costs, untrained
from edge_lstm.tuning.space import Choice
from edge_lstm.tuning.study import Hopeless, Race, Study, Trial, finished
from edge_lstm.verbs.evaluate import int8_method
from edge_lstm.verbs.quantize import detecting, quantize_network
from edge_lstm.verbs.streams import Rows, StreamOptions, network_rows, read_stream
from firmware_tools.boards.records import find_board
from firmware_tools.host import HostExecutor

NAME = "tuned"  # of the networks
ROUGH_ROWS = 600  # that an untrained network is quantized on, to know its costs
COSTS, FIGURES, LOSSES, LINE, SHAPE = (
    "costs",
    "figures",
    "losses",
    "line",
    "shape",
)  # attributes of trials in the storage
NETWORK = ("line", "layers", "units", "timesteps", "sparsity")  # parameters that training depends on


@dataclass(frozen=True)
class Job:
    """What every process of a search knows.

    labelled: whether faults of the validation rows judge a trial, not its forecast.
    """

    data: Path
    options: StreamOptions
    channels: tuple[str, ...]
    train: TrainConfig
    limits: Limits
    board: str
    choices: Mapping[str, tuple[Choice, ...]]
    objectives: tuple[str, ...]
    labelled: bool
    folder: Path


class Recording(NamedTuple):
    """rows: before the test part.  validation: bool (steps,), those that judge.  data: plain figures."""

    prepared: Prepared
    rows: Rows
    validation: BoolArray
    data: dict[str, Any]


class Network(NamedTuple):
    """A trained network, its learning curves and validation losses by epoch."""

    graph: Graph
    losses: list[float]


class Searcher:
    """The objective of a study, with what earlier trials of this process have in common with the next."""

    def __init__(self, job: Job, study: Study) -> None:
        self.job, self.study = job, study
        self.board = find_board(job.board)
        self._recordings: dict[Any, Recording] = {}
        self._costs: dict[Any, Costs] = {}
        self._networks: dict[Any, Network] = {}
        self._integers: dict[Any, tuple[Graph, QGraph, HostExecutor]] = {}

    def __call__(self, trial: Trial) -> list[float]:
        """The values of a trial; writes its costs and figures into the study and its models into a folder."""
        params = trial.params
        recording = self._recording(params)
        shape, expected = self._expected(params, recording)
        trial.set_user_attr(SHAPE, shape)
        trial.set_user_attr(COSTS, asdict(expected))
        trial.set_user_attr(LINE, params.get("line", "with"))
        excess = self.job.limits.excess(expected)
        if any(share > 0 for share in excess.values()):
            _constrain(trial, excess)
            raise Hopeless
        network = self._network(trial, params, recording, expected)
        trial.set_user_attr(LOSSES, network.losses)
        graph, qgraph, executor = self._integer(params, recording, network.graph)
        config = space.detector_config(params)
        whole = detecting(qgraph, graph, recording.rows, config, executor)
        costs = measure_costs(whole, self.board)
        trial.set_user_attr(COSTS, asdict(costs))
        _constrain(trial, self.job.limits.excess(costs))
        figures = self._judge(recording, graph, qgraph, executor, params)
        trial.set_user_attr(FIGURES, figures)
        self._write(trial, params, graph, whole, recording)
        values = {**asdict(costs), "quality": figures["quality"]}
        return [float(values[name]) for name in self.job.objectives]

    def _recording(self, params: Mapping[str, Any]) -> Recording:
        names = space.kept_channels(params, self.job.channels)
        config = space.train_config(params, self.job.train)
        key = names, config.linear, config.timesteps
        if key not in self._recordings:
            options = replace(self.job.options, channels=names)
            dataset = read_stream(self.job.data, options)
            prepared = prepare(dataset, config)
            every = network_rows(dataset, prepared.stream, config)
            count = int((~every.test).sum())
            rows = every.first(count)
            validation = np.arange(count) >= prepared.parts.train.rows
            self._recordings[key] = Recording(prepared, rows, validation, data_figures(dataset, prepared))
        return self._recordings[key]

    def _expected(self, params: Mapping[str, Any], recording: Recording) -> tuple[str, Costs]:
        """The shape, and the costs of the last trial of it, or of an untrained network.

        That has the usual detector; other detectors cost nearly the same.
        """
        prepared, rows = recording.prepared, recording.rows
        units = space.pruned_units(params)
        shape = json.dumps([prepared.stream.names, params["line"], units, params["scheme"]])
        for trial in finished(self.study):
            if trial.user_attrs.get(SHAPE) == shape and FIGURES in trial.user_attrs:
                self._costs[shape] = Costs(**trial.user_attrs[COSTS])
        if shape not in self._costs:
            few = min(ROUGH_ROWS, len(rows.x))
            rough = rows.first(few)
            graph = untrained(units, prepared.stream, prepared.predictor, NAME)
            graph, qgraph = quantize_network(graph, rough, space.SCHEMES[params["scheme"]])
            detector = space.detector_config({})
            self._costs[shape] = measure_costs(detecting(qgraph, graph, rough, detector), self.board)
        return shape, self._costs[shape]

    def _network(
        self, trial: Trial, params: Mapping[str, Any], recording: Recording, costs: Costs
    ) -> Network:
        """Train and prune, unless another trial differs in scheme or detector only."""
        key = self._key(params)
        if key not in self._networks:
            config, prepared = space.train_config(params, self.job.train), recording.prepared
            channels = len(prepared.stream.channels)
            graph = fresh_graph(config, prepared.stream, channels, NAME, prepared.predictor)
            task = Task(graph, prepared.train, prepared.validation, config.seed)
            graph, history = _train(task, config, Race(self._rivals(params, costs)))
            made = {"train": config.to_mapping(), "data": recording.data, "versions": versions(),
                    "history": history}  # fmt: skip
            if params["sparsity"]:
                epochs = max(1, config.epochs // 2)
                pruning = PruneConfig(
                    sparsity=params["sparsity"], epochs=epochs, steps=min(8, epochs), seed=config.seed
                )
                graph = prune_many([replace(task, graph=graph)], pruning, config)[0].graph
                made["prune"] = {"options": pruning.to_mapping()}
            self._networks[key] = Network(replace(graph, made=made), history["validation_loss"])
        return self._networks[key]

    def _key(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        return (space.kept_channels(params, self.job.channels), *(params[name] for name in NETWORK))

    def _rivals(self, params: Mapping[str, Any], costs: Costs) -> list[list[float]]:
        """Validation losses of trials with the same line (their units are its errors) that cost no more."""
        return [
            trial.user_attrs[LOSSES]
            for trial in finished(self.study)
            if LOSSES in trial.user_attrs
            and trial.user_attrs[LINE] == params["line"]
            and Costs(**trial.user_attrs[COSTS]) <= costs
        ]

    def _integer(
        self, params: Mapping[str, Any], recording: Recording, graph: Graph
    ) -> tuple[Graph, QGraph, HostExecutor]:
        """The quantized network and its C on this machine."""
        key = *self._key(params), params["scheme"]
        if key not in self._integers:
            graph, qgraph = quantize_network(graph, recording.rows, space.SCHEMES[params["scheme"]])
            self._integers[key] = graph, qgraph, HostExecutor(qgraph)
        return self._integers[key]

    def _judge(
        self, recording: Recording, graph: Graph, qgraph: QGraph, on: HostExecutor, params: Mapping[str, Any]
    ) -> dict[str, float | None]:
        """Figures of the validation rows, by a detector that has learnt from the training rows alone."""
        rows, validation = recording.rows, recording.validation
        config = space.detector_config(params)
        learnt = replace(rows, learn=rows.learn & ~validation)
        judged = detecting(qgraph, graph, learnt, config, on)
        method = int8_method(judged, replace(rows, test=validation), on)
        figures: dict[str, float | None] = {"r2": method.forecast.r2 if method.forecast else None}
        if self.job.labelled and method.alarms is not None:
            alarms = method.alarms
            figures |= {"vus_pr": alarms.vus_pr, "auc_pr": alarms.auc_pr, "event_f1": alarms.event_f1}
            quality = ((alarms.vus_pr or 0.0) + (alarms.event_f1 or 0.0)) / 2
        else:
            quality = figures["r2"] or 0.0
        return {"quality": quality, **figures}

    def _write(
        self, trial: Trial, params: Mapping[str, Any], graph: Graph, qgraph: QGraph, recording: Recording
    ) -> None:
        folder = make_folder(self.job.folder / str(trial.number))
        config = space.train_config(params, self.job.train)
        chosen = {
            "trial": trial.number, "params": dict(params), "config": config.to_mapping(),
            "stream": self.job.options.to_mapping(),
        }  # fmt: skip
        record = data_record(self.job.data, recording.rows.dataset.rows)
        step = Step("tune", chosen, versions(), record, seed=config.seed)
        made, path = with_step(graph.made, step), folder / "model.keras"
        save(from_graph(graph, config), graph.stream, made, path, graph.predictor, graph.ahead)
        content = emit_tflite(replace(qgraph, made=with_step(qgraph.made, step)))
        write_bytes(folder / "model.tflite", content)


def _constrain(trial: Trial, excess: Mapping[str, float]) -> None:
    for name, share in excess.items():
        trial.set_constraint(name, share)


class _Watched:
    """A trainer whose validation losses are seen by a race."""

    def __init__(self, trainer: Trainer, race: Race) -> None:
        self._trainer, self._race = trainer, race

    @property
    def count(self) -> int:
        return self._trainer.count

    @property
    def weights(self) -> list[Any]:
        return self._trainer.weights

    @weights.setter
    def weights(self, weights: list[Any]) -> None:
        self._trainer.weights = weights

    def epoch(self, rates: FloatArray) -> FloatArray:
        """See Trainer."""
        return self._trainer.epoch(rates)

    def validate(self) -> FloatArray:
        """See Trainer; raises Hopeless."""
        losses = self._trainer.validate()
        self._race.report(float(losses[0]))
        return losses


def _train(task: Task, config: TrainConfig, race: Race) -> tuple[Graph, History]:
    """Train one network as ``fit_many`` does, unless the race gives it up."""
    trainer = tasks_trainer([task], config)
    start = trainer.validate()
    [history] = optimise(
        _Watched(trainer, race), config.epochs,
        lambda epoch, losses: scheduled_rate(config, epoch, losses), config.patience, start=start,
    )  # fmt: skip
    return trainer.graph(0), history
