"""A model's C as a package of an ecosystem: a library, module, component or pack that its own tools take.

Reads a QGraph and its exported C; returns path -> text, the same for equal input.  Touches no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import jinja2
import numpy as np

from edge_lstm import __version__
from edge_lstm.emit.c_scaling import raw_lines
from edge_lstm.emit.c_tables import one_line
from edge_lstm.errors import ConfigError
from edge_lstm.qgraph import QGraph
from edge_lstm.scaling import QScaling, scaling_of

__all__ = ["FORMATS", "format_named", "package_files"]

C = "the model's C and its runtime"
READ_ROWS = "examples/read_rows"

# format -> (path in the package, template of that file); a path of C is a folder
FORMATS: dict[str, tuple[tuple[str, str], ...]] = {
    "arduino": (
        ("README.md", "README.md"),
        ("library.properties", "library.properties"),
        ("src", C),
        (f"{READ_ROWS}/read_rows.ino", "sketch.ino"),
    ),
    "platformio": (
        ("README.md", "README.md"),
        ("library.json", "library.json"),
        ("src", C),
        (f"{READ_ROWS}/platformio.ini", "platformio.ini"),
        (f"{READ_ROWS}/src/main.c", "main.c"),
    ),
    "zephyr": (
        ("README.md", "README.md"),
        ("zephyr/module.yml", "module.yml"),
        ("CMakeLists.txt", "zephyr.cmake"),
        ("Kconfig", "Kconfig"),
        ("src", C),
        ("samples/read_rows/CMakeLists.txt", "zephyr_sample.cmake"),
        ("samples/read_rows/prj.conf", "prj.conf"),
        ("samples/read_rows/sample.yaml", "sample.yaml"),
        ("samples/read_rows/src/main.c", "main.c"),
    ),
    "esp-idf": (
        ("README.md", "README.md"),
        ("idf_component.yml", "idf_component.yml"),
        ("CMakeLists.txt", "idf.cmake"),
        ("src", C),
        (f"{READ_ROWS}/CMakeLists.txt", "idf_project.cmake"),
        (f"{READ_ROWS}/main/CMakeLists.txt", "idf_main.cmake"),
        (f"{READ_ROWS}/main/main.c", "main.c"),
    ),
    "cmsis-pack": (
        ("README.md", "README.md"),
        ("edge-lstm.{name}.pdsc", "pack.pdsc"),
        ("src", C),
        (f"{READ_ROWS}/main.c", "main.c"),
    ),
    "cmake": (
        ("README.md", "README.md"),
        ("CMakeLists.txt", "library.cmake"),
        ("cmake/config.cmake.in", "config.cmake"),
        ("src", C),
        (f"{READ_ROWS}/CMakeLists.txt", "example.cmake"),
        (f"{READ_ROWS}/main.c", "main.c"),
    ),
    "micropython": (
        ("README.md", "README.md"),
        ("micropython.cmake", "micropython.cmake"),
        ("micropython.mk", "micropython.mk"),
        ("{name}_module.c", "module.c"),
        ("src", C),
        (f"{READ_ROWS}.py", "read_rows.py"),
    ),
}


def format_named(name: str) -> str:
    """``name``, checked; ConfigError lists the formats."""
    if name not in FORMATS:
        raise ConfigError(f"--format is '{name}', expected one of {', '.join(FORMATS)}")
    return name


def package_files(
    qgraph: QGraph, c_files: dict[str, str], package_format: str, channel_lines: Sequence[str]
) -> dict[str, str]:
    """Path in the package -> text.

    c_files: what ``emit_c`` returned for ``qgraph`` and its scaling.  channel_lines: how each sensor value
    becomes a code, for the example of a model that does not state what raw integers stand for.
    """
    values = _values(qgraph, c_files, channel_lines) | {"format": package_format}
    files: dict[str, str] = {}
    for path, template in FORMATS[format_named(package_format)]:
        if template == C:
            files |= {f"{path}/{file}": text for file, text in c_files.items()}
        else:
            file = f"{template}.j2"
            files[path.format(name=qgraph.name)] = _environment().get_template(file).render(values)
    return files


def _values(qgraph: QGraph, c_files: dict[str, str], channel_lines: Sequence[str]) -> dict[str, Any]:
    """What the templates read.  starts, steps: raw integers of the example, near a code of the zero point."""
    scaling = scaling_of(qgraph.stream, qgraph.input)
    detector = qgraph.detector if scaling is not None else None
    starts, steps = _example(scaling) if scaling is not None else ([], [])
    return {
        "name": qgraph.name,
        "upper": qgraph.name.upper(),
        "version": __version__,
        "summary": f"Integer LSTM network '{qgraph.name}': {qgraph.features} inputs, "
        f"{qgraph.outputs} outputs, no heap, no float",
        "model_source": f"{qgraph.name}.c",
        "runtime_sources": [file for file in c_files if file.endswith(".c") and file != f"{qgraph.name}.c"],
        "headers": [file for file in c_files if file.endswith(".h")],
        "input": qgraph.input,
        "output": qgraph.output,
        "window": qgraph.window,
        "detector": detector is not None,
        # the example's, past the warm-up of a detector: the rows before it have no score
        "rows": qgraph.window or 20 + (min(detector.warmup, 1000) if detector else 0),
        "channel_lines": [one_line(line) for line in channel_lines],
        "raw_lines": raw_lines(scaling) if scaling is not None else [],
        "starts": starts,
        "steps": steps,
        "period_ms": min(max(round(qgraph.stream.period_s * 1000), 0), 60_000) or 100,
    }


def _example(scaling: QScaling) -> tuple[list[int], list[int]]:
    """Raw integers of the zero point, and about those of a code, for each channel."""
    channels, input = len(scaling.channels), scaling.input
    codes = np.array([[input.zero_point], [min(input.zero_point + 16, input.high)]]).repeat(channels, axis=1)
    start, further = scaling.counts(codes).tolist()
    return start, [max((b - a) // 16, 1) for a, b in zip(start, further, strict=True)]


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(  # noqa: S701 - the only text of a user's, the channels, stands in comments
        loader=jinja2.FunctionLoader(
            lambda file: (
                resources.files("firmware_tools.export")
                .joinpath("templates")
                .joinpath(file)
                .read_text(encoding="utf-8")
            )
        ),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
