"""What travels in a .tflite file beside its network, as canonical JSON; ``importers/metadata.py`` reads it.

Reads a QGraph; writes bytes.
"""

from __future__ import annotations

import json
from typing import Any

from edge_lstm.detection.fixed import detector_values
from edge_lstm.errors import ModelError
from edge_lstm.graph import Channel
from edge_lstm.importers.metadata import FORMAT, MAX_BYTES
from edge_lstm.qgraph import QGraph


def encode(qgraph: QGraph) -> bytes:
    """Describe ``qgraph``: sorted keys, no spaces, ASCII; the same bytes for the same network.

    Raises ModelError where ``made`` holds what JSON cannot carry, or more than a MiB of it.
    """
    content = {
        "format": FORMAT,
        "name": qgraph.name,
        "layers": [layer.name for layer in qgraph.layers],
        "profile": qgraph.profile,
        "stream": {
            "period_s": float(qgraph.stream.period_s),
            "channels": [_channel_values(channel) for channel in qgraph.stream.channels],
        },
        "detector": None if qgraph.detector is None else detector_values(qgraph.detector),
        "made": dict(qgraph.made),
    }
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"model '{qgraph.name}': its description is not plain JSON ({error}); put only text, finite "
            "numbers, lists and dictionaries in it"
        ) from error
    if len(text) > MAX_BYTES:
        raise ModelError(
            f"model '{qgraph.name}': its description has {len(text)} bytes, at most {MAX_BYTES} fit; "
            "put less in 'made'"
        )
    return text.encode("ascii")


def _channel_values(channel: Channel) -> dict[str, Any]:
    return {
        "name": channel.name,
        "unit": channel.unit,
        "center": float(channel.center),
        "scale": float(channel.scale),
    }
