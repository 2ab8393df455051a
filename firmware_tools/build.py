"""C sources -> a shared library of this machine or a linked image of a core.

Reads QGraphs or a folder of exported C; writes into a folder of the caller; starts compilers.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from edge_lstm.emit.c_code import emit_c
from edge_lstm.errors import ConfigError, MissingTool, RuntimeFailure
from edge_lstm.lower import lower
from edge_lstm.qgraph import QGraph
from edge_lstm.scaling import scaling_of
from firmware_tools.cores import Core

HARNESS = Path(__file__).parent / "harness"
GCC = "arm-none-eabi-gcc"
ZIG = (sys.executable, "-m", "ziglang", "cc")
C_FLAGS = ("-std=c99",)
CORE_FLAGS = (
    "-ffreestanding", "-ffunction-sections", "-fdata-sections", "-fomit-frame-pointer", "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables", "-g",
)  # fmt: skip  # -g changes no code; phases.py reads it
OPTIMIZE = {"speed": "-O2", "size": "-Os"}
ERROR_LINES = 12  # of a compiler's output, in a message


@dataclass(frozen=True)
class Compiler:
    """name: with its version.  flags: for every source.  link_flags: after the objects."""

    name: str
    command: tuple[str, ...]
    flags: tuple[str, ...] = ()
    link_flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sources:
    """C files of one image.  include: the folder of the headers.  entry: a function that must be kept."""

    models: tuple[Path, ...]
    runtime: tuple[Path, ...]
    harness: Path
    include: Path
    entry: str


def write_sources(
    qgraphs: Sequence[QGraph], folder: Path, *, detect: bool = True, c_dir: Path | None = None
) -> Sources:
    """Write the C of ``qgraphs`` and a harness around it into ``folder``.

    detect: the harness also calls the detectors of networks that carry one and state their resolutions.
    c_dir: a folder of exported C to compile in place of what would be written; ConfigError where a file of
    it is missing.  Networks of one image need distinct names.
    """
    names = [qgraph.name for qgraph in qgraphs]
    if len(set(names)) != len(names):
        raise ConfigError(f"networks of one image need distinct names, got {', '.join(names)}")
    files: dict[str, str] = {}
    for qgraph in qgraphs:
        files |= emit_c(lower(qgraph), scaling=scaling_of(qgraph.stream, qgraph.input))
    include = folder if c_dir is None else Path(c_dir)
    if c_dir is None:
        for file, text in files.items():
            (folder / file).write_text(text, encoding="utf-8")
    else:
        missing = [file for file in files if not (include / file).is_file()]
        if missing:
            raise ConfigError(
                f"folder '{c_dir}' has no {', '.join(missing)}; "
                f"export the model with: edge-lstm convert {names[0]}.tflite --to c -o {c_dir}"
            )
    harness = folder / "edge_harness.c"
    harness.write_text("".join(_harness(qgraph, detect) for qgraph in qgraphs), encoding="utf-8")
    sources = [include / file for file in files if file.endswith(".c")]
    return Sources(
        tuple(path for path in sources if path.stem in names),
        tuple(path for path in sources if path.stem not in names),
        harness,
        include,
        f"{names[0]}_harness_run",
    )


def _harness(qgraph: QGraph, detect: bool) -> str:
    """The harness of one network; refuses a header of another network when compiled."""
    name, upper = qgraph.name, qgraph.name.upper()
    expected = {
        "FEATURES": qgraph.features,
        "OUTPUTS": qgraph.outputs,
        "INPUT_BITS": qgraph.input.bits,
        "OUTPUT_BITS": qgraph.output.bits,
        "WINDOW": qgraph.window,  # what the header of a streaming network leaves out is 0
        "ROWS": written_rows(qgraph) if qgraph.window else 0,
    }
    other = " || ".join(f"{upper}_{macro} != {value}" for macro, value in expected.items())
    kind = "WINDOW" if qgraph.window else "STREAM"
    lines = [
        '#include "harness.h"',
        f'#include "{name}.h"',
        f"#if {other}",
        f'#error "{name}.h is of another network; export this one again"',
        "#endif",
        f"HARNESS_{kind}({name}, {upper}, int{qgraph.input.bits}_t, int{qgraph.output.bits}_t)",
    ]
    if detect and qgraph.detector is not None and qgraph.stream.raw:
        lines += [
            f"#ifndef {upper}_DETECTOR",
            f'#error "{name}.h has no detector, but the network has one; export it again"',
            "#endif",
            f"HARNESS_DETECTOR({name}, {upper})",
        ]
    return "\n".join([*lines, ""])


def written_rows(qgraph: QGraph) -> int:
    """Rows that one call of the network's C writes."""
    return qgraph.window if qgraph.window and qgraph.values[-1].sequence else 1


def host_compilers() -> list[Compiler]:
    """The C compilers of this machine, best first: $CC, cc, gcc, clang, zig from PyPI."""
    commands = [tuple(shlex.split(os.environ.get("CC", ""))), ("cc",), ("gcc",), ("clang",)]
    found = [
        Compiler(" ".join(command), command) for command in commands if command and shutil.which(command[0])
    ]
    return [*found, *([Compiler("zig cc", ZIG)] if find_spec("ziglang") else [])]


def core_compilers(core: Core, optimize: str = "speed") -> list[Compiler]:
    """The compilers for ``core`` on this machine, best first: arm-none-eabi-gcc, zig from PyPI.

    optimize: one of OPTIMIZE, ConfigError for another.
    """
    if optimize not in OPTIMIZE:
        raise ConfigError(f"optimize is '{optimize}', expected one of {', '.join(OPTIMIZE)}")
    found, level = [], OPTIMIZE[optimize]
    script = ("-T", str(HARNESS / "core.ld"))
    if shutil.which(GCC):
        link: tuple[str, ...] = ("-nostdlib", "-lgcc", *script)
        name = f"{GCC} {_output((GCC, '-dumpfullversion'))}"
        found.append(Compiler(name, (GCC,), (*core.gcc_flags, level), link))
    if find_spec("ziglang"):
        version = _output((*ZIG[:-1], "version"))
        # zig builds its own compiler library once a core, which takes seconds; only M0 needs one
        link = ("-nostdlib", *script) if core.thumb2 else script
        found.append(Compiler(f"zig cc {version}", ZIG, (*core.zig_flags, level), link))
    return found


def find_host_compiler() -> Compiler:
    """The best of ``host_compilers``; MissingTool where there is none."""
    compilers = host_compilers()
    if not compilers:
        raise MissingTool(
            "no C compiler found (cc, gcc, clang, or $CC); it builds the model's C for this machine.\n"
            "Debian/Ubuntu: apt install gcc   anywhere: pip install 'edge-lstm[emulator]'"
        )
    return compilers[0]


def find_compiler(core: Core, optimize: str = "speed") -> Compiler:
    """The best of ``core_compilers``; MissingTool where there is none."""
    compilers = core_compilers(core, optimize)
    if not compilers:
        raise MissingTool(
            f"no C compiler for {core.name} found ({GCC}, or zig from PyPI); it builds the firmware.\n"
            "Debian/Ubuntu: apt install gcc-arm-none-eabi   anywhere: pip install 'edge-lstm[emulator]'"
        )
    return compilers[0]


def build_host(sources: Sources, folder: Path, compiler: Compiler | None = None) -> Path:
    """Compile for this machine; returns the shared library in ``folder``."""
    compiler = compiler or find_host_compiler()
    library = folder / "model.so"
    files = [str(sources.harness), *map(str, sources.models), *map(str, sources.runtime)]
    flags = (*C_FLAGS, "-O2", *compiler.flags, "-fPIC", "-shared", *_include(sources))
    run_compiler(compiler, [*flags, *files, "-o", str(library)])
    return library


def build_core(core: Core, sources: Sources, folder: Path, compiler: Compiler | None = None) -> Path:
    """Compile and link for ``core``; returns the ELF in ``folder``.  Files of objects: see core.ld."""
    compiler = compiler or find_compiler(core)
    objects = {folder / "edge_harness.o": sources.harness}
    objects |= {folder / f"{source.stem}.o": source for source in sources.runtime}
    objects |= {folder / f"model_{index}.o": source for index, source in enumerate(sources.models)}
    flags = [*compile_flags(compiler), *_include(sources), "-I", str(HARNESS / "include"), "-c"]
    for target, source in objects.items():
        run_compiler(compiler, [*flags, str(source), "-o", str(target)])
    support = folder / "support.o"
    no_loops = () if compiler.command == ZIG else ("-fno-tree-loop-distribute-patterns",)
    run_compiler(
        compiler, [*flags, *no_loops, "-fno-builtin", str(HARNESS / "support.c"), "-o", str(support)]
    )
    image = folder / f"{core.name}.elf"
    linked = ["-Wl,--gc-sections", f"-Wl,-e,{sources.entry}", *compiler.link_flags, "-o", str(image)]
    # -g: zig drops the symbols without it
    run_compiler(compiler, [*compiler.flags, "-g", *map(str, objects), str(support), *linked])
    return image


def compile_flags(compiler: Compiler) -> tuple[str, ...]:
    """The flags with which ``compiler`` compiles every source of an image."""
    return (*C_FLAGS, *compiler.flags, *CORE_FLAGS)


def run_compiler(compiler: Compiler, arguments: Sequence[str]) -> None:
    """Start ``compiler``; RuntimeFailure with the first lines of its output where it fails."""
    command = [*compiler.command, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise RuntimeFailure(
            f"{compiler.name} cannot be started: {error.strerror}; install it again"
        ) from error
    if done.returncode:
        output = (done.stderr or done.stdout).strip().splitlines()
        text = "\n  ".join(output[:ERROR_LINES]) or f"exit status {done.returncode}"
        raise RuntimeFailure(f"{compiler.name} failed; if the C was edited, export it again:\n  {text}")


def _include(sources: Sources) -> tuple[str, ...]:
    return ("-I", str(sources.include), "-I", str(HARNESS))


def _output(command: Sequence[str]) -> str:
    """What a command prints, or '' where it fails: only a version for a report."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
