"""Packages of the extras: imported where used, named plainly when absent."""

from __future__ import annotations

import importlib
from typing import Any

from edge_lstm.errors import MissingTool


def require(module: str, extra: str) -> Any:
    """Import ``module`` or raise MissingTool with the extra that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and not module.startswith(error.name):
            raise
        raise MissingTool(
            f"the Python package '{module.split('.')[0]}' is not installed; "
            f"install it with: pip install 'edge-lstm[{extra}]'"
        ) from error
