"""Quantization-aware training: the reference's codes, the float network's gradient, nothing gets worse."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edge_lstm.cli import main
from edge_lstm.datasets.csv_file import read_csv
from edge_lstm.errors import ConfigError, UnsupportedModel
from edge_lstm.graph import Dense, Graph, Lstm, Stream
from edge_lstm.importers.keras_model import read_keras
from edge_lstm.lower import lower
from edge_lstm.quantizer import QuantizeConfig, quantize
from edge_lstm.reference import floating, integer
from edge_lstm.training.calibration import quantize_many
from edge_lstm.training.config import FinetuneConfig, TrainConfig
from edge_lstm.training.finetune import IntegerTrainer, finetune_many, integer_loss
from edge_lstm.training.fit import Task, prepare
from edge_lstm.training.model import build, layer_weights, load_tensorflow, plain_layers
from edge_lstm.training.samples import Samples, make_batch
from edge_lstm.training.stack import forward, gradients, shapes_of
from edge_lstm.verbs.quantize import quantize as quantize_file

STEPS, FEATURES, OUTPUTS = 10, 3, 2
TRAINING = TrainConfig(
    linear=False, updates=0, loss="mse", units=(4,), timesteps=STEPS, burn_in=2, batch_size=8, clip_norm=0.0
)
CONFIGS = {
    "tflm": QuantizeConfig(),
    "litert": QuantizeConfig("litert"),
    "tflite": QuantizeConfig("tflite"),
    "native": QuantizeConfig("native"),
    "int4": QuantizeConfig("native", weights="int4"),
    "int16x8": QuantizeConfig(scheme="int16x8"),
    "narrow ranges": QuantizeConfig(ranges="percentile", percentile=70, input_margin=0, cell_headroom=0),
    "narrow litert": QuantizeConfig("litert", ranges="percentile", percentile=70, cell_headroom=0),
    "wide weights": QuantizeConfig("litert", portable=False, cell_headroom=4),
}


def network(seed: int, units: tuple[int, ...] = (4,), spread: float = 0.7) -> Graph:
    rng = np.random.default_rng(seed)
    layers: list[Lstm | Dense] = []
    features = FEATURES
    for index, size in enumerate(units):
        shapes = (features, 4 * size), (size, 4 * size), 4 * size
        layers.append(Lstm(f"lstm_{index}", *(rng.normal(0, spread, shape) for shape in shapes)))
        features = size
    layers.append(Dense("dense", rng.normal(0, spread, (features, OUTPUTS)), rng.normal(0, 0.4, OUTPUTS)))
    return Graph(f"net{seed}", tuple(layers), Stream.unnamed(FEATURES))


def stream(seed: int, rows: int = 300) -> Any:
    return (
        np.cumsum(np.random.default_rng([9, seed]).normal(0, 0.3 * (1 + seed), (rows, FEATURES)), axis=0) % 3
        - 1
    )


def task(graph: Graph, seed: int, noise: float = 1.5) -> Task:
    """Targets are what the float network says, so that all loss is the integers'."""
    x = (noise * stream(seed)).astype(np.float32)
    windows = np.arange(0, 280, STEPS)
    targets = np.zeros((300, OUTPUTS), np.float32)
    targets[:280] = floating.run(graph, x[:280].reshape(-1, STEPS, FEATURES))[0].reshape(-1, OUTPUTS)
    parts = (
        Samples(x, targets, np.ones_like(targets), starts, STEPS, 2)
        for starts in (windows[::2], windows[1::2])
    )
    train, validation = parts
    return Task(graph, train, validation, seed)


def trainer(name: str, units: tuple[int, ...], spread: float = 0.7, noise: float = 1.5) -> IntegerTrainer:
    """Three networks at their first validation."""
    graphs = [network(seed, units, spread) for seed in range(3)]
    tasks = [task(graph, seed, noise) for seed, graph in enumerate(graphs)]
    made = IntegerTrainer(tasks, [stream(seed) for seed in range(3)], CONFIGS[name], TRAINING)
    made.validate()
    return made


def codes_of(trained: IntegerTrainer, x: Any) -> list[Any]:
    tf = load_tensorflow()
    weights = [tf.constant(weight) for weight in trained.weights]
    return [codes.numpy() for codes in trained._stack.codes(weights, trained.constants, tf.constant(x))[0]]


@pytest.mark.parametrize("units", [(4,), (5, 3)])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_forward_pass_has_the_codes_of_the_reference(name: str, units: tuple[int, ...]) -> None:
    saturated = 0
    for spread in (0.3, 2.0):
        trained = trainer(name, units, spread)
        x = make_batch(trained.train, np.tile(np.arange(14), (3, 1))).inputs
        found = codes_of(trained, x)
        for index, qgraph in enumerate(trained.qgraphs):
            signals, _ = integer.run_signals(lower(qgraph), x[:, index].swapaxes(0, 1).astype(np.int64))
            for layer, got, want in zip(qgraph.layers, found, signals, strict=True):
                differ = int((got[:, index].swapaxes(0, 1) != want.output).sum())
                assert differ == 0, f"{name}, {layer.name}: {differ} of {want.output.size} differ"
                saturated += int(
                    (want.output == layer.output.low).sum() + (want.output == layer.output.high).sum()
                )
    if name.startswith("narrow"):
        assert saturated > 100


def test_compiled_codes_are_those_of_the_reference_after_updates_of_the_weights() -> None:
    """The scales hold through an epoch, the codes of the weights follow: a second epoch begins with them."""
    trained = trainer("tflm", (4,))
    before = [np.asarray(weight) for weight in trained.weights]
    trained.epoch(np.full(3, 0.05))
    assert all((a != np.asarray(b)).any() for a, b in zip(before, trained.weights, strict=True))
    first = trained.constants
    losses = trained.validate()
    assert any(
        (a["kernel_scale"].numpy() != b["kernel_scale"].numpy()).any()
        for a, b in zip(first, trained.constants, strict=True)
    )
    part = [integer_loss(q, s) for q, s in zip(trained.qgraphs, trained.train, strict=True)]
    compiled = trained.loss(trained.train)  # float32 sums of the same outputs
    np.testing.assert_allclose(compiled, part, rtol=1e-5)
    assert (losses != part).all()


def test_the_gradient_is_that_of_the_float_network() -> None:
    """Of 16-bit codes within their ranges: only rounding differs."""
    tf, trained = load_tensorflow(), trainer("int16x8", (5, 3), noise=1.0)
    batch = make_batch(trained.train, np.tile(np.arange(8), (3, 1)))
    decoded = np.stack([q.input.decode(batch.inputs[:, n]) for n, q in enumerate(trained.qgraphs)], axis=1)
    slope = tf.constant(np.random.default_rng(0).normal(size=batch.targets.shape).astype(np.float32))
    weights = [tf.constant(weight) for weight in trained.weights]
    shapes = shapes_of(trained.graphs[0])
    _, kept = forward(shapes, weights, tf.constant(decoded.astype(np.float32)), (None,) * 3)
    _, pull = trained._stack.run(weights, trained.constants, tf.constant(batch.inputs), ())
    for ours, theirs in zip(pull(slope), gradients(shapes, weights, kept, slope), strict=True):
        for network_index in range(3):
            a, b = ours[network_index].numpy(), theirs[network_index].numpy()
            assert np.linalg.norm(a - b) < 0.03 * np.linalg.norm(b)  # int8 weights: 1/254 of the largest each


def test_no_gradient_passes_a_code_that_saturates() -> None:
    tf = load_tensorflow()
    trained = trainer("narrow ranges", (4,))
    batch = make_batch(trained.train, np.tile(np.arange(14), (3, 1)))
    weights = [tf.constant(weight) for weight in trained.weights]
    codes = trained._stack.codes(weights, trained.constants, tf.constant(batch.inputs))[0][-1].numpy()
    cut = (codes == 127) | (codes == -128)
    assert cut.any() and not cut.all()
    _, pull = trained._stack.run(weights, trained.constants, tf.constant(batch.inputs), ())
    slope = tf.constant(cut.astype(np.float32))
    edge = [np.abs(gradient.numpy()).max() for gradient in pull(slope)]
    whole = [np.abs(gradient.numpy()).max() for gradient in pull(tf.ones_like(slope))]
    assert max(edge) < 0.2 * max(whole)  # codes that just reach the end are not cut


@pytest.mark.parametrize(("name", "share"), [("tflm", 0.99), ("int4", 0.9)])
def test_training_in_integers_lowers_their_loss_and_the_file_has_it(name: str, share: float) -> None:
    graphs = [network(seed, (4,)) for seed in range(3)]
    tasks = [task(graph, seed, 1.0) for seed, graph in enumerate(graphs)]
    streams = [stream(seed) for seed in range(3)]
    config = FinetuneConfig(epochs=8, learning_rate=0.001 if name == "tflm" else 0.005, patience=0)
    results = finetune_many(tasks, streams, CONFIGS[name], config, TRAINING)
    better = 0
    for own, calibration, result in zip(tasks, streams, results, strict=True):
        for graph, key in ((own.graph, "before"), (result.graph, "after")):
            qgraph = quantize(graph, calibration, CONFIGS[name])
            inputs = qgraph.input.encode(own.validation.inputs).astype(np.float32)
            assert integer_loss(qgraph, replace(own.validation, inputs=inputs)) == result.losses[key]
        assert result.losses["after"] <= result.losses["before"]
        better += result.losses["after"] < share * result.losses["before"]
    assert better >= 2
    again = finetune_many(tasks, streams, CONFIGS[name], config, TRAINING)
    assert [r.losses for r in again] == [r.losses for r in results]


def test_a_training_that_only_harms_returns_the_network_that_came() -> None:
    graph = network(1)
    [result] = finetune_many(
        [task(graph, 1, 1.0)], [stream(1)], CONFIGS["tflm"],
        FinetuneConfig(epochs=2, learning_rate=3.0), TRAINING,
    )  # fmt: skip
    assert result.losses["after"] == result.losses["before"] < min(result.history["validation_loss"])
    for before, after in zip(plain_layers(graph), plain_layers(result.graph), strict=True):
        assert all((a == b).all() for a, b in zip(layer_weights(before), layer_weights(after), strict=True))


def test_weights_that_were_pruned_stay_zero() -> None:
    graph = network(2)
    first = graph.layers[0]
    assert isinstance(first, Lstm)
    kernel = np.where(np.abs(first.kernel) < 0.4, 0, first.kernel)
    graph = replace(graph, layers=(replace(first, kernel=kernel), graph.layers[1]))
    [result] = finetune_many(
        [task(graph, 2)],
        [stream(2)],
        CONFIGS["int4"],
        FinetuneConfig(epochs=6, learning_rate=0.003),
        TRAINING,
    )
    found = result.graph.layers[0]
    assert isinstance(found, Lstm) and ((found.kernel == 0) == (kernel == 0)).all()
    assert (found.kernel != kernel).any()
    codes = quantize(result.graph, stream(2), CONFIGS["int4"]).layers[1].kernel  # type: ignore[union-attr]
    assert (codes.transpose(2, 0, 1).reshape(kernel.shape)[kernel == 0] == 0).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_many_networks_are_quantized_as_one_is(name: str) -> None:
    graphs, streams = [network(s, (5, 3)) for s in range(2)], [stream(s, 200 + 50 * s) for s in range(2)]
    for graph, calibration, many in zip(
        graphs, streams, quantize_many(graphs, streams, CONFIGS[name]), strict=True
    ):
        one = quantize(graph, calibration, CONFIGS[name])
        for a, b in zip(one.layers, many.layers, strict=True):
            assert type(a) is type(b) and a.output == b.output
            for part in (
                "kernel",
                "recurrent_kernel",
                "bias",
                "kernel_scales",
                "recurrent_scales",
                "row_scales",
            ):
                if hasattr(a, part):
                    assert (getattr(a, part) == getattr(b, part)).all(), (a.name, part)
        assert one.input == many.input


def test_other_layers_are_refused() -> None:
    lstm = network(0).layers[0]
    assert isinstance(lstm, Lstm)
    graph = replace(network(0), layers=(replace(lstm, coupled=True), network(0).layers[1]))
    with pytest.raises(UnsupportedModel, match="coupled gates"):
        IntegerTrainer([replace(task(network(0), 0), graph=graph)], [stream(0)], CONFIGS["litert"], TRAINING)


def test_options_out_of_their_range_come_at_once() -> None:
    with pytest.raises(ConfigError, match=r"fine-tuning options: 4 problems(\n  - .*){4}$"):
        FinetuneConfig(epochs=-1, learning_rate=0.0, patience=1.5, seed=-1)  # type: ignore[arg-type]
    assert FinetuneConfig.from_mapping(FinetuneConfig(epochs=3).to_mapping()) == FinetuneConfig(epochs=3)


def test_a_model_file_is_trained_on_and_quantized_with_the_same_options(
    tmp_path: Path, pump_csv: Path, pump_keras: Path
) -> None:
    runner, out = CliRunner(), tmp_path / "tuned.keras"
    options = ["--data", pump_csv, "--profile", "native", "--weights", "int4"]
    result = runner.invoke(
        main, [str(a) for a in ("finetune", pump_keras, "-o", out, "--epochs", 3, *options)]
    )
    assert result.exit_code == 0, result.output
    assert "next: edge-lstm quantize with --profile native --scheme int8 --weights int4" in result.output
    tuned = read_keras(out)
    made = tuned.made["finetune"]
    assert made["losses"]["after"] < made["losses"]["before"]
    assert made["quantize"]["weights"] == "int4" and made["options"]["epochs"] == 3
    qgraph = quantize_file(out, pump_csv, tmp_path / "m.tflite", CONFIGS["int4"]).qgraph
    training = TrainConfig.from_mapping(tuned.made["train"])
    prepared = prepare(read_csv(pump_csv), training, tuned.stream, tuned.predictor)
    windows = prepared.validation
    windows = replace(windows, inputs=qgraph.input.encode(windows.inputs).astype(np.float32))
    assert integer_loss(qgraph, windows, huber=True) == made["losses"]["after"]


def test_a_model_of_other_people_and_a_wrong_output_are_refused(tmp_path: Path, pump_csv: Path) -> None:
    foreign = tmp_path / "theirs.keras"
    with warnings.catch_warnings():  # Keras 3.15 reads its variables as NumPy 2 warns not to
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        build(TrainConfig(units=(3,)), 5).save(foreign)
    for out, words in (
        ("m.tflite", "a float model is a .keras file"),
        ("m.keras", "carries no training options"),
    ):
        arguments = ["finetune", foreign, "--data", pump_csv, "-o", tmp_path / out]
        result = CliRunner().invoke(main, [str(a) for a in arguments])
        assert result.exit_code == 1 and words in result.output
        assert not (tmp_path / out).exists()
