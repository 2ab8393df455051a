"""Runs of integer ONNX and of the integer reference, and small integer networks to run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime

from edge_lstm.arrays import FloatArray
from edge_lstm.emit.onnx_integers import emit_qdq, states
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.graph import Stream
from edge_lstm.operators import Quantization
from edge_lstm.qgraph import QDense, QGraph


def narrow(scale: float, zero_point: int = 0) -> Quantization:
    return Quantization(float(np.float32(scale)), zero_point)


IN8, OUT8, STATE8 = narrow(0.03, -11), narrow(0.05, 7), narrow(1 / 127, 9)


def session_of(content: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_rows(session: Any, qgraph: QGraph, x: FloatArray, sizes: Sequence[int]) -> FloatArray:
    """Outputs (rows, outputs) of a stream (steps, features) that arrives in pieces of ``sizes`` rows."""
    feed = {f"{state.name}_in": np.array(state.initial) for state in states(qgraph)}
    names = [output.name.removesuffix("_out") + "_in" for output in session.get_outputs()]
    rows, outputs = 0, []
    for size in sizes:
        values = session.run(None, {"x": x[None, rows : rows + size].astype(np.float32), **feed})
        rows += size
        outputs.append(values[0][0])
        feed = dict(zip(names[1:], values[1:], strict=True))
    return np.concatenate(outputs)


def codes_by_onnx(qgraph: QGraph, x: FloatArray) -> FloatArray:
    """Output codes for reals (steps, features): one stream in one run, or window by window."""
    content = emit_qdq(qgraph)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    size = qgraph.window or len(x)
    y = run_rows(session_of(content), qgraph, x, [size] * (len(x) // size))
    codes: FloatArray = np.rint(y / qgraph.output.scale) + qgraph.output.zero_point
    return codes


def codes_by_reference(qgraph: QGraph, x: FloatArray) -> FloatArray:
    codes = NumpyExecutor(qgraph).run(qgraph.input.encode(x)).reshape(-1, qgraph.outputs)
    return np.asarray(codes, dtype=np.float64)


def stream_of(qgraph: QGraph, seed: int = 1, reach: float = 1.0) -> FloatArray:
    """Reals (steps, features): 30 rows, or three windows."""
    shape = (3 * qgraph.window or 30, qgraph.features)
    x: FloatArray = np.clip(np.random.default_rng(seed).normal(0, 1, shape), -3, 3) * reach
    return x


def single(operator: Any, source: Quantization, *, width: int = 4, window: int = 0, reads: int = 1) -> QGraph:
    return QGraph(
        "single", (operator,), Stream.unnamed(width), sources=((-1,) * reads,), window=window, input=source
    )


def every_code(qgraph: QGraph, rows: int = 60) -> FloatArray:
    q = qgraph.input
    codes = np.random.default_rng(3).integers(q.low, q.high + 1, (rows, qgraph.features))
    codes[:2] = [[q.low], [q.high]]
    return q.decode(codes)


def int8(*shape: int) -> Any:
    return np.random.default_rng(shape).integers(-128, 128, shape).astype(np.int8)


def dense(source: Quantization, output: Quantization, rows: int, relu: bool) -> QDense:
    """4 features to 3 outputs.  rows: scales of the kernel, 1 or 3."""
    rng = np.random.default_rng(rows)
    scales = (rng.uniform(0.3, 1, rows) * 2e-2 * output.scale / source.scale).astype(np.float32)
    return QDense("dense", int8(3, 4), rng.integers(-900, 900, 3), scales, source, output, relu)
