"""A small network with a detector, and the compilers that build it for a core."""

from __future__ import annotations

import shutil
from dataclasses import replace

from conftest import missing
from firmware_tools.build import GCC, ZIG, Compiler, core_compilers
from firmware_tools.cores import CORES, core_named
from random_models import random_qgraph

CORE_COMPILERS = [(core, kind) for core in CORES for kind in ("gcc", "zig") if kind == "gcc" or core in
                  ("cortex-m0", "cortex-m4")]  # fmt: skip
PUMP = replace(random_qgraph(57, layers=1, units=6, features=3, detector=True), name="pump")


def compiler_for(core: str, kind: str) -> Compiler:
    """arm-none-eabi-gcc or zig, for one core; without gcc a laptop skips."""
    if kind == "gcc" and shutil.which(GCC) is None:
        missing(GCC)
    return next(c for c in core_compilers(core_named(core)) if (c.command == ZIG) == (kind == "zig"))
