"""verify: does every executor compute, code by code, what the reference of its profile computes?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.detection import fixed
from edge_lstm.errors import ConfigError, MissingTool
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.protocol import Executor
from edge_lstm.executors.refusals import refusal
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.lower import lower
from edge_lstm.qgraph import CodeArray, QGraph, QLstm
from edge_lstm.reference import integer
from edge_lstm.scaling import QScaling, scaling_of
from firmware_tools.executors import CHOICES, NAMES, is_compiled, is_device, open_executor

Progress = Callable[[int, int, str], None]
STATE_WINDOWS = 8  # invocations of each of the two calls that show whether the state is kept
DETECTOR_STEPS = 2_000  # rows whose scores are compared as well
EXTREMES = (fixed.MISSING + 1, fixed.INT32_MAX, -(1 << 30) - 1, 1 << 30)  # raw integers, the ends first
EXTREME = 0.02  # of the values, in a stream that proves the detector
CHUNK_STEPS = 997  # prime: calls end everywhere in the stream, so the carried state is proven too


@dataclass(frozen=True)
class Difference:
    """Codes of one executor against the reference.

    codes: compared.  first: step, output, got and expected of the first difference, or None.
    """

    codes: int
    differing: int
    max_difference: int
    first: dict[str, int] | None


@dataclass(frozen=True)
class Agreement:
    """One executor's result.

    profile: what it implements.  other_profile: how far the reference of litert (for tflm) or of tflm (for
    the others) is from it on the same stream.  keeps_state: whether a second call goes on from the state of
    the first, None where this network's outputs do not tell.  detector: scores and alarms against the
    integer detector, None where not compared.
    """

    executor: str
    profile: str
    network: Difference
    other_profile: dict[str, Any]
    keeps_state: bool | None
    detector: Difference | None

    @property
    def agrees(self) -> bool:
        return self.network.differing == 0 and (self.detector is None or self.detector.differing == 0)

    def to_json(self) -> dict[str, Any]:
        """The entry of ``verify --json``."""
        entry = {
            **vars(self.network),
            "profile": self.profile,
            "other_profile": self.other_profile,
            "keeps_state": self.keeps_state,
        }
        if self.detector is not None:
            entry["detector"] = dict(vars(self.detector))
        return entry


@dataclass(frozen=True)
class Verification:
    """All executors of one ``verify``; skipped: those that are not installed or cannot run it, and why.

    notes: what of the file makes runtimes differ, in plain words.
    """

    model: str
    steps: int
    agreements: tuple[Agreement, ...]
    skipped: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return all(agreement.agrees for agreement in self.agreements)


def difference(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> Difference:
    """Compare (steps, outputs); first names the earliest step, then the lowest output."""
    if found.shape != expected.shape:
        raise ValueError(f"compared {found.shape} with {expected.shape}")
    distance = np.abs(found.astype(np.int64) - expected.astype(np.int64))
    wrong = np.argwhere(distance)
    first = None
    if len(wrong):
        step, output = (int(index) for index in wrong[0])
        first = {
            "step": step,
            "output": output,
            "got": int(found[step, output]),
            "expected": int(expected[step, output]),
        }
    return Difference(int(distance.size), len(wrong), int(distance.max(initial=0)), first)


def reference_codes(qgraph: QGraph, codes: CodeArray) -> CodeArray:
    """What the file must return for streams (lanes, steps, features), as (rows, outputs)."""
    if qgraph.window:
        windows = codes.reshape(-1, qgraph.window, qgraph.features)
        return integer.run(lower(qgraph), windows)[0].reshape(-1, qgraph.outputs)
    outputs, _ = integer.run(lower(qgraph), codes)
    every = qgraph.timesteps if qgraph.last_only else 1
    returned: CodeArray = outputs[:, every - 1 :: every].reshape(-1, qgraph.outputs)
    return returned


def run_in_chunks(executor: Executor, codes: CodeArray) -> CodeArray:
    """Run streams (lanes, steps, features) with the state carried over uneven calls."""
    if len(codes) > 1:
        return executor.run_windows(codes).reshape(-1, executor.qgraph.outputs)
    timesteps = executor.qgraph.timesteps
    chunk = max(1, CHUNK_STEPS // timesteps) * timesteps
    executor.reset()
    stream = codes[0]
    parts = [executor.run(stream[start : start + chunk]) for start in range(0, len(stream), chunk)]
    return np.concatenate(parts)


def keeps_state(executor: Executor, codes: CodeArray) -> bool | None:
    """Run the same rows (steps, features) twice without a reset: a runtime that forgets repeats its codes.

    None where the reference returns the same codes either way, so that nothing can be seen.
    """
    if executor.qgraph.window:
        return None
    qgraph = executor.qgraph.with_profile(executor.profile)
    rows = codes[: qgraph.timesteps * STATE_WINDOWS]
    with NumpyExecutor(qgraph) as reference:
        fresh, continued = reference.run(rows), reference.run(rows)
    if (fresh == continued).all():
        return None
    executor.reset()
    first, second = executor.run(rows), executor.run(rows)
    return bool((first != second).any())


def _detector_difference(
    executor: Executor, qgraph: QGraph, codes: CodeArray, seed: int
) -> Difference | None:
    """Scores and alarms of executors that carry the detector, from raw integers, a tenth of them missing."""
    if qgraph.detector is None or not is_compiled(executor.name):
        return None
    scaling = scaling_of(qgraph.stream, qgraph.input)
    if scaling is None:
        return None
    raw = raw_stream(scaling, codes[:DETECTOR_STEPS], seed)
    rng = np.random.default_rng(seed)
    missing = (rng.random(raw.shape) < 0.1) | (rng.random((len(raw), 1)) < 0.02)
    raw = np.where(missing, np.int32(fixed.MISSING), raw)
    reference = NumpyExecutor(qgraph.with_profile(executor.profile))
    executor.reset()
    return difference(_detection_columns(executor.detect(raw)), _detection_columns(reference.detect(raw)))


def raw_stream(scaling: QScaling, codes: CodeArray, seed: int) -> npt.NDArray[np.int32]:
    """Raw integers (steps, features) around ``codes``, off their middle, some of them extreme or anywhere in
    the reach of the fine codes."""
    rng = np.random.default_rng(seed)
    reach = (scaling.high - scaling.low) // 2
    raw = scaling.counts(codes) + rng.integers(-reach // 512, reach // 512 + 1, codes.shape)
    drawn = rng.random(codes.shape)
    raw = np.where(drawn < EXTREME, rng.integers(scaling.low - reach, scaling.high + reach, codes.shape), raw)
    raw = np.where(drawn < EXTREME / 2, rng.choice(EXTREMES, codes.shape), raw)
    counts: npt.NDArray[np.int32] = np.clip(raw, *EXTREMES[:2]).astype(np.int32)
    return counts


def _detection_columns(detection: fixed.Detection) -> npt.NDArray[np.int64]:
    columns = [
        detection.score,
        detection.alarm.astype(np.int64),
        detection.threshold,
        *detection.contributions.T,
    ]
    return np.stack(columns, axis=1).astype(np.int64)


def verification_stream(qgraph: QGraph, steps: int, seed: int) -> CodeArray:
    """Codes (lanes, steps, features): whole windows, at least ``steps`` rows over all lanes."""
    unit = qgraph.timesteps * qgraph.lanes
    windows = -(-steps // unit)
    flat = mixed_stream(qgraph.features, windows * unit, seed, qgraph.input.bits)
    return flat.reshape(qgraph.lanes, windows * qgraph.timesteps, qgraph.features)


def verify_graph(
    qgraph: QGraph,
    on: Sequence[str] | None = None,
    steps: int = 10_000,
    seed: int = 0,
    model: bytes | None = None,
    c_dir: Path | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Verify a network that is in memory; see ``verify``."""
    if steps < 1:
        raise ConfigError(f"steps is {steps}, expected 1 or more")
    unknown = [name for name in on or () if name not in NAMES and not is_device(name)]
    if unknown:
        raise ConfigError(f"--on: unknown executor {', '.join(unknown)}; choose from {CHOICES}")
    codes = verification_stream(qgraph, steps, seed)
    references = {name: reference_codes(qgraph.with_profile(name), codes) for name in qgraph.profiles}
    agreements, skipped = [], {}
    names = tuple(on or NAMES)
    for index, name in enumerate(names):
        if progress:
            progress(index, len(names), name)
        reason = refusal(name, qgraph)
        if reason is not None and on:
            raise ConfigError(f"--on {name}: {reason}")
        try:
            executor = None if reason is not None else open_executor(name, qgraph, model, c_dir)
        except MissingTool as error:
            if on:
                raise
            reason, executor = str(error), None
        if executor is None:
            skipped[name] = str(reason)
            continue
        with executor:
            agreements.append(_agreement(executor, qgraph, codes, references, seed))
    if progress:
        progress(len(names), len(names), "done")
    steps = codes.shape[0] * codes.shape[1]
    return Verification(qgraph.name, steps, tuple(agreements), skipped, file_notes(qgraph))


def file_notes(qgraph: QGraph) -> tuple[str, ...]:
    """LSTMs whose quantizations disagree, as TensorFlow's quantizer writes them."""
    return tuple(
        f"lstm '{layer.name}' has other scales for its state than for its output: TensorFlow Lite Micro "
        "reads the one, LiteRT the other, and their codes lie far apart; quantize the float model here"
        for layer in qgraph.layers
        if isinstance(layer, QLstm)
        and layer.variant is None
        and any(other not in (None, layer.hidden) for other in (layer.inner, layer.written))
    )


def _agreement(
    executor: Executor,
    qgraph: QGraph,
    codes: CodeArray,
    references: dict[str, CodeArray],
    seed: int,
) -> Agreement:
    profile = executor.profile
    other = "litert" if profile == "tflm" else "tflm"
    other = other if other in references else profile
    apart = difference(references[profile], references[other])
    return Agreement(
        executor.name,
        profile,
        difference(run_in_chunks(executor, codes), references[profile]),
        {"profile": other, "differing": apart.differing, "max_difference": apart.max_difference},
        keeps_state(executor, codes[0]),
        _detector_difference(executor, qgraph, codes[0], seed),
    )


def verify(
    model: Path,
    on: Sequence[str] | None = None,
    steps: int = 10_000,
    seed: int = 0,
    profile: str | None = None,
    c_dir: Path | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Run every executor of ``on`` over one seeded stream and compare each code with the reference.

    on: names of executors (None: every one that is installed).  profile: overrides the file's.
    c_dir: a folder with exported C that host and cores compile instead of fresh C.
    Raises ModelError for a file that cannot be read, MissingTool for a named executor that is not installed.
    """
    content = Path(model).read_bytes() if Path(model).is_file() else b""
    qgraph = read_tflite(Path(model))
    if profile is not None:
        qgraph = qgraph.with_profile(profile)
    return verify_graph(qgraph, on, steps, seed, content, c_dir, progress)
