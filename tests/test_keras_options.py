"""Options of Keras layers that change what a layer computes are read or refused, never ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_lstm.errors import ModelError
from edge_lstm.importers.keras_model import read_keras
from keras_models import WARNING, Edit, call, changed, edited, functional, keras_module, saved

pytestmark = pytest.mark.filterwarnings(WARNING)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A chain of layers that are carried: l, c, b, n and d."""
    keras = keras_module()
    k = keras.layers
    layers = [
        k.LSTM(2, return_sequences=True, name="l"),
        k.Conv1D(2, 1, name="c"),
        k.Bidirectional(k.GRU(2, return_sequences=True), name="b"),
        k.Normalization(name="n"),
        k.RNN(k.GRUCell(2, name="cell"), name="r"),
        k.Reshape((2, 1), name="s"),
        k.Dense(1, name="d"),
    ]
    model = keras.Sequential([keras.Input((5, 3), name="start"), *layers])
    return saved(model, tmp_path_factory.mktemp("base")).read_bytes()


def option(name: str, **options: Any) -> dict[str, Edit | None]:
    """A change of the options of one layer."""

    def change(config: dict[str, Any]) -> None:
        names = [item["config"]["name"] for item in config["config"]["layers"]]
        config["config"]["layers"][names.index(name)]["config"].update(options)

    return {"config.json": edited(change)}


def entry(layer: int, **values: Any) -> dict[str, Edit | None]:
    return {"config.json": edited(lambda config: config["config"]["layers"][layer].update(values))}


def top(**values: Any) -> dict[str, Edit | None]:
    return {"config.json": edited(lambda config: config.update(values))}


POLICY = {"class_name": "QuantizedDTypePolicy", "config": {"name": "int8_from_float32"}}
FUNCTION = {"module": "builtins", "class_name": "function", "config": "mine", "registered_name": "mine"}

EDITED: dict[str, tuple[dict[str, Edit | None], str]] = {
    "an unknown option": (
        option("l", peephole=True),
        r"'l' \(LSTM\) has peephole=True, expected None; this version do",
    ),
    "channels first": (
        option("c", data_format="channels_first"),
        "has data_format='channels_first', expected channels",
    ),
    "time first": (
        option("l", time_major=True),
        "'l' .*has time_major=True, expected False; put the batch first",
    ),
    "low rank": (
        option("d", lora_rank=2),
        "'d' .*has lora_rank=2, expected None; merge the low-rank weights before",
    ),
    "sparse": (option("start", sparse=True), r"'start' \(InputLayer\) has sparse=True, .*give dense rows"),
    "policy": (
        option("d", dtype=POLICY),
        "'d' .*has dtype int8_from_float32, expected float32; quantize the float",
    ),
    "bfloat16": (option("d", dtype="bfloat16"), "'d' .*has dtype bfloat16, expected float32"),
    "function": (
        option("l", recurrent_activation=FUNCTION),
        "it has the activation 'mine', expected one of linear",
    ),
    "relation": (
        option("l", return_sequences=False),
        r"layer 'c' \(Conv1D\): it reads \(2\), expected \(timesteps, f",
    ),
    "a cell": (
        option("r", cell={"class_name": "Dense", "config": {"name": "q", "units": 2}}),
        "its cells are Dense, expected L",
    ),
    "no cell": (
        option("r", cell={"class_name": "StackedRNNCells", "config": {"name": "q", "cells": []}}),
        "its cells are none",
    ),
    "wrapped": (
        option("b", layer={"class_name": "Dense", "config": {"name": "q", "units": 2, "activation": "relu"}}),
        "it wraps Dense and GRU, expected recurrent layers",
    ),
    "variance": (
        option("n", mean=[1.0], variance=[-1.0]),
        "its variance is below 0 or not a number; adapt it again",
    ),
    "statistics": (
        option("n", mean=[1.0, 2.0], variance=[1.0]),
        r"it has numbers of shape \(2,\) for \(timesteps, 4\)",
    ),
    "shape": (
        option("s", target_shape=[0]),
        r"its shape is \[0\], expected sizes above 0 and at most one -1",
    ),
    "size": (
        option("s", target_shape=[3, 1]),
        r"it makes \[3, 1\] of \(2\), which is another number of values",
    ),
    "custom": (
        entry(1, module="mine", registered_name="mine>LSTM"),
        r"'l' \(LSTM\) is a class of its author: code of",
    ),
    "no features": (
        option("start", batch_shape=[None, None, None]),
        r"takes samples of shape \(None, None\), expected \(timesteps",
    ),
    "wide": (
        option("start", batch_shape=[None, 5, 1 << 30]),
        "takes 1073741824 features, expected at most 16384",
    ),
    "an open window": (
        option("start", batch_shape=[None, None, 3]),
        "its length is unknown; save the model with",
    ),
    "stateful": (option("l", stateful=True), "'l' .*is stateful, but the network gathers a window of 5 rows"),
    "class": (
        top(class_name="Network"),
        "it is of the class 'Network', expected Sequential or Functional; code of a",
    ),
}


@pytest.mark.parametrize("case", EDITED)
def test_an_option_that_changes_the_computation_is_refused(base: bytes, tmp_path: Path, case: str) -> None:
    change, message = EDITED[case]
    with pytest.raises(ModelError, match=message):
        read_keras(changed(base, tmp_path / "m.keras", change))


def test_the_chain_of_these_cases_is_read(base: bytes, tmp_path: Path) -> None:
    assert read_keras(changed(base, tmp_path / "m.keras", {})).window == 5


CONV = {"filters": 2, "kernel_size": [1], "strides": [1], "padding": "valid", "dilation_rate": [1],
        "activation": "tanh"}  # fmt: skip
GRID = {**CONV, "recurrent_activation": "tanh"}
FLAT = call("f", "x", kind="Reshape", target_shape=[5, 2, 1])
ROW = call("r", "x", kind="GetItem")
ROW["inbound_nodes"][0]["args"] += [[{"class_name": "__slice__", "config": {}}, 0]]
ROW["config"] = {"name": "r"}


def taken(*key: Any) -> dict[str, Any]:
    """x[:, key]"""
    item = call("o", "x", kind="GetItem")
    item["inbound_nodes"][0]["args"] += [[{"class_name": "__slice__", "config": {}}, *key]]
    return {**item, "config": {"name": "o"}}


STEP = {"class_name": "__slice__", "config": {"start": 0, "stop": 0}}
ORPHANS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "groups": ([call("o", "x", kind="Conv1D", groups=3, **CONV)], "groups of 'o' is 3"),
    "padding": ([FLAT, call("o", "f", kind="ConvLSTM1D", **{**GRID, "padding": "full"})], "of 'o' is 'full'"),
    "kernel": (
        [FLAT, call("o", "f", kind="ConvLSTM1D", **{**GRID, "kernel_size": [3]})],
        "the kernel of 'o' is longer than its input",
    ),
    "ranks": ([ROW, call("o", "x", "r", kind="Concatenate", axis=-1)], "'o' reads .timesteps, 2. and .2."),
    "shapes": ([call("f", "x", kind="Permute", dims=[2, 1]), call("o", "x", "f", kind="Add")],
               "it joins .timesteps, 2. and .2, timesteps., expected one shape"),
    "order": ([call("o", "x", kind="Permute", dims=[1, 1])], "it orders the axes as .0, 0., expected each"),
    "order of text": ([call("o", "x", kind="Permute", dims=[1, 3])], "it orders the axes as .0, 2."),
    "repeated rows": ([call("o", "x", kind="RepeatVector", n=5)], "'o' reads .timesteps, 2."),
    "score": (
        [ROW, call("q", "r", kind="Reshape", target_shape=[1, 2]),
         call("o", "q", "x", kind="Attention", use_scale=False, score_mode="sum")],
        "score_mode of 'o' is 'sum'",
    ),
    "many places": ([taken(0, 0, 0)], "'o' takes more axes than there are"),
    "squeezed": (
        [{**call("o", "x", kind="Squeeze"), "config": {"name": "o", "axis": 2}}], "it drops the axes .2. of"
    ),
    "no place": ([taken({"class_name": "__slice__", "config": {}}, STEP)], "'o' takes no feature"),
    "places": ([taken([0, 1])], "it takes the places .0, 1., expected one or a slice"),
    "two directions": (
        [call("o", "x", kind="Bidirectional", merge_mode="sum",
              layer=call("i", "x", kind="GRU", units=2),
              backward_layer=call("j", "x", kind="GRU", units=2))],
        "the two layers of 'o' do not fit together",
    ),
    "two shapes": (
        [call("o", "x", kind="Bidirectional", merge_mode="sum",
              layer=call("i", "x", kind="SimpleRNN", units=2, activation="tanh"),
              backward_layer=call("j", "x", kind="GRU", units=3, activation="tanh",
                                  recurrent_activation="tanh", go_backwards=True))],
        "the two layers of 'o' write .2. and .3.",
    ),
    "a cell alone": ([call("o", "x", kind="GRUCell", units=2)], "it is called by itself; cells belong into"),
    "two inputs": (
        [call("o", "x", "x", kind="Bidirectional", merge_mode="sum",
              layer=call("i", "x", kind="SimpleRNN", units=2, activation="tanh"))],
        "it starts from a state that the network computes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ORPHANS)
def test_a_description_that_keras_would_not_write_is_named(base: bytes, tmp_path: Path, case: str) -> None:
    layers, message = ORPHANS[case]
    change: dict[str, Edit | None] = {"config.json": functional(layers, [layers[-1]["name"], 0, 0])}
    with pytest.raises(ModelError, match=message):
        read_keras(changed(base, tmp_path / "m.keras", change))


@pytest.mark.parametrize("layer", ["Flatten", "GlobalAveragePooling1D"])
def test_a_window_of_open_length_cannot_be_gathered(tmp_path: Path, layer: str) -> None:
    keras = keras_module()
    k = keras.layers
    x = keras.Input((None, 3))
    pooled = k.GlobalAveragePooling1D()(x) if layer != "Flatten" else k.Softmax()(k.Flatten()(k.Dense(1)(x)))
    with pytest.raises(ModelError, match="save the model with a fixed number"):
        read_keras(saved(keras.Model(x, pooled), tmp_path))


def test_a_dense_layer_of_a_window_of_open_length_is_refused(base: bytes, tmp_path: Path) -> None:
    layers = [call("f", "x", kind="Flatten"), call("o", "f", kind="Dense", units=2, activation="relu")]
    written = json.loads(functional(layers, ["o", 0, 0])(b""))
    written["config"]["layers"][0]["config"]["batch_shape"] = [None, None, 2]
    with pytest.raises(
        ModelError, match="it reads a whole window, whose length is open; save the model with"
    ):
        read_keras(
            changed(base, tmp_path / "m.keras", {"config.json": lambda _: json.dumps(written).encode()})
        )


def test_a_statistic_that_training_broke_is_refused(base: bytes, tmp_path: Path) -> None:
    keras = keras_module()
    layer = keras.layers.BatchNormalization(epsilon=1e-3)
    model = keras.Sequential([keras.Input((5, 3)), layer])
    layer.moving_variance.assign([-1.0, 1.0, 1.0])
    with pytest.raises(ModelError, match="its moving variance is not above 0; the training diverged"):
        read_keras(saved(model, tmp_path))
