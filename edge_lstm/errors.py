"""Every exception of the toolkit; the command line prints the message and exits 1.

EdgeLstmError
|-- DataError            a CSV, a stream or a split that cannot be used
|-- ModelError           a model that breaks its own rules: shapes, ranges, overflow
|   `-- UnsupportedModel a sound model with parts that are not implemented
|-- ConfigError          an option or a TOML file that cannot be used
|-- MissingTool          a compiler, an emulator or a Python package that is not installed
|-- OutputError          a path that cannot be written
|-- RuntimeFailure       a compiler, emulator or interpreter that failed on our input
`-- Disagreement         two executors that must return the same codes did not
"""

from __future__ import annotations

from collections.abc import Sequence


class EdgeLstmError(Exception):
    """Base of all stated failures."""


class DataError(EdgeLstmError):
    """A CSV, a stream or a split cannot be used."""


class ModelError(EdgeLstmError):
    """A model breaks its own rules: shapes, ranges or overflow bounds."""


class UnsupportedModel(ModelError):
    """A sound model has parts that are not implemented."""


class ConfigError(EdgeLstmError):
    """An option or a configuration file cannot be used."""


class MissingTool(EdgeLstmError):
    """A compiler, an emulator or a Python package is not installed."""


class OutputError(EdgeLstmError):
    """A path cannot be written."""


class RuntimeFailure(EdgeLstmError):
    """A compiler, emulator or interpreter failed on our input."""


class Disagreement(EdgeLstmError):
    """Two executors that must return the same codes did not."""


def raise_all(kind: type[EdgeLstmError], where: str, problems: Sequence[str]) -> None:
    """Raise one ``kind`` that lists every problem of ``where``; do nothing when there is none."""
    if len(problems) == 1:
        raise kind(f"{where}: {problems[0]}")
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in problems)
        raise kind(f"{where}: {len(problems)} problems{lines}")
