"""Shared fixtures: paths, and the rule that a missing tool skips on a laptop and fails in CI."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# TensorFlow and PyTorch's triton each bring an LLVM of their own: both in one process abort it.
sys.modules.setdefault("triton", None)  # type: ignore[arg-type]

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
IN_CI = bool(os.environ.get("CI"))


def missing(what: str) -> None:
    """Skip on a laptop, fail in CI: CI installs every tool."""
    if IN_CI:
        pytest.fail(f"{what} is missing; CI must install it")
    pytest.skip(f"{what} is missing")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Recordings and models that this project did not make; absent in a plain clone."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the folder with other people's recordings and models is not here")
    return SHARED_DATA


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[str], Path]:
    """Where a test draws a picture of the README: examples/ where EDGE_LSTM_PICTURES is set, else apart."""
    folder = ROOT / "examples" if os.environ.get("EDGE_LSTM_PICTURES") else tmp_path
    return lambda name: folder / name


@pytest.fixture(scope="session")
def pump_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short pump recording with faults."""
    from edge_lstm.verbs.dataset import dataset

    path = tmp_path_factory.mktemp("pump") / "pump.csv"
    dataset("pump", path, rows=4000, seed=7)
    return path


@pytest.fixture(scope="session")
def pump_keras(pump_csv: Path) -> Path:
    """A small forecaster, trained for a few epochs."""
    from edge_lstm.training.config import TrainConfig
    from edge_lstm.verbs.train import train

    path = pump_csv.with_name("pump.keras")
    train(pump_csv, path, TrainConfig(units=(8,), epochs=6, timesteps=32))
    return path


@pytest.fixture(scope="session")
def pump_tflite(pump_csv: Path, pump_keras: Path) -> Path:
    """That forecaster in int8, with its detector."""
    from edge_lstm.verbs.quantize import quantize

    path = pump_csv.with_name("pump.tflite")
    quantize(pump_keras, pump_csv, path)
    return path
