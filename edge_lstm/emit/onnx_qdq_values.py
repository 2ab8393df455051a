"""How the integer ONNX holds values: codes between operators, reals within them, weights as codes.

Reads codes and quantizations; writes QuantizeLinear, DequantizeLinear and constants into a Body.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_lstm.emit.onnx_body import Body
from edge_lstm.operators import Int8Array, Quantization


def fits_int32(codes: npt.NDArray[np.int64]) -> bool:
    """Whether DequantizeLinear takes them; the biases of 16-bit layers may have more bits."""
    return bool(np.abs(codes).max() < 2**31)


class Value(NamedTuple):
    """A tensor of codes, (rows, width)."""

    tensor: str
    quantization: Quantization
    width: int


class Writer:
    """The graph, or the body of a Scan within it, while it is written.

    Codes alone are placed, sliced and reshaped: ONNX Runtime moves a DequantizeLinear past such operators,
    and then fails where it also turns int8 into uint8 (1.31: "output_dtype INT8 does not match").
    body: takes the nodes.  graph: the Body of the whole graph, which dequantizes all weights, once a run.
    window: rows of a window, 0 for a streaming network.  profile: of the integers.
    """

    def __init__(self, body: Body, window: int, profile: str) -> None:
        self.body = self.graph = body
        self.window, self.profile = window, profile
        self.quantizations: dict[Quantization, list[str]] = {}
        self._lists: dict[tuple[int, ...], str] = {}
        self._reals: dict[tuple[str, Quantization], str] = {}

    def nested(self) -> Writer:
        """For the body of a Scan, which sees one row: with nodes of its own and the graph's constants."""
        inner = copy(self)
        inner.body, inner.window, inner._reals = self.body.nested(), 1, {}
        return inner

    def integers(self, *values: int) -> str:
        """A constant list: axes, starts, ends or a shape."""
        if values not in self._lists:
            self._lists[values] = self.graph.constant("integers", list(values))
        return self._lists[values]

    def _scaling(self, quantization: Quantization) -> list[str]:
        """Its scale and its zero point, whose type says how many bits the codes have."""
        if quantization not in self.quantizations:
            zero_point = np.array(quantization.zero_point, dtype=quantization.dtype)
            self.quantizations[quantization] = [
                self.graph.constant("scale", quantization.scale),
                self.graph.constant("zero_point", zero_point),
            ]
        return self.quantizations[quantization]

    def codes(self, real: str, name: str, quantization: Quantization) -> str:
        """Round the tensor ``real``, saturating; returns the tensor of its codes."""
        return self.body.add("QuantizeLinear", [real, *self._scaling(quantization)], f"{name}/codes")

    def real(self, codes: str, quantization: Quantization) -> str:
        """The reals of a tensor of codes; every tensor is dequantized once."""
        key = codes, quantization
        if key not in self._reals:
            self._reals[key] = self.output(codes, quantization, f"{codes}/real")
        return self._reals[key]

    def output(self, codes: str, quantization: Quantization, name: str) -> str:
        """The reals of a tensor of codes under a name that matters: of an output of the graph."""
        return self.body.add("DequantizeLinear", [codes, *self._scaling(quantization)], name)

    def weights(
        self,
        name: str,
        codes: Int8Array,
        scales: npt.NDArray[Any],
        axis: int,
        zero_points: Int8Array | None = None,
    ) -> str:
        """Dequantized weights.  scales: (1,) or, one an entry of ``axis``, (entries,); zero_points alike."""
        zero_points = np.zeros(scales.shape, np.int8) if zero_points is None else zero_points
        whole = len(scales) == 1
        given = [
            self.graph.constant(name, codes),
            self.graph.constant(f"{name}/scale", scales[0] if whole else scales),
            self.graph.constant(f"{name}/zero_point", zero_points[0] if whole else zero_points),
        ]
        attributes = {} if whole else {"axis": axis}
        return self.graph.add("DequantizeLinear", given, f"{name}/real", **attributes)

    def bias(self, name: str, codes: npt.NDArray[np.int64], scales: npt.NDArray[np.float64]) -> str:
        """Biases (..., entries), scales (entries,): int32, or floats where 32 bits do not hold the codes."""
        if not fits_int32(codes):
            return self.graph.constant(name, codes * scales)
        given = [
            self.graph.constant(name, codes.astype(np.int32)),
            self.graph.constant(f"{name}/scale", scales),
        ]
        return self.graph.add("DequantizeLinear", given, f"{name}/real", axis=codes.ndim - 1)

    def cut(self, codes: str, name: str, axis: int, start: int, end: int | None = None, step: int = 1) -> str:
        """The entries ``start`` .. ``end - 1`` of an axis; end None: all that follow."""
        limit = np.iinfo(np.int64).max if step > 0 else np.iinfo(np.int64).min
        lists = [self.integers(at) for at in (start, int(limit) if end is None else end, axis, step)]
        return self.body.add("Slice", [codes, *lists], name)

    def reshaped(self, operator: str, codes: str, name: str, axes: Sequence[int]) -> str:
        """``operator`` Squeeze or Unsqueeze."""
        return self.body.add(operator, [codes, self.integers(*axes)], name)
