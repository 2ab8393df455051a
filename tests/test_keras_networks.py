"""Random models of Keras 3, one for each thing a layer can do: the reference computes what Keras computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_lstm.importers.keras_model import read_keras
from keras_models import WARNING, assert_read, assert_same, keras_module, randomized, saved

pytestmark = [
    pytest.mark.filterwarnings(WARNING),
    pytest.mark.filterwarnings("ignore:You are using a softmax over axis:UserWarning"),  # of one time step
]
BATCH = 11  # more than any width: Keras' add takes a column of as many rows as features for a bias
DRAWS = [(1, 3), (2, 1), (5, 4), (5, 4)]  # of weights; timesteps and features of each

Head = Callable[[Any, np.random.Generator, Any], Any]


def units(rng: np.random.Generator, most: int = 5) -> int:
    return int(rng.integers(1, most + 1))


def plain(k: Any, rng: np.random.Generator, **options: Any) -> Any:
    """A recurrent layer of any kind with any options."""
    kind = (k.LSTM, k.GRU, k.SimpleRNN)[int(rng.integers(3))]
    chosen = {
        "activation": str(rng.choice(["tanh", "relu", "softsign", "elu", "leaky_relu"])),
        "use_bias": bool(rng.random() < 0.8),
    }
    if kind is not k.SimpleRNN:
        chosen["recurrent_activation"] = str(rng.choice(["sigmoid", "hard_sigmoid"]))
    if kind is k.GRU:
        chosen["reset_after"] = bool(rng.random() < 0.5)
    return kind(units(rng), dropout=0.2, recurrent_dropout=0.1, **{**chosen, **options})


HEADS: dict[str, Head] = {
    "lstm": lambda k, rng, x: k.Dense(units(rng))(k.LSTM(units(rng))(k.LSTM(3, return_sequences=True)(x))),
    "gru": lambda k, rng, x: k.GRU(units(rng), return_sequences=True, reset_after=rng.random() < 0.5)(x),
    "any": lambda k, rng, x: plain(k, rng)(plain(k, rng, return_sequences=True)(x)),
    "cells": lambda k, rng, x: k.RNN([k.LSTMCell(2), k.GRUCell(3), k.SimpleRNNCell(4)])(x),
    "bidirectional": lambda k, rng, x: k.Bidirectional(
        plain(k, rng, return_sequences=True), merge_mode=str(rng.choice(["concat", "sum", "ave", "mul"]))
    )(x),
    "bidirectional end": lambda k, rng, x: k.Bidirectional(
        k.LSTM(3), backward_layer=k.GRU(3, go_backwards=True), merge_mode="ave"
    )(x),
    "autoencoder": lambda k, rng, x: k.TimeDistributed(k.Dense(2))(
        k.LSTM(3, return_sequences=True)(k.RepeatVector(x.shape[1])(k.LSTM(units(rng))(x)))
    ),
    "backwards": lambda k, rng, x: plain(k, rng)(
        k.Dense(2, activation="relu")(plain(k, rng, return_sequences=True, go_backwards=True)(x))
    ),
    "backwards twice": lambda k, rng, x: k.GRU(2, return_sequences=True, go_backwards=True)(
        k.LSTM(2, return_sequences=True, go_backwards=True)(x)
    ),
    "convolution": lambda k, rng, x: k.Add()(
        [
            k.Conv1D(3, 1)(x),
            k.BatchNormalization()(
                k.Conv1D(3, 2, dilation_rate=units(rng), padding="causal", activation="silu")(x)
            ),
        ]
    ),
    "padded": lambda k, rng, x: k.Conv1D(4, 2, groups=2, padding="causal")(
        k.BatchNormalization(scale=False)(k.Conv1D(4, 3)(k.ZeroPadding1D((2, 0))(x)))
    ),
    "normalized": lambda k, rng, x: k.Dense(2)(
        k.BatchNormalization(center=False)(k.LSTM(3)(k.Normalization()(x)))
    ),
    "conv lstm": lambda k, rng, x: k.Dense(2)(
        k.Flatten()(
            k.ConvLSTM1D(2, 2, padding="valid" if x.shape[2] > 1 else "same")(
                k.ConvLSTM1D(units(rng, 2), 2, padding="same", return_sequences=True)(
                    k.Reshape((x.shape[1], x.shape[2], 1))(x)
                )
            )
        )
    ),
    "conv lstm, both ways": lambda k, rng, x: k.GRU(2)(
        k.TimeDistributed(k.Flatten())(
            k.Bidirectional(
                k.ConvLSTM1D(2, 1, return_sequences=True, dilation_rate=1), merge_mode="sum"
            )(k.Reshape((-1, x.shape[2], 1))(x))
        )
    ),
    "activations": lambda k, rng, x: k.Concatenate()(
        [k.Dense(2, activation=name)(x) for name in ("relu6", "selu", "hard_tanh", "mish", "softmax")]
    ),
    "activation layers": lambda k, rng, x: k.ReLU(1.5)(
        k.Dense(3)(k.ReLU(threshold=0.3)(k.Dense(2)(k.ELU(0.7)(k.LeakyReLU(0.2)(k.Dense(3)(x))))))
    ),
    "branches": lambda k, rng, x: k.Average()(
        [k.Subtract()([k.LSTM(3)(x), k.GRU(3)(x)]), k.Multiply()([k.Dense(3)(x[:, -1]), k.Dense(3)(x[:, 0])])]
    ),
    "flattened": lambda k, rng, x: k.Dense(2, activation="tanh")(
        k.Dropout(0.3)(k.Flatten()(k.LSTM(units(rng), return_sequences=True, go_backwards=True)(x)))
    ),
    "pooled": lambda k, rng, x: k.Dense(2)(k.GlobalAveragePooling1D()(k.GRU(3, return_sequences=True)(x))),
}  # fmt: skip


def with_state(k: Any, rng: np.random.Generator, x: Any) -> tuple[Any, Any]:
    sequence, hidden, _ = k.LSTM(units(rng), return_sequences=True, return_state=True)(x)
    return sequence, hidden


def dot_attention(k: Any, rng: np.random.Generator, x: Any) -> Any:
    rows, hidden = with_state(k, rng, x)
    query = k.Reshape((1, hidden.shape[1]))(hidden)
    return k.Flatten()(k.Attention(use_scale=rng.random() < 0.5)([query, rows]))


def additive_attention(k: Any, rng: np.random.Generator, x: Any) -> Any:
    rows = k.GRU(units(rng), return_sequences=True)(x)
    query = k.RepeatVector(1)(k.Dense(rows.shape[2])(rows[:, -1]))
    return k.AdditiveAttention(use_scale=rng.random() < 0.5)([query, k.Dense(3)(rows), rows])


def concat_attention(k: Any, rng: np.random.Generator, x: Any) -> Any:
    rows = k.LSTM(units(rng), return_sequences=True)(x)
    layer = k.Attention(score_mode="concat", use_scale=rng.random() < 0.5)
    return layer([rows[:, -1:], rows], return_attention_scores=True)[int(rng.integers(2))]


def written_attention(k: Any, rng: np.random.Generator, x: Any) -> Any:
    """Dense, Dense(1), softmax over time, product and sum."""
    rows = k.Bidirectional(k.LSTM(units(rng), return_sequences=True))(x)
    weights = k.Softmax(axis=1)(k.Dense(1, use_bias=False)(k.Dense(3, activation="tanh")(rows)))
    if rng.random() < 0.5:
        return k.Dot(axes=1)([weights, rows])
    return keras_module().ops.sum(rows * weights, axis=1)


def repeated_attention(k: Any, rng: np.random.Generator, x: Any) -> Any:
    """The form of the tutorials: flattened scores, repeated for each feature and turned around."""
    rows = k.LSTM(3, return_sequences=True)(x)
    weights = k.Activation("softmax")(k.Flatten()(k.Dense(1, activation="tanh")(rows)))
    return k.GlobalAveragePooling1D()(k.Multiply()([rows, k.Permute((2, 1))(k.RepeatVector(3)(weights))]))


def luong_attention(k: Any, rng: np.random.Generator, x: Any) -> Any:
    rows, hidden = with_state(k, rng, x)
    weights = k.Activation("softmax")(k.Dot(axes=(2, 1))([rows, hidden]))
    return k.Dense(2)(k.Concatenate()([k.Dot(axes=(1, 1))([rows, weights]), hidden]))


def written_otherwise(k: Any, rng: np.random.Generator, x: Any) -> Any:
    """The weights in front of the rows, a sum over rows and a vector, and a mean over two axes."""
    ops, rows = keras_module().ops, k.GRU(2, return_sequences=True)(x)
    context = ops.sum(k.Softmax(axis=1)(k.Dense(1)(rows)) * rows, axis=1)
    product = ops.sum(rows * ops.expand_dims(context, 1), axis=1)
    context = k.Average()([context, k.Dense(2)(ops.sum(x, axis=1))])
    return k.Add()([context, product, ops.mean(rows, axis=[1, 2], keepdims=True)[:, 0]])


def slices(k: Any, rng: np.random.Generator, x: Any) -> Any:
    """Parts of tensors in every way that is written."""
    ops = keras_module().ops
    rows = k.SimpleRNN(4, return_sequences=True)(x)
    turned = ops.flip(rows[:, None, ...][:, 0], axis=1)
    column = ops.reshape(rows[..., 1:3], (-1, x.shape[1], 1, 2))[:, :, 0, ::-1]
    first = ops.flip(rows[:, :1], axis=1)
    last = rows[:, x.shape[1] - 1 :, :]
    return k.Concatenate()(
        [turned[:, 0], column[:, -1], first[:, 0], last[:, 0], turned[:, -1, 2:3], rows[:, 0, ::2]]
    )


def scaling(k: Any, rng: np.random.Generator, x: Any) -> Any:
    count = x.shape[2]
    scaled = k.Rescaling(rng.normal(size=count).tolist(), offset=0.3)(x)
    back = k.Normalization(mean=rng.normal(size=count), variance=np.ones(count) * 2, invert=True)(scaled)
    whole = k.Normalization(axis=None, mean=0.5, variance=0.1)(k.Dense(2, use_bias=False)(back))
    return k.Rescaling(-2.0)(k.Activation("relu")(k.Rescaling(3.0, 1.0)(k.Activation("tanh")(whole))))


def activation_objects(k: Any, rng: np.random.Generator, x: Any) -> Any:
    y = k.Dense(3, activation=k.LeakyReLU(0.15))(k.Conv1D(3, 2, padding="causal", use_bias=False)(x))
    return k.Dense(2, use_bias=False)(k.Flatten()(k.ReLU(negative_slope=0.1)(y)))


def grid(k: Any, rng: np.random.Generator, x: Any) -> Any:
    y = k.ConvLSTM1D(1, 1, use_bias=False, return_sequences=True, go_backwards=True)(
        k.Reshape((-1, x.shape[2], 1))(x)
    )
    return k.Dense(2)(k.ConvLSTM1D(2, 1, go_backwards=True)(y))


def operations(k: Any, rng: np.random.Generator, x: Any) -> Any:
    ops = keras_module().ops
    turned = ops.flip(ops.tanh(x[:, ::-1]), axis=1)
    column = ops.expand_dims(ops.relu(k.GRU(2)(x)), axis=-1)
    scores = ops.softmax(ops.matmul(k.Dense(2)(turned), column), axis=1)
    context = ops.matmul(ops.transpose(x, (0, 2, 1)), scores)
    joined = ops.concatenate([1 - ops.squeeze(context, axis=-1) / 2, -ops.mean(x, axis=1)], axis=-1)
    return ops.elu(joined * 0.5 + 1.0) + ops.sum(ops.leaky_relu(x)[:, -1, 0:1], axis=-1, keepdims=True)


def shared(k: Any, rng: np.random.Generator, x: Any) -> Any:
    layer = k.Dense(2, activation="tanh")
    lstm = k.LSTM(2, return_sequences=True)
    return lstm(layer(k.Dense(x.shape[2])(lstm(layer(x)))))


def nested(k: Any, rng: np.random.Generator, x: Any) -> Any:
    keras, width = keras_module(), x.shape[2]
    chain = keras.Sequential(
        [keras.Input((None, width)), k.Dense(3), k.BatchNormalization(), k.GRU(width, return_sequences=True)]
    )
    start = keras.Input((None, width))
    graph = keras.Model(start, k.Add()([start, k.Dense(width)(chain(start))]))
    inside = keras.Sequential([keras.Input((width,)), k.Dense(2, activation="relu"), k.Dense(width)])
    chain.layers[0].trainable = False
    return graph(k.Add()([k.TimeDistributed(inside)(graph(x)), x]))


HEADS |= {
    function.__name__.replace("_", " "): function
    for function in (
        dot_attention, additive_attention, concat_attention, written_attention, repeated_attention,
        luong_attention, written_otherwise, slices, scaling, activation_objects, grid, operations, shared,
        nested,
    )
}  # fmt: skip


@cache
def built(shape: tuple[int, int]) -> tuple[Any, dict[str, Any], Any]:
    """The input, the tensor of every head, and a model of them all."""
    keras = keras_module()
    keras.backend.clear_session()
    layers = SimpleNamespace(**vars(keras.layers))
    if shape[0] > 1:
        for name in ("LSTM", "GRU", "SimpleRNN"):  # unrolled, Keras computes them faster
            setattr(layers, name, partial(getattr(keras.layers, name), unroll=True))
    rng = np.random.default_rng(shape)
    start = keras.Input(shape)
    heads = {name: head(layers, rng, start) for name, head in HEADS.items()}
    return start, heads, keras.Model(start, list(heads.values()))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, tuple[Path, Any, Any]]]:
    """For every head of a draw: its file, a batch of windows, and what Keras makes of them."""

    @cache
    def draw(number: int) -> dict[str, tuple[Path, Any, Any]]:
        folder = tmp_path_factory.mktemp(f"draw{number}")
        start, heads, model = built(DRAWS[number])
        randomized(model, number)
        x = np.random.default_rng(number).normal(0, 1.2, (BATCH, *DRAWS[number])).astype(np.float32)
        results = dict(zip(heads, model(x, training=False), strict=True))
        found = {}
        for place, (name, tensor) in enumerate(heads.items()):
            suffix = "h5" if (number + place) % len(DRAWS) else "keras"  # which takes longer to write
            path = saved(keras_module().Model(start, tensor), folder, f"{name}.{suffix}")
            found[name] = path, x, np.asarray(results[name])
        return found

    return draw


@pytest.mark.parametrize("number", range(len(DRAWS)))
@pytest.mark.parametrize("head", HEADS)
def test_a_model_of_keras_computes_the_same_in_the_reference(files: Any, head: str, number: int) -> None:
    path, x, expected = files(number)[head]
    assert_same(read_keras(path), x, expected)


@pytest.mark.parametrize("rows", [1, 50])
def test_a_stream_of_any_length_computes_the_same(tmp_path: Path, rows: int) -> None:
    keras = keras_module()
    k = keras.layers
    model = keras.Sequential(
        [keras.Input((None, 3)), k.Conv1D(4, 3, dilation_rate=2, padding="causal", activation="relu"),
         k.LSTM(5, return_sequences=True, stateful=False), k.Dropout(0.2), k.GRU(3, return_sequences=True),
         k.TimeDistributed(k.Dense(2, activation="softmax"))]
    )  # fmt: skip
    graph = assert_read(randomized(model, 8), tmp_path, rows=rows)
    assert graph.window == 0 and graph.features == 3
