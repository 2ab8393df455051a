"""Which networks a runtime cannot run, and why: said before it is opened."""

from __future__ import annotations

from edge_lstm.qgraph import QGraph, QLstm

# what each runtime computes in; the executors of this toolkit compute in every profile
PROFILE_OF = {"litert": "litert", "tflite-runtime": "tflite", "tflm": "tflm"}


def refusal(name: str, qgraph: QGraph) -> str | None:
    """Why executor ``name`` cannot run ``qgraph``; None where it can."""
    profile = PROFILE_OF.get(name)
    if profile is None or profile in qgraph.profiles:
        return None
    if qgraph.profiles == ("native",):
        return "profile native is this toolkit's own; it runs in NumPy and in its C"
    if any(isinstance(layer, QLstm) and layer.input.bits == 16 for layer in qgraph.layers):
        return "it has no LSTM with int16 activations; TensorFlow Lite Micro has"
    return (
        "it rejects LSTMs with peepholes, projection, layer normalization or coupled gates; LiteRT runs them"
    )
