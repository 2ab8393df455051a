"""export: an integer model as a package of an ecosystem: Arduino, Zephyr, CMake and others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_lstm.errors import ConfigError
from edge_lstm.graph import Graph
from edge_lstm.importers.any_model import read_model
from edge_lstm.registry.manifest import MANIFEST, manifest_text
from edge_lstm.registry.record import Step, parent_record, versions
from edge_lstm.verbs.convert import c_files, channel_lines
from firmware_tools.export import format_named, package_files
from firmware_tools.export.writing import write_package


@dataclass(frozen=True)
class Exported:
    """What was written: the folder or zip, and the size in bytes of each file in it."""

    out: str
    files: dict[str, int]


def export(model: Path, out: Path, package_format: str) -> Exported:
    """Write ``model`` with its runtime and an example as a package of ``package_format`` (FORMATS).

    out: a folder that is absent, empty or such a package; a .zip; for cmsis-pack also a .pack.
    Raises ModelError for a file that cannot be read, UnsupportedModel for one that has no C, OutputError
    where ``out`` cannot be written.
    """
    model, out = Path(model), Path(out)
    format_named(package_format)
    qgraph = read_model(model)
    if isinstance(qgraph, Graph):
        raise ConfigError(
            f"{model}: a float model; quantize it first: "
            f"edge-lstm quantize {model} --data CSV -o {qgraph.name}.tflite"
        )
    files = package_files(qgraph, c_files(qgraph), package_format, channel_lines(qgraph))
    step = Step("export", {"config": {"format": package_format}}, versions(), parent=parent_record(model))
    files = {**files, MANIFEST: manifest_text(qgraph.name, qgraph.made, step, files)}
    write_package(out, package_format, qgraph.name, files)
    return Exported(str(out), {path: len(text.encode("utf-8")) for path, text in files.items()})
