"""Shared fixtures: paths, and the rule that a missing tool skips on a laptop and fails in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
