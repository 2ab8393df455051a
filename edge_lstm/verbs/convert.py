"""convert: an integer model to C, .tflite or .onnx, a float model to .onnx."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from edge_lstm.emit.c_code import emit_c
from edge_lstm.emit.onnx_integers import emit_qdq
from edge_lstm.emit.onnx_model import emit_onnx
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import ConfigError, OutputError
from edge_lstm.files import make_folder, write_bytes
from edge_lstm.graph import Graph
from edge_lstm.importers.any_model import read_model
from edge_lstm.lower import lower
from edge_lstm.qgraph import QGraph
from edge_lstm.registry.manifest import MANIFEST, manifest_text
from edge_lstm.registry.record import Step, parent_record, versions, with_step
from edge_lstm.scaling import scaling_of

TARGETS = ("c", "tflite", "onnx")


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


def c_files(qgraph: QGraph) -> dict[str, str]:
    """File name -> text of the C of ``qgraph``, with the scaling of its raw integers where stated."""
    return emit_c(lower(qgraph), channel_lines(qgraph), scaling_of(qgraph.stream, qgraph.input))


def channel_lines(qgraph: QGraph) -> list[str]:
    """How an application codes each sensor value itself, for a step: one line a channel."""
    lines = []
    for index, channel in enumerate(qgraph.stream.channels):
        step = channel.scale * qgraph.input.scale
        unit = f" in {channel.unit}" if channel.unit else ""
        lines.append(
            f"x[{index}]: {channel.name}{unit}; code = round((value - {channel.center:.9g}) / {step:.9g}) "
            f"+ {qgraph.input.zero_point}, clamped to {qgraph.input.low} .. {qgraph.input.high}"
        )
    return lines


def target_of(out: Path, to: str | None) -> str:
    """What to write: ``to``, else what the suffix of ``out`` says; a folder gets C."""
    if to is None:
        return out.suffix[1:] if out.suffix in (".tflite", ".onnx") else "c"
    if to not in TARGETS:
        raise ConfigError(f"--to is '{to}', expected one of {', '.join(TARGETS)}")
    return to


def convert(
    model: Path, out: Path, to: str | None = None, timesteps: int | None = None, profile: str | None = None
) -> Converted:
    """Write ``model`` as C into the folder ``out``, with its runtime, or as a .tflite or .onnx file.

    model: any file that is read here; a float one can only become .onnx: C and .tflite hold integers.
    to: "c", "tflite" or "onnx"; None: what the suffix of ``out`` says.
    timesteps: rows one invocation of the written .tflite takes.  profile: overrides the file's.
    Raises ModelError for a file that cannot be read, OutputError where ``out`` cannot be written.
    """
    out = Path(out)
    to = target_of(out, to)
    if timesteps is not None and (to != "tflite" or timesteps < 1):
        raise ConfigError(
            f"--timesteps {timesteps} needs a .tflite to write and 1 or more; the C takes one row a step"
        )
    network = read_model(Path(model))
    options = {"to": to, "timesteps": timesteps, "profile": profile}
    step = Step("convert", {"config": options}, versions(), parent=parent_record(model))
    if isinstance(network, Graph):
        content = _float_content(model, network, to, step)
    else:
        qgraph = network if profile is None else network.with_profile(profile)
        if to == "c":
            files = c_files(qgraph)
            manifest = manifest_text(qgraph.name, network.made, step, files)
            return Converted(write_folder(out, {**files, MANIFEST: manifest}))
        content = _integer_content(Path(model), _with_timesteps(qgraph, timesteps), to, step)
    write_bytes(out, content)
    return Converted({str(out): len(content)})


def _integer_content(model: Path, qgraph: QGraph, to: str, step: Step) -> bytes:
    """A .tflite that comes out as it went in stays what it is, without one more step."""
    if to == "tflite" and (content := emit_tflite(qgraph)) == model.read_bytes():
        return content
    qgraph = replace(qgraph, made=with_step(qgraph.made, step))
    return emit_qdq(qgraph) if to == "onnx" else emit_tflite(qgraph)


def _float_content(model: Path, graph: Graph, to: str, step: Step) -> bytes:
    if to != "onnx":
        raise ConfigError(
            f"{model}: a float model, which can become .onnx; for {to} quantize it first: "
            f"edge-lstm quantize {model} --data CSV -o {graph.name}.tflite"
        )
    return emit_onnx(replace(graph, made=with_step(graph.made, step)))


def _with_timesteps(qgraph: QGraph, timesteps: int | None) -> QGraph:
    if timesteps is None or timesteps == qgraph.timesteps:
        return qgraph
    if qgraph.window:
        raise ConfigError(f"--timesteps {timesteps}: the model takes windows of {qgraph.window} rows, always")
    return replace(qgraph, timesteps=timesteps)
