"""Seeded random networks and streams that drive the integer arithmetic into its corners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.detection import fixed
from edge_lstm.detection.fixed import QDetector
from edge_lstm.emit.c_code import emit_c
from edge_lstm.errors import ModelError
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.streams import mixed_stream
from edge_lstm.graph import Dense, Graph, Lstm, Stream
from edge_lstm.lower import lower
from edge_lstm.qgraph import CELL_POWERS, Int8Array, QDense, QGraph, QLstm, Quantization
from edge_lstm.quantizer import QuantizeConfig, quantize
from edge_lstm.scales import portable_hidden_scale, portable_scale
from edge_lstm.scaling import QScaling, scaling_of
from edge_lstm.verbs.verify import raw_stream

CLIPS = (0.0, 0.0, 0.7, 3.3, 10.0)


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Int8Array:
    """Wide codes, a few zeros and, rarely, -128."""
    codes = np.clip(np.rint(rng.normal(0, rng.uniform(8, 60), shape)), -127, 127)
    codes[rng.random(shape) < 0.002] = -128
    codes[rng.random(shape) < 0.05] = 0
    return codes.astype(np.int8)


def _zero_point(rng: np.random.Generator) -> int:
    return int(rng.choice([-128, 127, 0, *rng.integers(-100, 100, 5)]))


def _gate_scales(rng: np.random.Generator, reach: float, columns: int) -> npt.NDArray[np.float32]:
    """float32 (4,): a typical sum of ``columns`` products moves a gate by up to ``reach``."""
    typical = reach / (30 * 64 * np.sqrt(columns))
    scales = [portable_scale(typical * rng.uniform(0.3, 1.5)) for _ in range(4)]
    return np.array(scales, dtype=np.float32)


def _lstm(
    rng: np.random.Generator, name: str, source: Quantization, features: int, units: int, saturating: bool
) -> QLstm:
    hidden = Quantization(portable_hidden_scale(rng.uniform(0.4, 2.0) / 255), _zero_point(rng))
    reach = rng.uniform(10, 40) if saturating else rng.uniform(1, 4)
    kernel_scales = _gate_scales(rng, reach, features) / np.float32(source.scale)
    recurrent_scales = _gate_scales(rng, reach, units) / np.float32(hidden.scale)
    kernel_scales = np.array([portable_scale(float(s)) for s in kernel_scales], dtype=np.float32)
    recurrent_scales = np.array([portable_scale(float(s)) for s in recurrent_scales], dtype=np.float32)
    bias = rng.normal(0, 1.0, (4, units)) / (kernel_scales.astype(np.float64) * source.scale)[:, None]
    return QLstm(
        name, _weights(rng, (4, units, features)), _weights(rng, (4, units, units)),
        np.rint(bias).astype(np.int32), kernel_scales, recurrent_scales, source, hidden,
        int(rng.choice(CELL_POWERS)), float(rng.choice(CLIPS)),
    )  # fmt: skip


def _dense(
    rng: np.random.Generator, source: Quantization, features: int, outputs: int, output: Quantization
) -> QDense:
    rows = int(rng.choice([1, outputs]))
    per_code = output.scale * rng.uniform(20, 120) / (source.scale * 30 * 60 * np.sqrt(features))
    scales = [portable_scale(per_code * rng.uniform(0.5, 1.5)) for _ in range(rows)]
    bias = rng.normal(0, 30, outputs) * output.scale / (per_code * source.scale)
    return QDense(
        "dense", _weights(rng, (outputs, features)), np.rint(bias).astype(np.int32),
        np.array(scales, dtype=np.float32), source, output,
    )  # fmt: skip


def random_detector(
    rng: np.random.Generator, channels: int, start: int, output_zero_point: int, output_bits: int = 8
) -> QDetector:
    """A detector with every option drawn, but for its threshold.  start: its fine code of an input of 0."""
    levels, lags = bool(rng.integers(2)), int(rng.choice([0, 0, 1, 3, 16]))
    rows = channels * (1 + levels)
    forms_shift, whitening_shift = int(rng.integers(8, 15)), int(rng.integers(6, 14))
    forms = whitening = None
    if lags or rng.random() < 0.5:
        past = rng.normal(0, 0.5 / np.sqrt(channels * (lags + 1)), (channels, lags * channels))
        forms = _matrix(np.hstack([np.eye(channels), past]), forms_shift)
    if rng.random() < 0.5:
        mixed = rng.normal(0, 0.4, (channels, channels)) + np.eye(channels)
        whitening = _matrix(mixed, whitening_shift)
    shift = int(rng.integers(0, 13))
    weight = max(int(2.0**shift * rng.uniform(0.05, 1)), 1)
    added = int(2.0 ** (shift - output_bits + 8) * rng.uniform(0, 20))
    ahead = (1, 0, 1, 3, 16)[(shift + channels) % 5]
    gains = rng.permutation([256, int(rng.choice([0, 13, 100, 256]))]).tolist()
    return QDetector(
        start=start, lags=lags, forms=forms, forms_shift=forms_shift,
        residual_weight=rng.integers(weight // 2 + 1, weight + 2, rows),
        output_weight=rng.integers(0, added + 2, channels), output_zero_point=output_zero_point,
        offset=rng.integers(-500 * weight, 500 * weight + 1, rows), shift=shift,
        level_limit=int(rng.choice([1, 1024, 32767])) if levels else 0,
        whitening=whitening, whitening_shift=whitening_shift,
        alpha=int(rng.choice([1, 26, 128, 200, 255, 256])),
        smoothed_gain=gains[0], energy_gain=gains[1],
        base=0, excess=0, gain=int(rng.choice([0, 100, 300])), rate=int(rng.integers(0, 8)),
        clear=int(rng.choice([128, 200, 256])), debounce=int(rng.choice([1, 2, 5])),
        warmup=max(lags, ahead, int(rng.choice([1, 3, 20]))), ahead=ahead, output_bits=output_bits,
        **_random_options(np.random.default_rng([weight, shift, rows]), channels, rows),
    )  # fmt: skip


def _random_options(rng: np.random.Generator, channels: int, rows: int) -> dict[str, Any]:
    """What may be off: knees, adaptation, stuck channels, holds; the running mean of the scores."""
    if rng.random() < 0.3:
        return {}
    options: dict[str, Any] = {
        "hold": int(rng.choice([0, 0, 1, 7])),
        "cooldown": int(rng.choice([0, 0, 1, 9])),
    }
    if rng.random() < 0.4:
        options["knee"] = rng.integers(1, 8000, rows)
    if rng.random() < 0.4:
        options |= {"adapt": int(rng.choice([1, 3, 8, 18])), "adapt_limit": int(rng.choice([0, 700, 3072]))}
        options["usual"] = rng.integers(0, 4000, rows)
    if rng.random() < 0.4:
        options["stuck"] = rng.integers(0, 4, channels)
    return options | {"depth": int(rng.choice([0, 0, 4, 8, 20]))}


def _matrix(values: np.ndarray, shift: int) -> np.ndarray:
    """int16 codes of ``values`` whose rows sum within what the detector takes."""
    limit = 65000.0 / np.abs(values).sum(axis=1).max()
    return np.rint(values * min(2.0**shift, limit, 32767 / np.abs(values).max())).astype(np.int16)


def with_lively_threshold(rng: np.random.Generator, qgraph: QGraph, detector: QDetector) -> QGraph:
    """Put the threshold among the scores of a random stream, so that alarms come and go."""
    scores = NumpyExecutor(qgraph).detect(random_raw(qgraph, 0, 200)).score
    base = int(np.quantile(scores, rng.uniform(0.3, 0.8)))
    excess = int(base * rng.uniform(0, 0.1))
    mean = int(base * rng.uniform(0, 1)) if detector.depth else 0
    return replace(qgraph, detector=replace(detector, base=base - mean, excess=excess, score_mean=mean))


def random_qgraph(
    seed: int,
    layers: int | None = None,
    units: int | None = None,
    features: int | None = None,
    dense: bool = True,
    saturating: bool = False,
    detector: bool = False,
) -> QGraph:
    """A network that ``lower`` accepts under both profiles, with the same multipliers under both.

    Sizes 1 .. 40, one or two LSTM layers, a dense head unless ``dense`` is False; a detector needs as many
    outputs as features.  saturating: gates and their sums leave Q3.12.
    """
    for attempt in range(100):
        rng = np.random.default_rng([seed, attempt])
        qgraph = _draw(rng, f"random_{seed}", layers, units, features, dense, saturating, detector)
        try:
            lower(qgraph)
            lower(qgraph.with_profile("litert"))
        except ModelError:
            continue
        if qgraph.detector is None:
            return qgraph
        return with_lively_threshold(rng, with_random_resolution(qgraph, seed), qgraph.detector)
    raise AssertionError(f"seed {seed}: no network of these sizes is free of overflow")


def _draw(
    rng: np.random.Generator,
    name: str,
    layers: int | None,
    units: int | None,
    features: int | None,
    dense: bool,
    saturating: bool,
    detector: bool,
) -> QGraph:
    width = int(rng.integers(1, 41)) if features is None else features
    source = Quantization(portable_scale(rng.uniform(2, 12) / 255), _zero_point(rng))
    first = source
    built: list[QLstm | QDense] = []
    columns = width
    for index in range(int(rng.integers(1, 3)) if layers is None else layers):
        size = int(rng.integers(1, 41)) if units is None else units
        if detector and not dense:
            size = width
        built.append(_lstm(rng, f"lstm_{index}", source, columns, size, saturating))
        source, columns = built[-1].output, size
    if dense:
        outputs = width if detector else int(rng.integers(1, 41))
        output = Quantization(portable_scale(rng.uniform(1, 8) / 255), _zero_point(rng))
        built.append(_dense(rng, source, columns, outputs, output))
        source = output
    made = random_detector(rng, width, 64 * first.zero_point, source.zero_point) if detector else None
    return QGraph(name, tuple(built), Stream.unnamed(width), detector=made)


def random_wide_qgraph(seed: int, profile: str, units: int = 7, features: int = 3) -> QGraph:
    """A network of 16-bit codes: an LSTM, a head and a detector; it looks 0, 1, 3 or 16 rows ahead."""
    rng = np.random.default_rng([seed, 16])
    kernels = [rng.normal(0, 1 / np.sqrt(rows), (rows, 4 * units)) for rows in (features, units)]
    head = Dense("dense", rng.normal(0, 0.6, (units, features)), rng.normal(0, 0.2, features))
    lstm = Lstm("lstm", *kernels, rng.normal(0, 0.3, 4 * units))
    graph = Graph(f"wide_{profile}_{seed}", (lstm, head), Stream.unnamed(features))
    x = rng.normal(0, 1, (300, features)).cumsum(axis=0) / 5
    qgraph = quantize(graph, x, QuantizeConfig(profile=profile, scheme="int16x8"))
    drawn, ahead = random_detector(rng, features, 0, qgraph.output.zero_point, 16), (0, 1, 3, 16)[seed % 4]
    detector = replace(drawn, ahead=ahead, warmup=max(drawn.warmup, ahead))
    found = with_random_resolution(replace(qgraph, detector=detector), seed)
    return with_lively_threshold(rng, found, detector)


def random_codes(seed: int, steps: int, features: int) -> Int8Array:
    """int8 (steps, features): smooth walks, uniform noise, rails and silence, changing every few rows."""
    return mixed_stream(features, steps, seed)


def with_random_resolution(qgraph: QGraph, seed: int) -> QGraph:
    """Channels whose counts are finer or coarser than a code, from zeros near and far."""
    rng = np.random.default_rng([seed, 3])
    channels = tuple(
        replace(channel, resolution=step, zero=step * float(rng.normal(0, 10.0 ** rng.integers(0, 7))))
        for channel in qgraph.stream.channels
        for step in [float(qgraph.input.scale * 2.0 ** rng.uniform(-14, 2))]
    )
    return replace(qgraph, stream=replace(qgraph.stream, channels=channels))


def scaling_for(qgraph: QGraph) -> QScaling:
    """How a network's raw integers become codes."""
    scaling = scaling_of(qgraph.stream, qgraph.input)
    assert scaling is not None
    return scaling


def c_files(qgraph: QGraph, header_lines: Sequence[str] = ()) -> dict[str, str]:
    """The C of a network with its scaling, as it is exported."""
    return emit_c(lower(qgraph), header_lines, scaling_of(qgraph.stream, qgraph.input))


def random_raw(
    qgraph: QGraph, seed: int, steps: int, present: npt.NDArray[np.bool_] | None = None
) -> npt.NDArray[np.int32]:
    """Raw integers (steps, features) around ``random_codes`` and beyond; missing where not ``present``."""
    codes = mixed_stream(qgraph.features, steps, seed, qgraph.input.bits)
    raw = raw_stream(scaling_for(qgraph), codes, seed)
    return raw if present is None else np.where(present, raw, np.int32(fixed.MISSING))


def random_present(seed: int, steps: int, features: int) -> npt.NDArray[np.bool_]:
    """bool (steps, features): single gaps, long gaps of a channel, rows without any channel, also first."""
    rng = np.random.default_rng([seed, 2])
    present = rng.random((steps, features)) > 0.15
    for _ in range(max(steps // 50, 1)):
        at = int(rng.integers(0, steps))
        present[at : at + int(rng.integers(1, 12)), int(rng.integers(0, features))] = False
        at = int(rng.integers(0, steps))
        present[at : at + int(rng.integers(1, 6))] = False
    present[:2] = rng.random((min(steps, 2), features)) > 0.7
    return present
