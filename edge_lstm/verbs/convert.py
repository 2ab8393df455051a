"""convert: a .tflite to C, or to a .tflite with another number of timesteps or profile."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from edge_lstm.emit.c_code import emit_c
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import ConfigError, OutputError
from edge_lstm.files import make_folder, write_bytes
from edge_lstm.importers.tflite_model import read_tflite
from edge_lstm.lower import lower
from edge_lstm.qgraph import QGraph

TARGETS = ("c", "tflite")


@dataclass(frozen=True)
class Converted:
    """Files that were written, with their sizes in bytes."""

    files: dict[str, int]


def write_folder(folder: Path, texts: dict[str, str]) -> dict[str, int]:
    """Write several files into ``folder``: all of them, or none."""
    make_folder(folder)
    try:
        staging = Path(tempfile.mkdtemp(prefix=".edge-lstm-", dir=folder))
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror}; choose another -o") from error
    try:
        for name, text in texts.items():
            (staging / name).write_text(text, encoding="utf-8", newline="\n")
        for name in texts:
            (staging / name).replace(folder / name)
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {error.strerror}; choose another -o") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return {str(folder / name): len(text.encode("utf-8")) for name, text in texts.items()}


def channel_lines(qgraph: QGraph) -> list[str]:
    """How the application codes each sensor value for the C: one line a channel."""
    lines = []
    for index, channel in enumerate(qgraph.stream.channels):
        step = channel.scale * qgraph.input.scale
        unit = f" in {channel.unit}" if channel.unit else ""
        lines.append(
            f"x[{index}]: {channel.name}{unit}; code = round((value - {channel.center:.9g}) / {step:.9g}) "
            f"+ {qgraph.input.zero_point}, clamped to -128 .. 127"
        )
    return lines


def convert(
    model: Path, out: Path, to: str = "c", timesteps: int | None = None, profile: str | None = None
) -> Converted:
    """Write ``model`` as C into the folder ``out`` (model.c/.h and the runtime), or as a .tflite file.

    timesteps: rows one invocation of the written .tflite takes.  profile: overrides the file's.
    Raises ModelError for a file that cannot be read, OutputError where ``out`` cannot be written.
    """
    if to not in TARGETS:
        raise ConfigError(f"--to is '{to}', expected one of {', '.join(TARGETS)}")
    if timesteps is not None and (to != "tflite" or timesteps < 1):
        raise ConfigError(
            f"--timesteps {timesteps} needs --to tflite and 1 or more; the C takes one row a step"
        )
    qgraph = read_tflite(Path(model))
    if profile is not None:
        qgraph = qgraph.with_profile(profile)
    if to == "c":
        return Converted(write_folder(Path(out), emit_c(lower(qgraph), channel_lines(qgraph))))
    if timesteps is not None:
        qgraph = replace(qgraph, timesteps=timesteps)
    content = emit_tflite(qgraph)
    write_bytes(Path(out), content)
    return Converted({str(out): len(content)})
