"""The firmware of a small network as a process, for the tests of the serial link."""

from __future__ import annotations

import shutil
from pathlib import Path

from conftest import missing
from edge_lstm.qgraph import QGraph
from firmware_tools.link import LinkOptions
from firmware_tools.posix import build_process
from random_models import random_qgraph

QUICK = LinkOptions(timeout_s=0.05, silence_s=0.2, patience_s=0.5)


def small_network() -> QGraph:
    return random_qgraph(1, layers=1, units=6, features=4, detector=True)


def process_of(qgraph: QGraph, folder: Path) -> Path:
    """The built program; without a compiler a laptop skips."""
    if shutil.which("cc") is None:
        missing("cc")
    return build_process(qgraph, folder)
