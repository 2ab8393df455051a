"""What of Keras is not carried is refused by name, with the way round, and with all reasons at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.errors import UnsupportedModel
from edge_lstm.importers.keras_model import read_keras
from keras_models import WARNING, described, keras_module

pytestmark = pytest.mark.filterwarnings(WARNING)

Build = Callable[[Any, Any], Any]  # layers of Keras, an input of 5 rows and 3 features -> the output


def rows(k: Any, x: Any) -> Any:
    return k.GRU(2, return_sequences=True)(x)


def turned(k: Any, x: Any = None) -> Any:
    return k if x is None else k.GRU(2, return_sequences=True, go_backwards=True)(x)


def grid(k: Any, x: Any) -> Any:
    return k.Reshape((5, 3, 1))(x)


def ops() -> Any:
    return keras_module().ops


LAYERS: dict[str, tuple[Build, str]] = {
    "masking": (lambda k, x: k.Masking(name="m")(x), r"layer 'm' \(Masking\) .*; leave the missing rows out"),
    "layer normalization": (lambda k, x: k.LayerNormalization()(x), "not implemented; scale the data before"),
    "lambda": (
        lambda k, x: k.Lambda(lambda x: x, name="l")(x),
        r"layer 'l' \(Lambda\).*code of a file is never run",
    ),
    "many heads": (
        lambda k, x: k.MultiHeadAttention(1, 2)(x, x),
        r"\(MultiHeadAttention\).*use Attention or Add",
    ),
    "pooling": (
        lambda k, x: k.MaxPooling1D(1)(x),
        r"\(MaxPooling1D\) .*; use a causal Conv1D, a GlobalAverage",
    ),
    "images": (lambda k, x: k.Conv2D(2, 1)(grid(k, x)), r"\(Conv2D\).*use Conv1D or ConvLSTM1D"),
    "words": (lambda k, x: k.Embedding(3, 2)(x[:, :, 0]), r"\(Embedding\).*sensor stream: give numbers"),
    "slopes": (lambda k, x: k.PReLU()(x), r"\(PReLU\) is not implemented; use LeakyReLU"),
    "unknown": (lambda k, x: k.Cropping1D(1)(x), r"\(Cropping1D\) is not implemented"),
    "training": (
        lambda k, x: k.Dropout(0.5, name="d")(x, training=True),
        r"'d' \(Dropout\) is called with training",
    ),
    "merge mode": (
        lambda k, x: k.Bidirectional(k.GRU(2), merge_mode=None)(x)[0],
        "it has merge_mode=None, expected one of concat, sum, ave, mul",
    ),
    "joined grids": (
        lambda k, x: k.Bidirectional(k.ConvLSTM1D(1, 1))(grid(k, x)),
        "concatenates ConvLSTM1D; use merge_mode='sum'",
    ),
    "stride": (lambda k, x: k.ConvLSTM1D(1, 1, strides=2)(grid(k, x)), r"it has strides=\[2\], expected 1$"),
    "cell state": (
        lambda k, x: k.LSTM(2, return_state=True, name="l")(x)[2],
        "the output: it is the cell state of a recurrent layer, which stays inside",
    ),
    "cell state, read": (
        lambda k, x: k.Dense(1, name="d")(k.LSTM(2, return_state=True)(x)[2]),
        r"layer 'd' \(Dense\): it is the cell state",
    ),
    "start": (
        lambda k, x: k.GRU(2, name="g")(x, initial_state=k.Dense(2)(x[:, 0])),
        "'g' .*called with initial_state=the output of 'dense.*let it start from zero",
    ),
    "states of cells": (
        lambda k, x: k.RNN([k.GRUCell(2), k.GRUCell(2)], return_state=True)(x)[0],
        "it returns the states of several cells; use one layer for each cell",
    ),
    "last row early": (
        lambda k, x: rows(k, k.Reshape((1, 2))(k.GRU(2)(x))),
        r"it reads \(1, 2\), expected \(timesteps, features\); give it every row .* or a RepeatVector",
    ),
    "reversed rows": (lambda k, x: turned(k, x), "the output: its rows come in reverse .*keras.ops.flip"),
    "rows both ways": (
        lambda k, x: k.Add()([rows(k, x), turned(k, x)]),
        "joins rows in their order with rows in rev",
    ),
    "reversed convolution": (
        lambda k, x: k.Conv1D(2, 2, padding="causal")(turned(k, x)),
        "it reads rows in reverse .*put the convolution",
    ),
    "convolution of the future": (
        lambda k, x: k.Conv1D(2, 3)(x),
        "it has padding='valid' and kernel_size=3, expected padding='causal'",
    ),
    "stride of a convolution": (
        lambda k, x: k.Conv1D(2, 1, strides=2)(x),
        r"it has strides=\[2\], expected 1; a dev",
    ),
    "padding": (
        lambda k, x: k.Conv1D(2, 2)(k.ZeroPadding1D((3, 0))(x)),
        "it reads 3 padded rows .* and reaches 1; use padd",
    ),
    "both ends": (
        lambda k, x: k.ZeroPadding1D(2)(x),
        r"it adds rows at both ends \(2, 2\), expected \(n, 0\)",
    ),
    "padding, read": (
        lambda k, x: rows(k, k.ZeroPadding1D((1, 0))(x)),
        "it reads rows behind a ZeroPadding1D; only",
    ),
    "padding at the end": (
        lambda k, x: k.ZeroPadding1D((1, 0))(x),
        "the output: it ends in a ZeroPadding1D or Fla",
    ),
    "rows as one vector": (
        lambda k, x: k.Activation("tanh", name="a")(k.Flatten()(x)),
        r"'a' .*: it reads a whole window \(timesteps, 3\) as one vector \(Flatten\), which only",
    ),
    "new rows": (
        lambda k, x: k.Reshape((3, 5))(x),
        r"it makes \[3, 5\] of \(timesteps, 3\), which mixes time steps",
    ),
    "other rows": (
        lambda k, x: rows(k, k.RepeatVector(7)(k.GRU(2)(x))),
        "it makes 7 rows, but the model reads 5 rows; a network",
    ),
    "dense over time": (
        lambda k, x: k.Dense(2)(k.Permute((2, 1))(x)),
        r"it reads \(3, timesteps\) and mixes its time steps",
    ),
    "permuted features": (
        lambda k, x: k.Permute((1, 3, 2))(k.Reshape((5, 3, 2))(k.Dense(6)(x))),
        "which moves features among themselv",
    ),
    "permuted output": (
        lambda k, x: k.Permute((2, 1))(x),
        r"the output: it is \(3, timesteps\), expected the time",
    ),
    "gelu": (
        lambda k, x: k.Dense(2, activation="gelu")(x),
        "it has the activation 'gelu', expected one of linear, r",
    ),
    "gate": (
        lambda k, x: k.LSTM(2, activation="softmax")(x),
        "activation 'softmax', expected .*outside of recurrent",
    ),
    "own function": (
        lambda k, x: k.Activation(turned)(x),
        "it has the activation 'turned', expected one of linea",
    ),
    "lambda function": (
        lambda k, x: k.Dense(2, activation=lambda x: x)(x),
        "it has the activation 'a function of its author'",
    ),
    "relu": (
        lambda k, x: k.ReLU(2.0, 0.1, 0.5)(x),
        "max_value=2.0, negative_slope=0.1 and threshold=0.5; only one",
    ),
    "softmax": (
        lambda k, x: k.Softmax(axis=2)(k.Reshape((5, 3, 2))(k.Dense(6)(x))),
        "a softmax along axis 2 .*expected all f",
    ),
    "axes of a softmax": (
        lambda k, x: k.Softmax(axis=(1, 2))(x),
        r"it works along axis \[1, 2\], expected one axis",
    ),
    "normalized time": (
        lambda k, x: k.BatchNormalization(axis=1)(x),
        r"it normalizes axis 1 of \(timesteps, 3\)",
    ),
    "normalized axes": (
        lambda k, x: k.Normalization(axis=(1, 2))(x),
        r"it normalizes the axes \[1, 2\] of \(timest",
    ),
    "joined in time": (
        lambda k, x: k.Concatenate(axis=1)([x, x]),
        "along axis 1, expected the same rows and the last",
    ),
    "shapes": (
        lambda k, x: k.Add()([k.Reshape((3, 1))(x[:, 0]), k.Reshape((1, 3))(x[:, 0])]),
        r"it joins \(3, 1\) and \(1, 3\) into \(3, 3\); give each the whole shape",
    ),
    "cosine": (
        lambda k, x: k.Dot(axes=1, normalize=True)([x, x]),
        "normalize=True .*expected a plain dot product",
    ),
    "all rows with all": (
        lambda k, x: k.Dot(axes=2)([x, x]),
        "it multiplies every row of .*expected one query for e",
    ),
    "dot over time": (lambda k, x: k.Dot(axes=1)([x, x]), "over time, expected one weight for each row"),
    "dot of unlike axes": (
        lambda k, x: k.Dot(axes=(1, 2))([k.Dense(5)(x), k.Dense(5)(x)]),
        "over unlike axes",
    ),
    "dot over a part": (
        lambda k, x: k.Dot(axes=(2, 1))([k.Reshape((2, 3))(k.Dense(6)(x[:, 0])), x[:, 0]]),
        "over a part of the featu",
    ),
    "self attention": (
        lambda k, x: k.Attention()([x, x]),
        r"its query is \(timesteps, 3\), expected one query for e",
    ),
    "causal attention": (
        lambda k, x: k.Attention()([x[:, -1:], x], use_causal_mask=True),
        "use_causal_mask=True; one query sees the wh",
    ),
    "attention of vectors": (
        lambda k, x: k.Attention()([x[:, -1:], x[:, -1:]]),
        r"its values are \(1, 3\), expected",
    ),
    "distributed code": (
        lambda k, x: k.TimeDistributed(k.Lambda(lambda x: x, name="l"))(x),
        r"model.keras': layer 'l' \(Lambda\) is not implemented; code of a file is never run",
    ),
    "distributed": (
        lambda k, x: k.TimeDistributed(k.LSTM(2))(grid(k, x)),
        r"it reads \(3, 1\), expected \(timesteps",
    ),
    "distributed features": (
        lambda k, x: k.TimeDistributed(k.Dense(2))(k.Reshape((3, 1))(x[:, 0])),
        r"it reads \(3, 1\), expected \(time",
    ),
}
OPERATIONS: dict[str, tuple[Build, str]] = {
    "unknown": (
        lambda k, x: ops().cumsum(x, axis=1),
        r"operation 'cumsum.*' \(Cumsum\): it is not implemented; impl",
    ),
    "two tensors": (
        lambda k, x: ops().divide(x, x + 1.0),
        "it divides by a tensor, which is not implemented",
    ),
    "divided": (lambda k, x: 2.0 / x, "it divides a number by a tensor"),
    "ranks": (lambda k, x: x + x[:, 0], r"it joins \(timesteps, 3\) and \(3\); give both the same axes"),
    "constants": (
        lambda k, x: x + np.ones(3, np.float32),
        "it joins a tensor with .*, expected a tensor or a number",
    ),
    "all": (lambda k, x: ops().sum(x), "it is over all axes, also over the batch; name the axis"),
    "batch": (
        lambda k, x: ops().flip(x, axis=0),
        "it works along axis 0, expected one of the 2 axes after the batch",
    ),
    "flip": (lambda k, x: ops().flip(x, axis=2), "it turns the features of .* around; order the channels"),
    "places": (
        lambda k, x: ops().take(x, [0, 1], axis=1),
        "Take.: it is not implemented",
    ),
    "squeeze": (
        lambda k, x: ops().squeeze(x[:, :, :1] * 1.0),
        "it drops every axis of size 1, also the batch",
    ),
    "shape": (
        lambda k, x: ops().reshape(x, (5, -1, 3)),
        r"its shape is \[5, -1, 3\], expected one that starts with",
    ),
    "transpose": (
        lambda k, x: ops().transpose(x, (1, 0, 2)),
        r"orders the axes as \[1, 0, 2\], expected the batch f",
    ),
    "matmul": (
        lambda k, x: ops().matmul(x, np.ones((3, 2), np.float32)),
        "expected two tensors of two axes after",
    ),
    "rows": (
        lambda k, x: x[:, 1:3],
        r"it takes the rows .* of \(timesteps, 3\), expected the first or the last row",
    ),
    "part of the batch": (lambda k, x: x[0:1, :], "it takes a part of the batch"),
    "features of a grid": (
        lambda k, x: k.Reshape((5, 3, 2))(k.Dense(6)(x))[:, :, 0],
        "it takes a part of the features of",
    ),
}


CASES = [*((LAYERS, case) for case in LAYERS), *((OPERATIONS, case) for case in OPERATIONS)]


@pytest.mark.parametrize(("table", "case"), CASES, ids=[case for _, case in CASES])
def test_what_is_not_carried_is_refused_by_name(
    tmp_path: Path, table: dict[str, tuple[Build, str]], case: str
) -> None:
    build, message = table[case]
    keras = keras_module()
    x = keras.Input((5, 3))
    path = described(keras.Model(x, build(keras.layers, x)), tmp_path)
    with pytest.raises(UnsupportedModel, match=message) as caught:
        read_keras(path)
    assert str(caught.value).startswith("model 'model.keras': ")


def test_all_reasons_come_at_once(tmp_path: Path) -> None:
    keras = keras_module()
    k, x = keras.layers, keras.Input((5, 3))
    y = k.Masking(name="m")(x)
    y = k.Add()([k.Dense(2, activation="gelu")(y), k.Dense(2, activation="gelu", name="g")(x)])
    z = k.Conv1D(2, 3, name="c")(k.LSTM(2, return_sequences=True, name="l")(x, mask=None))
    model = keras.Model(
        x, k.Concatenate()([k.Flatten()(y), k.Flatten(name="f")(z), k.Cropping1D(1)(x)[:, 0]])
    )
    with pytest.raises(UnsupportedModel) as caught:
        read_keras(described(model, tmp_path))
    lines = str(caught.value).split("\n  - ")
    assert lines[0] == "model 'model.keras': 4 problems"
    for line, words in zip(
        lines[1:], ("'m' (Masking)", "Cropping1D", "'c' (Conv1D)", "'g' (Dense)"), strict=True
    ):
        assert words in line


def test_several_inputs_and_outputs_are_refused_together(tmp_path: Path) -> None:
    keras = keras_module()
    k = keras.layers
    one, two = keras.Input((5, 3), name="one"), keras.Input((5, 3), name="two")
    hidden = k.LSTM(3, return_sequences=True, name="first")(one)
    model = keras.Model([one, two], [hidden, k.Add(name="sum")([hidden, two])])
    with pytest.raises(
        UnsupportedModel,
        match=r"(?s)it has 2 inputs \(one, two\), expected 1.*it has 2 outputs \(first, sum\)",
    ):
        read_keras(described(model, tmp_path))
