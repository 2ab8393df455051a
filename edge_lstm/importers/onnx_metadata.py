"""What this toolkit's .onnx files hold beside their network: name, stream, how it was made, first states.

Reads the JSON that ``emit/onnx_model.py`` writes; writes plain values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_lstm.arrays import FloatArray
from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.graph import Channel, Stream

NAME, STATES = "edge_lstm", "edge_lstm_states"  # of the file's metadata entries
FORMAT = 1
MAX_CHARACTERS = 1 << 22
# what Python's readers raise on damaged text
DAMAGE = (LookupError, TypeError, ValueError, OverflowError, RecursionError, AttributeError)


@dataclass(frozen=True, eq=False)
class Description:
    """The part of a Graph that the operators of a file do not hold."""

    name: str
    stream: Stream
    made: Mapping[str, Any]


def decode(metadata: Mapping[str, str]) -> Description | None:
    """The description, None in a file of another tool.

    Raises ModelError where the JSON is damaged, UnsupportedModel where a newer version wrote it.
    """
    if NAME not in metadata:
        return None
    try:
        values = _json(metadata[NAME])
        if values["format"] != FORMAT:
            raise UnsupportedModel(
                f"its description has format {values['format']!r}, this version reads {FORMAT}; "
                "update edge-lstm, or write the file again"
            )
        stream = values["stream"]
        period_s = float(stream["period_s"])
        if not 0 <= period_s < math.inf:
            raise ValueError(f"period_s is {period_s}")
        channels = tuple(_channel(**channel) for channel in stream["channels"])
        return Description(_text(values["name"]), Stream(channels, period_s), dict(values["made"]))
    except DAMAGE as error:
        raise ModelError(_damaged(NAME, error)) from error


def decode_states(metadata: Mapping[str, str]) -> dict[str, FloatArray]:
    """Values of states after reset by name; those that are all 0 are left out.  Raises ModelError."""
    try:
        states = _json(metadata.get(STATES, "{}"))
        return {
            _text(name): np.array(state["initial"], dtype=np.float32).reshape(_shape(state["shape"]))
            for name, state in states.items()
            if state["initial"] != 0
        }
    except DAMAGE as error:
        raise ModelError(_damaged(STATES, error)) from error


def _json(content: str) -> Any:
    if len(content) > MAX_CHARACTERS:
        raise ValueError(f"{len(content)} characters, at most {MAX_CHARACTERS} are read")
    return json.loads(content)


def _damaged(entry: str, error: Exception) -> str:
    return (
        f"its description (metadata '{entry}') is damaged ({type(error).__name__}: {str(error)[:120]}); "
        "write the file again"
    )


def _shape(sizes: list[Any]) -> tuple[int, ...]:
    """Sizes as they are: -1 would fit any number of values."""
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ValueError(f"shape {sizes}")
    return tuple(sizes)


def _channel(name: str, unit: str, center: float, scale: float, context: bool = False) -> Channel:
    return Channel(_text(name), _text(unit), float(center), float(scale), context=context is True)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value
