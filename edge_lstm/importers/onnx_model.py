"""ONNX files -> Graph: recurrent operators and what exporters write around them.

Reads files of PyTorch's two exporters, of tf2onnx and of this toolkit; refuses what it cannot carry, naming
all reasons.  Nothing of a file is executed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_lstm.errors import ModelError, UnsupportedModel, raise_all
from edge_lstm.graph import INPUT, Graph
from edge_lstm.importers.onnx_file import FLOATS, MAX_FILE_BYTES, Info, OnnxFile, parse
from edge_lstm.importers.onnx_flow import BATCH, FEATURE, TIME, Axis, Flow, Network, Part
from edge_lstm.importers.onnx_joins import equal
from edge_lstm.importers.onnx_metadata import Description, decode, decode_states
from edge_lstm.importers.onnx_node import Array
from edge_lstm.importers.onnx_outputs import Result, result_of
from edge_lstm.importers.onnx_run import DAMAGE, Meaning, Problem, meanings, operator_problems
from edge_lstm.importers.onnx_states import StateInput, state_inputs
from edge_lstm.naming import identifier

# what the axes of the input may mean, by their number; the first that fits is taken
MEANINGS = {
    3: ((BATCH, TIME, FEATURE), (TIME, BATCH, FEATURE), (BATCH, FEATURE, TIME)),
    2: ((TIME, FEATURE), (BATCH, FEATURE)),
}
# sizes that stand for open ones; what a file computes must not depend on them
PROBES = ({BATCH: 61, TIME: 1009}, {BATCH: 67, TIME: 1013})
MAX_FEATURES = 1 << 14
MAX_SIZE = 1 << 24  # of the other axes
MAX_INPUTS = 256  # the sequence and states
MAX_PROBLEMS = 20


@dataclass(eq=False)
class Attempt:
    """The network under one meaning of the input's axes."""

    net: Network
    result: Result
    sizes: Mapping[str, int]
    open_rows: bool
    reached: int  # tensors whose meaning was found


def read_onnx(source: Path | bytes, constants: Mapping[str, np.ndarray[Any, Any]] | None = None) -> Graph:
    """Read an ONNX model whose input is a sequence of sensor rows.

    constants: values of inputs of the graph other than the sequence; inputs that are initial states need
    none where the file writes the last states as outputs (a streaming model).  The input is (batch, rows,
    features), (rows, batch, features) or (rows, features), as its operators demand.  An open number of rows
    is allowed where the network streams.  A file of this toolkit keeps its name, stream and ``made``.
    Raises ModelError for a file that is damaged or no ONNX model, UnsupportedModel with every reason for a
    model that cannot be carried.
    """
    where, stem, content = _opened(source)
    given = {name: np.asarray(value) for name, value in (constants or {}).items()}
    with np.errstate(all="ignore"):  # a hostile file may divide by 0; layers refuse what is not finite
        try:
            file = parse(content, given)
            description, initial = decode(file.metadata), decode_states(file.metadata)
        except UnsupportedModel as error:
            raise UnsupportedModel(f"{where}: {error}") from error
        except (ModelError, struct.error, *DAMAGE) as error:
            raise ModelError(f"{where}: {str(error)[:300]}; is it an ONNX model, and whole?") from error
        problems = [Problem(False, words) for words in file.problems] + operator_problems(file)
        sequence, others = _inputs(file, problems)
        attempt = None if sequence is None else _best(file, sequence, others, given, initial, problems)
        _raise_problems(where, problems)
        assert attempt is not None  # else there was a problem
        return _graph(where, stem, file, description, attempt)


def _opened(source: Path | bytes) -> tuple[str, str, bytes]:
    """How to call the file in messages, the name of its network, its bytes."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "the ONNX model", "", bytes(source[: MAX_FILE_BYTES + 1])
    path = Path(source)
    try:
        with path.open("rb") as file:
            return str(path), path.stem, file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path}: it cannot be read ({error.strerror}); give an .onnx file") from error


def _raise_problems(where: str, problems: Sequence[Problem]) -> None:
    words = list(dict.fromkeys(problem.words for problem in problems))
    if len(words) > MAX_PROBLEMS:
        words = [*words[:MAX_PROBLEMS], f"and {len(words) - MAX_PROBLEMS} more"]
    damaged = any(problem.damaged for problem in problems)
    raise_all(ModelError if damaged else UnsupportedModel, where, words)


def _inputs(file: OnnxFile, problems: list[Problem]) -> tuple[Info | None, list[StateInput]]:
    """The input that is the sequence, and those that are states."""
    if len(file.inputs) > MAX_INPUTS:
        problems.append(Problem(False, f"{len(file.inputs)} inputs, at most {MAX_INPUTS} are read"))
        return None, []
    states = state_inputs(file)
    read = {name for node in file.nodes for name in node.inputs}
    used = [info for info in file.inputs if info.name in read]
    if not used:
        problems.append(Problem(False, "no node reads an input: it computes constants only"))
        return None, []
    likely = sorted(used, key=lambda info: (info.name in states, info.kind not in (0, *FLOATS)))
    sequence = likely[0]
    where, shape = f"input '{sequence.name}'", sequence.shape
    if sequence.kind not in (0, *FLOATS):
        problems.append(
            Problem(False, f"{where} holds no floats (data type {sequence.kind}); give the float model")
        )
    if shape is None or len(shape) not in MEANINGS:
        words = f"{where} has {'unknown' if shape is None else len(shape)} axes"
        problems.append(Problem(False, f"{words}, expected (batch, rows, features) or (rows, features)"))
        return None, []
    return sequence, [states.get(info.name, StateInput(info)) for info in used if info is not sequence]


def _best(
    file: OnnxFile,
    sequence: Info,
    others: Sequence[StateInput],
    given: Mapping[str, Array],
    initial: Mapping[str, Array],
    problems: list[Problem],
) -> Attempt | None:
    """The first meaning of the input's axes that fits; else the problems of the likeliest one."""
    known: dict[str, Meaning] = {**file.constants, **given}
    failed: list[tuple[bool, int, list[Problem]]] = []
    for axes in MEANINGS[len(sequence.shape or ())]:
        attempts: list[Attempt] = []
        for probe in PROBES:
            sizes, found = _sizes(sequence, axes, probe)
            if not found:
                attempts.append(_attempt(file, sequence, axes, sizes, others, known, initial))
                found = attempts[-1].result.problems
            if found or problems or not _open_axes(sequence, axes):
                break
        if not found and len(attempts) == 2 and not _same(*attempts):
            found = [Problem(False, "what it computes depends on how many rows or streams it gets; export it "
                             "with a fixed number of rows")]  # fmt: skip
        if not found and not problems:
            return attempts[0]
        reached = max((attempt.reached for attempt in attempts), default=0)
        failed.append((not any(problem.axes for problem in found), reached, found))
    problems += max(failed, key=lambda entry: entry[:2])[2]
    return None


def _sizes(sequence: Info, axes: Axis, probe: Mapping[str, int]) -> tuple[dict[str, int], list[Problem]]:
    """The size of each axis of the sequence, with those of ``probe`` in place of open ones."""
    sizes = {BATCH: 1, TIME: 1}
    for axis, size in zip(axes, sequence.shape or (), strict=True):
        if axis == FEATURE and not isinstance(size, int):
            return sizes, [Problem(False, f"input '{sequence.name}' has an open number of features; fix it")]
        sizes[axis] = size if isinstance(size, int) and size else probe.get(axis, 0)
        if not 0 < sizes[axis] <= (MAX_FEATURES if axis == FEATURE else MAX_SIZE):
            return sizes, [Problem(True, f"input '{sequence.name}' claims the shape {sequence.shape}")]
    return sizes, []


def _open_axes(sequence: Info, axes: Axis) -> set[str]:
    """Which axes have no fixed size."""
    pairs = zip(axes, sequence.shape or (), strict=True)
    return {axis for axis, size in pairs if not isinstance(size, int) or not size}


def _attempt(
    file: OnnxFile,
    sequence: Info,
    axes: Axis,
    sizes: Mapping[str, int],
    others: Sequence[StateInput],
    known: Mapping[str, Meaning],
    initial: Mapping[str, Array],
) -> Attempt:
    net = Network(sizes[BATCH], sizes[TIME], file.opset)
    net.initial = {f"{name}_in": value for name, value in initial.items()}
    flows: dict[str, Meaning] = {other.info.name: other.flow(net) for other in others}
    flows[sequence.name] = net.flow([Part(INPUT, sizes[FEATURE])], [(axis,) for axis in axes])
    found, problems = meanings(file, net, {**known, **flows})
    result = result_of(file, net, found)
    result.problems = problems + result.problems
    reached = sum(isinstance(value, Flow) for value in found.values())
    return Attempt(net, result, sizes, TIME in _open_axes(sequence, axes), reached)


def _same(first: Attempt, second: Attempt) -> bool:
    """Whether two attempts made the same network."""
    a, b = first.net.draft, second.net.draft
    return a.sources == b.sources and all(
        equal([one, other]) for one, other in zip(a.layers, b.layers, strict=True)
    )


def _graph(where: str, stem: str, file: OnnxFile, description: Description | None, attempt: Attempt) -> Graph:
    """The network with the file's name, stream and story, or those that a foreign file gets."""
    features = attempt.sizes[FEATURE]
    made: dict[str, Any] = {"importer": "onnx", "producer": file.producer, "opset": file.opset}
    made |= attempt.result.made
    name, stream = identifier(stem or file.name), None
    if description is not None:
        name, stream, made = description.name, description.stream, dict(description.made)
        if len(stream.channels) != features:
            raise ModelError(
                f"{where}: its description names {len(stream.channels)} channels, its input has {features} "
                "features; write the file again"
            )
    rows = 0 if attempt.open_rows else attempt.sizes[TIME]
    graph = attempt.net.draft.graph(name, stream, features, rows, made)
    if graph.window and attempt.net.fed:
        names = ", ".join(f"'{name}'" for name in dict.fromkeys(name for name, _ in attempt.net.fed))
        raise UnsupportedModel(
            f"{where}: it keeps states between runs ({names}), but it needs whole windows; leave these "
            "inputs out"
        )
    return graph
