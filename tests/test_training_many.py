"""Many networks in one program: gradients, optimizer, and that none knows of its neighbours."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edge_lstm.errors import DataError, ModelError, RuntimeFailure
from edge_lstm.graph import Graph, Lstm, Stream
from edge_lstm.training import adam
from edge_lstm.training.config import TrainConfig
from edge_lstm.training.fit import FitResult, Task, fit_many, fresh_graph
from edge_lstm.training.model import from_graph, layer_weights, load_keras, load_tensorflow, plain_layers
from edge_lstm.training.optimise import optimise
from edge_lstm.training.samples import Samples, Shuffles, in_order, make_batch
from edge_lstm.training.stack import forward, gradients, shapes_of, stack_weights
from edge_lstm.training.trainer import Floating, Trainer
from test_training import Script

CONFIG = TrainConfig(
    linear=False,
    updates=0,
    loss="mse",
    units=(5, 4),
    timesteps=12,
    burn_in=2,
    batch_size=4,
    epochs=4,
    learning_rate=0.02,
)
FEATURES, OUTPUTS = 3, 2


def samples(seed: int, windows: int = 12) -> Samples:
    """Targets that are a delayed mixture of the inputs, some without weight."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, FEATURES)).astype(np.float32)
    targets = np.roll(x, 1, axis=0) @ rng.normal(size=(FEATURES, OUTPUTS))
    weights = rng.random(targets.shape) < 0.8
    return Samples(x, targets, weights, 6 * np.arange(windows), CONFIG.timesteps, CONFIG.burn_in)  # type: ignore[arg-type]


def task(seed: int, windows: int = 12) -> Task:
    graph = fresh_graph(replace(CONFIG, seed=seed), Stream.unnamed(FEATURES), OUTPUTS, f"net{seed}")
    return Task(graph, samples(seed, windows), samples(seed + 50, 5), seed)


def arrays(graph: Graph) -> list[Any]:
    return [array for layer in plain_layers(graph) for array in layer_weights(layer)]


def test_the_gradient_of_every_network_is_that_of_keras() -> None:
    tf, tasks = load_tensorflow(), [task(seed) for seed in range(3)]
    trainer = Trainer(
        [t.graph for t in tasks], [t.train for t in tasks], [t.train for t in tasks], CONFIG, [0] * 3
    )
    batch = make_batch(trainer.train, np.arange(12).reshape(3, 4))
    weights = [tf.constant(weight) for weight in trainer.weights]
    outputs, pull = Floating(trainer.shapes).run(weights, (), tf.constant(batch.inputs), (None,) * 3)
    ours = pull(batch.weights * 2 * (outputs - batch.targets))
    for network, own in enumerate(tasks):
        model = from_graph(own.graph, CONFIG)
        x, y, w = (np.moveaxis(array[:, network], 0, 1) for array in batch)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(w * tf.square(model(x) - y))
        theirs = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a[network], b, rtol=1e-4, atol=1e-5)  # float32 sums in another order


def test_the_gradient_under_dropout_and_of_the_inputs_is_that_of_the_forward_pass() -> None:
    """A stack of two, whose lower layer needs the gradient of the upper one's inputs."""
    tf, rng = load_tensorflow(), np.random.default_rng(0)
    shapes = shapes_of(task(1).graph)
    weights = [tf.constant(weight) for weight in stack_weights([task(1).graph, task(2).graph])]
    masks = [
        tf.constant((rng.random((2, 4, s.features + s.outputs)) < 0.6).astype(np.float32) / 0.6)
        if s.kind == "lstm"
        else None
        for s in shapes
    ]
    x = tf.constant(rng.normal(size=(6, 2, 4, FEATURES)).astype(np.float32))
    slope = tf.constant(rng.normal(size=(6, 2, 4, OUTPUTS)).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(weights)
        outputs, kept = forward(shapes, weights, x, masks)
        total = tf.reduce_sum(outputs * slope)
    for ours, theirs in zip(
        gradients(shapes, weights, kept, slope), tape.gradient(total, weights), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_adamw_moves_weights_as_keras_does_each_network_at_its_rate() -> None:
    keras, tf, rng = load_keras(), load_tensorflow(), np.random.default_rng(0)
    start = [rng.normal(size=shape).astype(np.float32) for shape in ((2, 3, 4), (2, 4))]
    slopes = [[rng.normal(size=a.shape).astype(np.float32) for a in start] for _ in range(4)]
    rates = np.array([0.1, 0.003], np.float32)
    ours: list[Any] = [tf.constant(a) for a in start]
    state = adam.start(ours)
    for step in slopes:
        ours, state = adam.update(ours, adam.clipped([tf.constant(s) for s in step], 0.5), state, rates, 0.1)
    for network, rate in enumerate(rates):
        names = ("kernel", "bias")
        theirs = [keras.Variable(a[network], name=n) for a, n in zip(start, names, strict=True)]
        optimizer = keras.optimizers.AdamW(float(rate), weight_decay=0.1, global_clipnorm=0.5)
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.build(theirs)
        for step in slopes:
            optimizer.apply_gradients(zip([tf.constant(s[network]) for s in step], theirs, strict=True))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(np.asarray(a)[network], b.numpy(), rtol=1e-5, atol=1e-6)


def assert_same(a: FitResult, b: FitResult) -> None:
    assert a.history == b.history and a.losses == b.losses
    assert all((x == y).all() for x, y in zip(arrays(a.graph), arrays(b.graph), strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_equal_seeds_give_equal_networks_whoever_their_neighbours_are(dropout: float) -> None:
    config = replace(CONFIG, dropout=dropout, recurrent_dropout=dropout, epochs=2)
    together = fit_many([task(1), task(2), task(3)], config)
    again = fit_many([task(1), task(2), task(3)], config)
    swapped = fit_many([task(3), task(2), task(4)], config)
    for a, b in zip(together, again, strict=True):
        assert_same(a, b)
    assert_same(together[1], swapped[1])
    assert_same(together[2], swapped[0])
    assert [r.graph.name for r in together] == ["net1", "net2", "net3"]
    assert together[0].losses != together[1].losses


def test_each_network_learns_its_own_task() -> None:
    tasks = [task(seed, windows) for seed, windows in ((1, 30), (2, 12), (3, 5))]
    tasks = [replace(own, validation=own.train) for own in tasks]
    results = fit_many(tasks, replace(CONFIG, epochs=40, learning_rate=0.05, patience=0))
    for result in results:
        assert result.losses["train"] < 0.6 * result.history["loss"][0]
        assert result.losses["validation"] == pytest.approx(min(result.history["validation_loss"]), rel=1e-5)


def test_each_network_stops_and_keeps_its_best_epoch_by_itself() -> None:
    script = Script([3.0, 1.0, 2.0, 2.0, 0.5], [5.0, 4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 3.0, 0.1, 0.1])
    shown: list[Any] = []
    histories = optimise(script, 5, lambda *_: 0.1, patience=2, progress=lambda *line: shown.append(line))
    assert script.weights[0][:, 0].tolist() == [2.0, 5.0, 1.0]
    assert [len(history["loss"]) for history in histories] == [4, 5, 3]
    assert [list(rates) for rates in script.rates][3] == [0.1, 0.1, 0.0]
    assert shown[3] == (4, 5, "loss 1 validation 1.367 (2 of 3 stopped)")


def test_a_plateau_is_each_networks_own() -> None:
    script = Script([3.0, 2.0], [2.0, 3.0])
    optimise(script, 2, lambda epoch, losses: 0.1 / (1 + epoch) if losses == [2.0] else 0.1)
    assert list(script.rates[1]) == [0.1, 0.05]


def test_the_weights_that_came_are_kept_where_no_epoch_is_better() -> None:
    script = Script([3.0, 2.0], [2.0, 3.0])
    optimise(script, 2, lambda *_: 0.1, start=np.array([1.0, 2.5]))
    assert script.weights[0][:, 0].tolist() == [0.0, 1.0]


def test_the_network_that_diverged_is_named() -> None:
    with pytest.raises(
        RuntimeFailure, match="training of network 2 diverged in epoch 1: loss 1.0, validation loss"
    ):
        optimise(Script([1.0], [math.nan]), 1, lambda *_: 0.1)


def test_networks_of_different_shapes_are_refused() -> None:
    other = replace(
        task(2), graph=fresh_graph(replace(CONFIG, units=(5,)), Stream.unnamed(FEATURES), OUTPUTS, "odd")
    )
    with pytest.raises(ModelError, match="model 'odd' has other layers than 'net1'; .* train them in groups"):
        fit_many([task(1), other], CONFIG)


def test_a_pass_in_order_counts_every_window_once() -> None:
    parts = [samples(0, 12), samples(1, 5)]
    batches = in_order(parts, 4)
    assert [sorted(int(w) for b in batches for w in b[n] if w >= 0) for n in (0, 1)] == [
        list(range(12)),
        list(range(5)),
    ]
    last = make_batch(parts, batches[1])
    assert not last.weights[:, 1, 1:].any() and last.weights[:, 1, 0].any()
    assert not last.weights[: CONFIG.burn_in].any() and last.weights[CONFIG.burn_in, 0].any()


def test_an_epoch_shows_each_window_and_draws_those_of_a_shorter_recording_again() -> None:
    shuffles = Shuffles([samples(0, 12), samples(1, 5)], 4, [3, 4])
    first, second = shuffles.epoch(), shuffles.epoch()
    assert len(first) == 3 and first[0].shape == (2, 4)
    drawn = np.stack(first, axis=1).reshape(2, -1)
    assert sorted(drawn[0]) == list(range(12))
    assert set(np.bincount(drawn[1])) == {2, 3} and sorted(drawn[1][:5]) == list(range(5))
    assert (np.stack(first) != np.stack(second)).any()


def test_samples_that_do_not_fit_are_refused() -> None:
    good = samples(0)
    with pytest.raises(DataError, match=r"targets \(200, 2\) and weights \(200, 1\); expected"):
        replace(good, weights=good.weights[:, :1])
    with pytest.raises(DataError, match="199 rows of targets"):
        replace(good, targets=good.targets[:199], weights=good.weights[:199])
    with pytest.raises(
        DataError, match="the last starts at row 190 and has 12 steps, but there are 200 rows"
    ):
        replace(good, starts=np.array([0, 190]))
    with pytest.raises(DataError, match="there are none; give more rows or lower timesteps"):
        replace(good, starts=np.array([], np.int64))


def test_results_are_plain_graphs() -> None:
    [result] = fit_many([task(1)], replace(CONFIG, epochs=1))
    first = result.graph.layers[0]
    assert isinstance(first, Lstm) and first.kernel.dtype == np.float32 and first.kernel.shape == (3, 20)
    assert result.graph.outputs == OUTPUTS and set(result.losses) == {"train", "validation"}
