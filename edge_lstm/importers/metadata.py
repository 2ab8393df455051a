"""What travels in a .tflite file beside its network: sensor stream, detector, profile, how it was made.

Reads the JSON that ``emit/metadata.py`` writes; writes a Description.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_lstm.detection.fixed import QDetector
from edge_lstm.emit.metadata import FORMAT, MAX_BYTES, NAME, PLAIN_FORMAT
from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.graph import Channel, Stream

__all__ = ["FORMAT", "MAX_BYTES", "NAME", "Description", "decode"]


@dataclass(frozen=True, eq=False)
class Description:
    """The part of a QGraph that the operators of a file do not hold.  layers: their names, in order.

    structure: of format 2 the whole network, as ``tflite_own`` reads it; None where the operators tell it.
    """

    name: str
    layers: tuple[str, ...]
    stream: Stream
    profile: str
    detector: QDetector | None
    made: Mapping[str, Any]
    structure: Mapping[str, Any] | None = None


def decode(content: bytes) -> Description:
    """Read the description.

    Raises ModelError where the JSON is damaged, UnsupportedModel where a newer version wrote it.
    """
    try:
        if len(content) > MAX_BYTES:
            raise ValueError(f"{len(content)} bytes, at most {MAX_BYTES} are read")
        return _description(json.loads(content))
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError, AttributeError) as error:
        raise ModelError(
            f"its description (metadata '{NAME}') is damaged ({type(error).__name__}: {error}); "
            "write the file again"
        ) from error


def _description(values: dict[str, Any]) -> Description:
    if values["format"] not in (PLAIN_FORMAT, FORMAT):
        raise UnsupportedModel(
            f"its description has format {values['format']!r}, this version reads {FORMAT} and older; "
            "update edge-lstm, or write the file again"
        )
    stream, detector, layers = values["stream"], values["detector"], values["layers"]
    structure = None
    if values["format"] == FORMAT:
        structure = {**values["structure"], "layers": layers}
        layers = [layer["name"] for layer in layers]
    return Description(
        name=_text(values["name"]),
        layers=tuple(_text(name) for name in layers),
        stream=Stream(tuple(_channel(**c) for c in stream["channels"]), float(stream["period_s"])),
        profile=_text(values["profile"]),
        detector=None if detector is None else QDetector(**detector),
        made=dict(values["made"]),
        structure=structure,
    )


def _channel(
    name: str,
    unit: str,
    center: float,
    scale: float,
    resolution: float = 0.0,
    zero: float = 0.0,
    context: bool = False,
) -> Channel:
    return Channel(
        _text(name), _text(unit), float(center), float(scale), float(resolution), float(zero), context is True
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value
