"""The TFLite interpreters that others made, as executors: LiteRT, tflite-runtime, TensorFlow Lite Micro.

Reads a .tflite file's bytes, or writes them from the QGraph; each runtime is imported when it is opened.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import ConfigError, DataError, MissingTool, RuntimeFailure
from edge_lstm.executors.protocol import Executor
from edge_lstm.executors.refusals import PROFILE_OF, refusal
from edge_lstm.optional import require
from edge_lstm.qgraph import CodeArray, QDelay, QGraph, QScan, QValue, written_values

TFLM_PYTHON = (3, 11)  # what its wheel is built for, whatever its tag says
ARENA_BYTES = 1 << 20  # TFLM's working memory for small models; with too little of it TFLM crashes
CODE_BYTES = 32  # of it for one code of a row: its copies, and the multiplier that computes it


class TfliteExecutor(Executor):
    """One interpreter of .tflite files with one file loaded.

    model: the file's bytes, which run as they are; written from ``qgraph`` when absent.
    Raises ConfigError where the runtime cannot run the network, MissingTool where it is not installed,
    RuntimeFailure where it refuses the file.
    """

    takes_reals = False  # the file quantizes float inputs itself

    def __init__(self, qgraph: QGraph, model: bytes | None = None) -> None:
        reason = refusal(self.name, qgraph)
        if reason is not None:
            raise ConfigError(f"{self.name} cannot run model '{qgraph.name}': {reason}; choose another --on")
        self.qgraph = qgraph
        self.content = model or emit_tflite(qgraph)
        self.interpreter_class = self.load()
        # only a new interpreter has its variables, the state of recurrences that are not fused, as at first
        self.anew = not qgraph.window and any(isinstance(layer, (QScan, QDelay)) for layer in qgraph.layers)
        self.is_open = False
        self.reset()

    @abstractmethod
    def load(self) -> Any:
        """Import the runtime; returns its class of interpreters."""

    @abstractmethod
    def open(self, interpreter_class: Any, content: bytes) -> None:
        """Load and prepare ``content``; raises RuntimeError or ValueError where the runtime does."""

    @abstractmethod
    def clear(self) -> None:
        """Reset the fused layers."""

    @abstractmethod
    def invoke(self, block: CodeArray) -> CodeArray:
        """One invocation on codes in the order of the file's input; returns its output."""

    def given(self, block: CodeArray) -> npt.NDArray[Any]:
        """What the file takes: the codes, or the reals that its own border quantizes to them."""
        return self.qgraph.input.decode(block).astype(np.float32) if self.takes_reals else block

    def taken(self, output: npt.NDArray[Any]) -> CodeArray:
        """The codes of what the file gives."""
        return output if output.dtype.kind == "i" else self.qgraph.output.encode(output)

    def reset_network(self) -> None:
        if self.anew or not self.is_open:
            self._open()
        self.clear()

    def _open(self) -> None:
        with _caught_log() as log:
            try:
                self.open(self.interpreter_class, self.content)
            except (RuntimeError, ValueError) as error:
                raise RuntimeFailure(
                    f"{self.name} refuses model '{self.qgraph.name}': {_one_line(f'{error} {log()}')}; "
                    "write the file again with this toolkit, or choose another --on"
                ) from error
        self.is_open = True

    def run(self, codes: CodeArray) -> CodeArray:
        """Advance by whole windows; with several lanes every lane gets the stream.  See ``Executor``."""
        return self._advance(np.repeat(codes[:, None], self.qgraph.lanes, axis=1))[:, 0]

    def run_windows(self, codes: CodeArray) -> CodeArray:
        """Run codes (windows, steps, features), each from reset, as many at a time as there are lanes."""
        q, lanes = self.qgraph, self.qgraph.lanes
        rows = codes.shape[1] // q.timesteps * q.rows
        results = [np.zeros((0, rows, q.outputs), dtype=q.output.dtype)]
        for start in range(0, len(codes), lanes):
            together = codes[start : start + lanes]
            filled = np.resize(together, (lanes, *together.shape[1:]))  # idle lanes repeat the first ones
            self.reset()
            results.append(self._advance(filled.swapaxes(0, 1))[:, : len(together)].swapaxes(0, 1))
        return np.concatenate(results)

    def _advance(self, codes: CodeArray) -> CodeArray:
        """Codes (steps, lanes, features) -> (rows, lanes, outputs), invocation by invocation."""
        q = self.qgraph
        if codes.ndim != 3 or codes.dtype != q.input.dtype or codes.shape[2] != q.features:
            raise DataError(
                f"model '{q.name}' takes int{q.input.bits} codes with {q.features} features, got "
                f"{codes.dtype} with shape {codes.shape[:1] + codes.shape[2:]}"
            )
        if len(codes) % q.timesteps:
            raise DataError(
                f"model '{q.name}' takes windows of {q.timesteps} rows, got {len(codes)} rows; "
                "give a multiple"
            )
        shape = (len(codes) // q.timesteps, q.rows, q.lanes, q.outputs)
        outputs: CodeArray = np.empty(shape, dtype=q.output.dtype)
        try:
            for index, block in enumerate(codes.reshape(-1, q.timesteps, q.lanes, q.features)):
                outputs[index] = self._invoke(block)
        except (RuntimeError, ValueError) as error:
            reason = _one_line(str(error))
            raise RuntimeFailure(f"{self.name} failed on model '{q.name}': {reason}") from error
        return outputs.reshape(-1, q.lanes, q.outputs)

    def _invoke(self, block: CodeArray) -> CodeArray:
        """Codes (timesteps, lanes, features) -> (rows, lanes, outputs); a window begins from reset."""
        q = self.qgraph
        if q.window:
            self.clear()
        output: CodeArray
        if q.batch_major:
            output = self.invoke(block.swapaxes(0, 1)).reshape(q.lanes, q.rows, q.outputs)
            output = output.swapaxes(0, 1)
        else:
            output = self.invoke(block).reshape(q.rows, q.lanes, q.outputs)
        return output


class _DesktopExecutor(TfliteExecutor):
    """What LiteRT and tflite-runtime have in common."""

    def open(self, interpreter_class: Any, content: bytes) -> None:
        self.interpreter = interpreter_class(model_content=content, num_threads=1)
        self.interpreter.allocate_tensors()
        details = self.interpreter.get_input_details()[0]
        self.input_index, self.input_shape = details["index"], tuple(details["shape"])
        self.takes_reals = details["dtype"] == np.float32
        self.output_index = self.interpreter.get_output_details()[0]["index"]

    def invoke(self, block: CodeArray) -> CodeArray:
        self.interpreter.set_tensor(self.input_index, self.given(block.reshape(self.input_shape)))
        self.interpreter.invoke()
        return self.taken(self.interpreter.get_tensor(self.output_index))

    def clear(self) -> None:
        self.interpreter.reset_all_variables()


class LiteRTExecutor(_DesktopExecutor):
    """Google's LiteRT (``ai-edge-litert``), with its default kernels."""

    name = "litert"
    profile = PROFILE_OF[name]

    def load(self) -> Any:
        return _import("ai_edge_litert.interpreter", "litert").Interpreter


class TfliteRuntimeExecutor(_DesktopExecutor):
    """The last ``tflite-runtime`` (2.14), for NumPy 1; it leaves int8 dense layers to TFLite's own kernel."""

    name = "tflite-runtime"
    profile = PROFILE_OF[name]

    def load(self) -> Any:
        if int(np.__version__.split(".")[0]) >= 2:  # its import would crash, after a page of warnings
            raise MissingTool(
                f"tflite-runtime needs NumPy 1, here is {np.__version__}; give it an environment of its own: "
                "pip install 'edge-lstm[tflite-runtime]'"
            )
        return _import("tflite_runtime.interpreter", "tflite-runtime").Interpreter


class TflmExecutor(TfliteExecutor):
    """TensorFlow Lite Micro's own interpreter with its reference kernels (``tflite-micro``)."""

    name = "tflm"
    profile = PROFILE_OF[name]

    def load(self) -> Any:
        if sys.version_info[:2] != TFLM_PYTHON:
            wanted, here = ".".join(map(str, TFLM_PYTHON)), platform.python_version()
            raise MissingTool(
                f"TensorFlow Lite Micro's interpreter is a wheel for Python {wanted} on x86-64 Linux, "
                f"here is Python {here}; use Python {wanted}, then: pip install 'edge-lstm[tflm]'"
            )
        return _import("tflite_micro", "tflm").runtime.Interpreter

    def open(self, interpreter_class: Any, content: bytes) -> None:
        arena = ARENA_BYTES + 10 * len(content) + CODE_BYTES * codes_computed(self.qgraph)
        self.interpreter = interpreter_class.from_bytes(content, arena_size=arena)
        details = self.interpreter.get_input_details(0)
        self.input_shape, self.takes_reals = tuple(details["shape"]), details["dtype"] == np.float32

    def invoke(self, block: CodeArray) -> CodeArray:
        self.interpreter.set_input(self.given(block.reshape(self.input_shape)), 0)
        self.interpreter.invoke()
        return self.taken(self.interpreter.get_output(0))

    def clear(self) -> None:
        self.interpreter.reset()


def codes_computed(qgraph: QGraph) -> int:
    """How many codes one invocation computes, at most."""
    width = qgraph.features
    for layer, reads, value in zip(qgraph.layers, qgraph.sources, qgraph.values, strict=True):
        width += value.width
        if isinstance(layer, QScan):
            row = qgraph.values[reads[0]].width if reads[0] >= 0 else qgraph.features
            given = [QValue(row, False, layer.input)]
            given += [QValue(state.width, False, state.quantization) for state in layer.states]
            width += sum(inner.width for inner in written_values(layer.body, layer.sources, given)[0])
    return qgraph.timesteps * qgraph.lanes * width


RUNTIMES = {runtime.name: runtime for runtime in (LiteRTExecutor, TfliteRuntimeExecutor, TflmExecutor)}


def open_runtime(name: str, qgraph: QGraph, model: bytes | None = None) -> TfliteExecutor:
    """Open the runtime ``name``, one of ``RUNTIMES``."""
    return RUNTIMES[name](qgraph, model)


def _import(module: str, extra: str) -> Any:
    """Import a runtime; MissingTool also where it is installed for another Python or system library."""
    try:
        return require(module, extra)
    except ImportError as error:
        raise MissingTool(
            f"the Python package '{module.split('.')[0]}' is installed but cannot be loaded here "
            f"({_one_line(str(error))}); install what fits with: pip install 'edge-lstm[{extra}]'"
        ) from error


@contextmanager
def _caught_log() -> Iterator[Callable[[], str]]:
    """Catch what a runtime's C++ writes to the error stream; yields what reads it so far.

    Afterwards all of it but INFO lines is passed on, unless the block failed: then the message holds it.
    """
    with tempfile.TemporaryFile() as log:

        def text() -> str:
            log.seek(0)
            lines = log.read().decode("utf-8", "replace").splitlines()
            return "\n".join(line for line in lines if line.strip() and not line.startswith("INFO:"))

        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield text
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        if text():
            print(text(), file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())
