"""Networks of Keras, written by tf2onnx, compute what they compute in Keras."""

from __future__ import annotations

import io
import logging
import os
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import Any

import numpy as np
import pytest

from edge_lstm.errors import UnsupportedModel
from edge_lstm.importers.onnx_model import read_onnx
from edge_lstm.reference.floating import run
from onnx_import_models import assert_close

ROWS, FEATURES, UNITS = 6, 3, 4
KINDS = {
    "open rows": "Lstm Dense Activation",
    "bidirectional": "Lstm Lstm Merge Lstm Lstm Row Row Merge Dense",
    "convolution": "Conv1d Activation Lstm Dense",
    "autoencoder": "Lstm Row Repeat Lstm Dense",
}


def layers_of(name: str) -> list[Any]:
    import keras

    layers = keras.layers
    dense = layers.Dense(2, bias_initializer="normal")
    if name == "GRU":
        return [keras.Input((ROWS, FEATURES)), layers.GRU(UNITS), dense]
    if name == "open rows":
        shape, given = (None, FEATURES), [layers.LSTM(UNITS, return_sequences=True), dense, layers.ReLU()]
        return [keras.Input(shape), *given]
    if name == "bidirectional":
        first = layers.Bidirectional(layers.LSTM(UNITS, return_sequences=True))
        return [keras.Input((ROWS, FEATURES)), first, layers.Bidirectional(layers.LSTM(UNITS)), dense]
    if name == "convolution":
        conv = layers.Conv1D(UNITS, 3, padding="causal", dilation_rate=2, bias_initializer="normal")
        norm = layers.BatchNormalization(beta_initializer="normal")
        return [keras.Input((ROWS, FEATURES)), conv, norm, layers.ReLU(), layers.LSTM(UNITS), dense]
    decoder = [layers.RepeatVector(ROWS), layers.LSTM(UNITS, return_sequences=True)]
    return [keras.Input((ROWS, FEATURES)), layers.LSTM(UNITS), *decoder, layers.TimeDistributed(dense)]


def converted(name: str) -> tuple[bytes, np.ndarray, np.ndarray]:
    """The file of tf2onnx, an input (1, rows, features) and what Keras makes of it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras
    import tensorflow as tf
    import tf2onnx

    keras.utils.set_random_seed(3)
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    model = keras.Sequential(layers_of(name))
    signature = (tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="x"),)
    function = tf.function(lambda x: model(x), input_signature=signature)
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "In the future `np.object`")
        file, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=15)
    x = np.random.default_rng(0).normal(size=(1, ROWS, FEATURES)).astype(np.float32)
    return file.SerializeToString(), x, np.asarray(model(x)).reshape(1, -1, model.output_shape[-1])


@pytest.mark.parametrize("name", KINDS)
def test_a_network_of_keras_computes_the_same(name: str) -> None:
    content, x, want = converted(name)
    graph = read_onnx(content)
    assert " ".join(type(layer).__name__ for layer in graph.layers) == KINDS[name]
    assert_close(run(graph, x)[0][:, -want.shape[1] :], want)


def test_recurrent_layers_that_tf2onnx_writes_as_loops_are_refused_with_the_way_round() -> None:
    with pytest.raises(
        UnsupportedModel, match="operator Loop is not supported; .* give the .keras file itself"
    ):
        read_onnx(converted("GRU")[0])
