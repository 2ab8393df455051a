"""edge_lstm: compact LSTMs from sensor data onto microcontrollers, proven bit for bit.

Every verb of the command line is a function here; each is imported on first use, so that
``import edge_lstm`` loads neither TensorFlow nor any other extra.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

VERBS = (
    "dataset", "study", "features", "train", "tune", "prune", "finetune", "quantize", "convert", "export",
    "run", "verify", "bench", "detect", "evaluate", "explain", "report", "inspect", "layers", "build",
    "flash", "boards", "fit", "fleet", "monitor", "serve", "runs", "demo",
)  # fmt: skip

__all__ = ["VERBS", "__version__", *VERBS]


def __getattr__(name: str) -> Any:
    if name in VERBS:
        return getattr(importlib.import_module(f"edge_lstm.verbs.{name}"), name)
    raise AttributeError(f"module 'edge_lstm' has no attribute '{name}'")
