"""Seeded random LSTM operators: every variant and 16 bits, odd sizes, any zero points, calm or saturating.

operator = random_lstm(7, "peephole", "normalization")
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_lstm.graph import Stream
from edge_lstm.lstm_operators import CELL_POWERS, QLstm, Variant
from edge_lstm.operators import CodeArray, Quantization
from edge_lstm.qgraph import QGraph

PARTS = ("coupled", "peephole", "projection", "normalization")
F = np.float32


def _codes(values: npt.NDArray[Any], top: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
    """Symmetric codes up to ``top`` and a float32 scale for every entry of axis 0."""
    scales = F(np.abs(values).reshape(len(values), -1).max(axis=1) / top)
    shaped = scales.astype(np.float64).reshape(-1, *[1] * (values.ndim - 1))
    return np.clip(np.rint(values / shaped), -top, top), scales


def _quantization(rng: np.random.Generator, low: float, high: float, bits: int) -> Quantization:
    """A range of ``low`` .. ``high`` on either side."""
    scale = float(F(rng.uniform(low, high) / ((1 << (bits - 1)) - 1)))
    zero_point = int(rng.choice([-128, 127, *rng.integers(-128, 128, 8)])) if bits == 8 else 0
    return Quantization(scale, zero_point, bits)


def _peephole(rng: np.random.Generator, units: int, spread: float) -> dict[str, Any]:
    """Every other one has few bits: then its products meet ties."""
    codes, scales = _codes(rng.normal(0, 0.7 * spread, (3, units)), int(rng.choice([50, 32767])))
    return {"peephole": codes, "peephole_scales": scales}


def _normalization(rng: np.random.Generator, units: int, spread: float) -> dict[str, Any]:
    """Every fifth has gates so coarse that their variance is 0."""
    codes, scales = _codes(rng.normal(1, 0.4 * spread, (4, units)), 32767)
    gates = rng.uniform(1, 6, 4) * spread / 32767 * float(rng.choice([1, 1, 1, 0.25, 3000]))
    scales = scales * F(rng.choice([1, 8]))
    return {"normalization": codes, "normalization_scales": scales, "gate_scales": gates}


def _projection(
    rng: np.random.Generator, sizes: tuple[int, int], spread: float, hidden: Quantization, inner: Quantization
) -> dict[str, Any]:
    """Some without a bias; some clipped, where the hidden zero point is 0."""
    units, outputs = sizes
    codes, scales = _codes(rng.normal(0, spread / np.sqrt(units), (1, outputs, units)), 127)
    fields: dict[str, Any] = {"projection": codes[0], "projection_scale": float(scales[0])}
    if rng.random() < 0.7:
        fields["projection_bias"] = np.rint(rng.normal(0, 0.2, outputs) / (scales[0] * inner.scale))
    if hidden.zero_point == 0:
        fields["projection_clip"] = hidden.scale * float(rng.uniform(1, 200))
    return fields


def random_lstm(
    seed: int, *parts: str, bits: int = 8, units: int | None = None, saturating: bool | None = None
) -> QLstm:
    """One operator; sizes 1 .. 40 unless given, every other seed saturating unless told.

    parts: of its variant, some of ``PARTS``.  Peepholes beside a projection need as many outputs as units.
    """
    rng = np.random.default_rng([seed, bits, *(PARTS.index(part) for part in parts)])
    spread = rng.uniform(1, 6) if (seed % 2 if saturating is None else saturating) else 1.0
    units, features = units or int(rng.integers(1, 41)), int(rng.integers(1, 25))
    free = "projection" in parts and "peephole" not in parts
    outputs = int(rng.integers(1, 41)) if free else units
    x, hidden = _quantization(rng, 1, 4, bits), _quantization(rng, 0.3, 1.2, bits)
    if "projection" in parts and seed % 3 == 0:
        hidden = replace(hidden, zero_point=0)
    inner = _quantization(rng, 0.3, 1.2, bits) if "projection" in parts and seed % 4 else None
    kernel, kernel_scales = _codes(rng.normal(0, spread / np.sqrt(features), (4, units, features)), 127)
    recurrent, recurrent_scales = _codes(rng.normal(0, spread / np.sqrt(outputs), (4, units, outputs)), 127)
    fields: dict[str, Any] = {}
    if "peephole" in parts:
        fields |= _peephole(rng, units, spread)
    if "normalization" in parts:
        fields |= _normalization(rng, units, spread)
    if "projection" in parts:
        fields |= _projection(rng, (units, outputs), spread, hidden, inner or hidden)
    steps = kernel_scales * x.scale
    if "normalization" in parts:
        steps = fields["normalization_scales"] / 1024
    bias = np.rint(rng.normal(0, 0.5 * spread, (4, units)) / steps[:, None])
    if "coupled" in parts:
        gates = (kernel, recurrent, bias, fields.get("peephole"), fields.get("normalization"))
        scales = (fields.get(f"{part}_scales") for part in ("peephole", "normalization"))
        for array, value in (
            *((gate, 0) for gate in gates), *((s, 1) for s in (kernel_scales, recurrent_scales, *scales)),
        ):  # fmt: skip
            if array is not None:
                array[0] = value
    return QLstm(
        f"lstm_{seed}", kernel, recurrent, np.clip(bias, -(2**29), 2**29), kernel_scales, recurrent_scales, x,
        hidden, int(rng.choice(CELL_POWERS)), float(rng.choice([0, 0, 0.7, 3.3, 10])), inner=inner,
        variant=Variant("coupled" in parts, **fields) if parts else None,
    )  # fmt: skip


def random_parts(seed: int) -> tuple[str, ...]:
    """Two or more of ``PARTS``."""
    rng = np.random.default_rng([seed, 77])
    count = int(rng.integers(2, len(PARTS) + 1))
    return tuple(PARTS[index] for index in sorted(rng.choice(len(PARTS), count, replace=False)))


def alone(layer: QLstm, name: str, profile: str, timesteps: int = 1) -> QGraph:
    """The network of this one operator."""
    return QGraph(name, (layer,), Stream.unnamed(layer.features), profile, timesteps)


def lstm_codes(seed: int, layer: QLstm, steps: int) -> CodeArray:
    """Codes (steps, features): noise, calm values or the rails."""
    rng = np.random.default_rng([seed, 3])
    low, high = layer.input.low, layer.input.high
    shape = (steps, layer.features)
    drawn = [
        rng.integers(low, high + 1, shape),
        np.clip(np.rint(rng.normal(layer.input.zero_point, high / 4, shape)), low, high),
        rng.choice(np.array([low, 0, high]), shape),
    ]
    codes: CodeArray = drawn[int(rng.integers(3))].astype(layer.input.dtype)
    return codes
