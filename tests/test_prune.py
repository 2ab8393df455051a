"""Pruning: exact counts, exact patterns, nothing that comes back, and units whose loss changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.datasets.dataset import Dataset
from edge_lstm.errors import ConfigError, DataError, ModelError
from edge_lstm.graph import Channel, Dense, Graph, Lstm, Stream
from edge_lstm.importers.keras_model import read_keras
from edge_lstm.reference import floating
from edge_lstm.training.config import PruneConfig, TrainConfig
from edge_lstm.training.fit import Task, prepare
from edge_lstm.training.model import get_weights, layer_weights, save
from edge_lstm.training.prune import Pruned, prune, prune_many
from edge_lstm.training.removal import (
    block_mask,
    element_mask,
    kept_units,
    masks,
    remove_units,
    sparsity_at,
    unit_importance,
)

TRAIN = TrainConfig(
    linear=False,
    updates=0,
    loss="mse",
    units=(7, 6),
    timesteps=12,
    stride=12,
    burn_in=2,
    epochs=1,
    batch_size=8,
)
FAST = PruneConfig(sparsity=0.5, steps=2, epochs=3, learning_rate=0.01)


def waves(rows: int = 300) -> Dataset:
    rng = np.random.default_rng(0)
    phase = np.cumsum(0.3 + 0.1 * rng.random(rows))
    values = np.stack([np.sin(phase - lag) for lag in range(5)], axis=1) + rng.normal(0, 0.05, (rows, 5))
    return Dataset(
        tuple("abcde"), ("",) * 5, values, np.ones(values.shape, np.bool_), np.zeros(rows, np.bool_), None,
        np.arange(rows) * 1.0,
    )  # fmt: skip


def random_graph(seed: int = 0, units: tuple[int, ...] = (7, 6), dense: bool = True) -> Graph:
    """Odd sizes, biases that are not 0, training options as ``fit`` writes them."""
    rng = np.random.default_rng(seed)
    layers: list[Lstm | Dense] = []
    features = 5
    for index, size in enumerate(units):
        shapes = (features, 4 * size), (size, 4 * size), 4 * size
        layers.append(Lstm(f"lstm_{index + 1}", *(rng.normal(0, 0.4, shape) for shape in shapes)))
        features = size
    if dense:
        layers.append(Dense("dense", rng.normal(0, 0.4, (features, 5)), rng.normal(0, 0.4, 5)))
    stream = Stream(tuple(Channel(name) for name in "abcde"))
    return Graph("random", tuple(layers), stream, {"train": TRAIN.to_mapping(), "history": {"loss": [1.0]}})


def matrices(graph: Graph) -> list[Any]:
    return [array for layer in graph.layers for array in layer_weights(layer) if array.ndim == 2]


@pytest.fixture(scope="module")
def pruned() -> dict[str, Pruned]:
    return {
        method: prune(random_graph(), waves(), replace(FAST, method=method))
        for method in ("element", "block", "units")
    }


@pytest.mark.parametrize("sparsity", [0.0, 0.01, 0.3, 0.5, 0.77, 0.99])
@pytest.mark.parametrize("shape", [(1, 1), (5, 28), (7, 24), (13, 3)])
def test_element_removes_exactly_the_smallest(shape: tuple[int, int], sparsity: float) -> None:
    weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    kept = element_mask(weights, sparsity)
    assert (~kept).sum() == round(sparsity * weights.size)
    if kept.any() and not kept.all():
        assert np.abs(weights[~kept]).max() <= np.abs(weights[kept]).min()


def test_element_breaks_ties_in_order() -> None:
    assert element_mask(np.full((2, 3), -1.0), 0.5).tolist() == [[False] * 3, [True] * 3]


def blocks_of(mask: Any, gates: int) -> list[Any]:
    """Four features of one unit in all its gates."""
    rows, columns = mask.shape
    units = mask.reshape(rows, gates, columns // gates)
    return [
        units[start : start + 4, :, unit] for unit in range(units.shape[2]) for start in range(0, rows, 4)
    ]


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.77, 0.99])
@pytest.mark.parametrize("gates", [1, 4])
@pytest.mark.parametrize("shape", [(1, 4), (3, 8), (4, 20), (5, 28), (8, 4), (13, 12)])
def test_block_removes_the_weakest_blocks(shape: tuple[int, int], gates: int, sparsity: float) -> None:
    weights = np.random.default_rng(2).normal(size=shape).astype(np.float32)
    mask = block_mask(weights, sparsity, gates)
    blocks = blocks_of(mask, gates)
    assert all(block.all() or not block.any() for block in blocks)
    half = 2 * gates  # of a block: the nearer of two neighbours
    assert abs((~mask).sum() - sparsity * weights.size) <= half
    energy = [np.mean(np.square(block, dtype=np.float64)) for block in blocks_of(weights, gates)]
    gone = [value for value, block in zip(energy, blocks, strict=True) if not block.any()]
    stays = [value for value, block in zip(energy, blocks, strict=True) if block.all()]
    assert max(gone, default=0) <= min(stays, default=np.inf)


def test_a_block_by_hand() -> None:
    weights = np.array([[9, 1], [9, 1], [0, 1], [0, 1], [5, 0.5]], dtype=np.float32)
    mask = block_mask(weights, 0.5)  # of 10 weights: the tail of 1 and the block of 4 in column 1
    assert mask.tolist() == [[True, False]] * 5
    # units 0 and 1 of gate 0, then of gate 1
    gates = np.array([[1, 9, 0, 0], [1, 0, 0, 0]], dtype=np.float32)
    assert block_mask(gates, 0.5, 2).tolist() == [[False, True, False, True]] * 2


def test_the_masks_of_a_rising_sparsity_contain_each_other() -> None:
    steps = [sparsity_at(step, 8, 0.8) for step in range(8)]
    assert steps == sorted(steps) and steps[-1] == 0.8 and steps[0] == pytest.approx(0.8 * (1 - 0.875**3))
    assert sparsity_at(0, 1, 0.4) == 0.4
    for method in ("element", "block", "units"):
        graph = random_graph(4)
        before = [np.ones_like(m) for m in masks(graph, method, 0.0)]
        for sparsity in steps:
            after = masks(graph, method, sparsity)
            assert all((b <= a).all() for a, b in zip(before, after, strict=True)), method
            weights = [array for layer in graph.layers for array in layer_weights(layer)]
            graph = with_weights(graph, [w * m for w, m in zip(weights, after, strict=True)])
            before = after


def with_weights(graph: Graph, weights: list[Any]) -> Graph:
    rest = iter(weights)
    layers = tuple(
        type(layer)(layer.name, *(next(rest) for _ in layer_weights(layer))) for layer in graph.layers
    )
    return replace(graph, layers=layers)


@pytest.mark.parametrize("method", ["element", "block"])
def test_the_requested_sparsity_survives_fine_tuning(pruned: dict[str, Pruned], method: str) -> None:
    result = pruned[method]
    kernels = [
        (array, 4 if isinstance(layer, Lstm) else 1)
        for layer in result.graph.layers
        for array in layer_weights(layer)
        if array.ndim == 2
    ]
    for kernel, gates in kernels:
        tolerance = 0.5 if method == "element" else 2 * gates
        assert abs((kernel == 0).sum() - 0.5 * kernel.size) <= tolerance
        if method == "block":
            assert all(b.all() or not b.any() for b in blocks_of(kernel != 0, gates))
    for layer in result.graph.layers:
        assert (layer.bias != 0).all()
    keras_weights = [w for w in get_weights(result.model) if w.ndim == 2]
    assert all((a == b).all() for a, b in zip(keras_weights, matrices(result.graph), strict=True))


def test_fine_tuning_moves_what_was_kept(pruned: dict[str, Pruned]) -> None:
    cut = prune(random_graph(), waves(), replace(FAST, method="element", epochs=0))
    assert cut.report.loss_after == cut.report.loss_pruned == pruned["element"].report.loss_pruned
    assert pruned["element"].report.loss_after < cut.report.loss_after
    for before, after in zip(matrices(random_graph()), matrices(cut.graph), strict=True):
        assert (after[after != 0] == before[after != 0]).all()


def test_units_shrink_the_matrices(pruned: dict[str, Pruned]) -> None:
    first, second, head = pruned["units"].graph.layers
    assert first.kernel.shape == (5, 12) and second.kernel.shape == (3, 12) and head.kernel.shape == (3, 5)
    assert isinstance(first, Lstm) and first.recurrent_kernel.shape == (3, 12) and first.bias.shape == (12,)
    report = pruned["units"].report
    assert report.total.parameters_before == 5 * 28 + 7 * 28 + 28 + 7 * 24 + 6 * 24 + 24 + 6 * 5 + 5
    assert report.total.parameters_after == 5 * 12 + 3 * 12 + 12 + 3 * 12 + 3 * 12 + 12 + 3 * 5 + 5
    assert report.total.bytes_after == report.total.parameters_after + 3 * (12 + 12 + 5)
    x = np.random.default_rng(3).normal(size=(1, 30, 5)).astype(np.float32)
    ours, _ = floating.run(pruned["units"].graph, x)
    np.testing.assert_allclose(ours, pruned["units"].model(x).numpy(), atol=1e-5)


def test_the_report_counts_what_is_in_the_graph(pruned: dict[str, Pruned]) -> None:
    for method, result in pruned.items():
        report = result.report.to_mapping()
        assert [row["name"] for row in report["layers"]] == ["lstm_1", "lstm_2", "dense"]
        for key in ("parameters_before", "parameters_after", "bytes_before", "bytes_after", "nonzero_after"):
            assert report[key] == sum(row[key] for row in report["layers"]), (method, key)
        nonzero = sum(int((kernel != 0).sum()) for kernel in matrices(result.graph))
        dense = sum(kernel.size for kernel in matrices(random_graph()))
        assert report["sparsity"] == 1 - nonzero / dense
        assert report["loss_before"] == pruned["element"].report.loss_before
        if method != "units":
            assert report["parameters_after"] == report["parameters_before"]
        made = result.graph.made
        assert made["prune"]["report"] == report and made["history"] == {"loss": [1.0]}
        assert made["figures"]["windows"]["validation"] == report["loss_after"]


def test_removing_units_whose_weights_are_zero_changes_no_output() -> None:
    full = random_graph(6)
    first = full.layers[0]
    assert isinstance(first, Lstm)
    dead = np.zeros(7, np.bool_)
    dead[[0, 3, 6]] = True
    columns = np.tile(dead, 4)
    kernel, recurrent, bias = (np.array(a) for a in layer_weights(first))
    kernel[:, columns] = recurrent[:, columns] = bias[columns] = 0
    recurrent[dead] = 0
    graph = replace(full, layers=(Lstm("lstm_1", kernel, recurrent, bias), *full.layers[1:]))
    kept = kept_units(graph, 3 / 7)
    assert (kept[0] == ~dead).all()
    small = remove_units(graph, [kept[0], None, None])
    x = np.random.default_rng(3).normal(size=(2, 40, 5))
    before, after = floating.run(graph, x)[0], floating.run(small, x)[0]
    np.testing.assert_allclose(after, before, atol=1e-12)  # the same sums, in another order
    assert small.layers[0].outputs == 4


@pytest.mark.parametrize("what", ["nobody reads it", "nothing enters its cell"])
def test_a_unit_without_effect_has_no_importance(what: str) -> None:
    graph = random_graph(7, (4,))
    lstm, dense = graph.layers
    assert isinstance(lstm, Lstm) and isinstance(dense, Dense)
    kernel, recurrent, bias = (np.array(a) for a in layer_weights(lstm))
    head = np.array(dense.kernel)
    if what == "nobody reads it":
        recurrent[2], head[2] = 0, 0
    else:
        kernel[:, 8 + 2] = recurrent[:, 8 + 2] = bias[8 + 2] = 0
    graph = replace(graph, layers=(Lstm("l", kernel, recurrent, bias), Dense("d", head, dense.bias)))
    assert (unit_importance(*graph.layers) == 0).tolist() == [False, False, True, False]  # type: ignore[arg-type]
    kept = kept_units(graph, 0.25)
    assert kept[1] is None and kept[0] is not None and kept[0].tolist() == [True, True, False, True]
    x = np.random.default_rng(3).normal(size=(1, 40, 5))
    np.testing.assert_allclose(
        floating.run(remove_units(graph, kept), x)[0], floating.run(graph, x)[0], atol=1e-12
    )


def test_one_unit_always_stays() -> None:
    kept = kept_units(random_graph(0, (1, 3)), 0.99)
    assert [None if k is None else int(k.sum()) for k in kept] == [1, 1, None]


def test_outputs_are_never_removed() -> None:
    graph = random_graph(0, (4, 5), dense=False)
    kept = kept_units(graph, 0.5)
    assert kept[1] is None and kept[0] is not None and kept[0].sum() == 2
    assert remove_units(graph, kept).outputs == 5


def test_a_network_can_be_pruned_twice(pruned: dict[str, Pruned], tmp_path: Path) -> None:
    """And from its file."""
    path = tmp_path / "half.keras"
    element = pruned["element"]
    save(element.model, element.graph.stream, element.graph.made, path)
    read = read_keras(path)
    assert all((a == b).all() for a, b in zip(matrices(read), matrices(element.graph), strict=True))
    twice = prune(read, waves(), replace(FAST, method="units", sparsity=0.2, epochs=1, steps=1))
    assert [layer.outputs for layer in twice.graph.layers] == [6, 5, 5]
    first = matrices(twice.graph)[0]
    assert (first == 0).sum() >= 0.3 * first.size  # zeros of the first pruning stay


def test_equal_input_prunes_equally(pruned: dict[str, Pruned]) -> None:
    again = prune(random_graph(), waves(), replace(FAST, method="block"))
    assert all(
        (a == b).all() for a, b in zip(matrices(again.graph), matrices(pruned["block"].graph), strict=True)
    )


def test_progress_counts_epochs() -> None:
    shown: list[tuple[int, int]] = []
    prune(
        random_graph(units=(2,)),
        waves(),
        replace(FAST, method="element"),
        lambda a, b, _: shown.append((a, b)),
    )
    assert shown == [(1, 3), (2, 3), (3, 3)]


def test_a_network_without_training_options_is_refused() -> None:
    foreign = replace(random_graph(), made={})
    with pytest.raises(
        ModelError, match="carries no training options, so it cannot be trained on; give a .keras"
    ):
        prune(foreign, waves(), FAST)
    damaged = replace(random_graph(), made={"train": {"units": [0]}})
    with pytest.raises(
        ModelError, match=r"model 'random': training options: units is \(0,\).*; train it again"
    ):
        prune(damaged, waves(), FAST)


def test_another_recording_is_refused() -> None:
    whole = waves()
    other = replace(
        whole, names=("a",), units=("",), values=whole.values[:, :1], present=whole.present[:, :1]
    )
    with pytest.raises(
        DataError, match="was trained on the channels a, b, c, d, e, the dataset has a; give it"
    ):
        prune(random_graph(), other, FAST)


def test_units_that_are_the_outputs_are_refused() -> None:
    graph = random_graph(units=(5,), dense=False)
    with pytest.raises(
        ModelError, match="the units of its only LSTM 'lstm_1' are the outputs.*element or block"
    ):
        prune(graph, waves(), replace(FAST, method="units"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "rows"}, "method is 'rows', expected one of element, block, units"),
        ({"schedule": "cosine"}, "schedule is 'cosine', expected one of polynomial, constant"),
        ({"sparsity": 1.0}, "sparsity is 1.0, expected a number of 0 or more and below 1"),
        ({"steps": 0}, "steps is 0, expected a whole number of 1 or more"),
        ({"epochs": -1}, "epochs is -1, expected a whole number of 0 or more"),
        (
            {"epochs": 3},
            "steps is 8 and epochs 3: the weights would never all be removed; raise epochs or lower",
        ),
        ({"learning_rate": 0}, "learning_rate is 0, expected a number above 0"),
        ({"seed": -1}, "seed is -1, expected a whole number from 0"),
    ],
)
def test_a_pruning_option_out_of_its_range_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PruneConfig(**options)
    with pytest.raises(ConfigError, match="pruning options: 2 problems"):
        PruneConfig(**{**options, **({"seed": 1.5} if "seed" not in options else {"steps": 0})})


@pytest.mark.parametrize("method", ["element", "units"])
def test_networks_pruned_side_by_side_are_those_pruned_alone(method: str) -> None:
    prepared = prepare(waves(), TRAIN)
    windows = prepared.train, prepared.validation
    tasks = [Task(random_graph(seed), *windows, seed) for seed in (0, 1, 2)]
    config = replace(FAST, method=method)
    together = prune_many(tasks, config, TRAIN)
    for task, result in zip(tasks[:2], together[:2], strict=True):
        [alone] = prune_many([task], config, TRAIN)
        for a, b in zip(matrices(result.graph), matrices(alone.graph), strict=True):
            assert a.shape == b.shape and ((a == 0) == (b == 0)).all()
            np.testing.assert_allclose(a, b, atol=1e-4)  # float32 sums of another batch size
    assert set(together[0].losses) == {"before", "pruned", "train", "validation"}
