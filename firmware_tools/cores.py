"""The emulated cores: one record each."""

from __future__ import annotations

from dataclasses import dataclass

from edge_lstm.errors import ConfigError


@dataclass(frozen=True)
class Core:
    """How to compile for a core and how to emulate it.

    gcc_flags: of arm-none-eabi-gcc.  zig_flags: of zig cc; its -eabi target passes no floats in registers.
    unicorn_model: the name of its constant in unicorn.
    thumb2: it has the 32-bit instructions, so that 64-bit arithmetic needs no help from a library.
    """

    name: str
    gcc_flags: tuple[str, ...]
    zig_flags: tuple[str, ...]
    unicorn_model: str
    thumb2: bool = True


def _core(name: str, unicorn_model: str, thumb2: bool = True, zig_more: str = "") -> Core:
    gcc_flags = (f"-mcpu={name}", "-mthumb", "-mfloat-abi=soft")
    zig_flags = ("-target", "thumb-freestanding-eabi", f"-mcpu={name.replace('-', '_')}{zig_more}")
    return Core(name, gcc_flags, zig_flags, unicorn_model, thumb2)


CORES = {
    core.name: core
    for core in (
        _core("cortex-m0", "UC_CPU_ARM_CORTEX_M0", thumb2=False),
        _core("cortex-m3", "UC_CPU_ARM_CORTEX_M3"),
        _core("cortex-m4", "UC_CPU_ARM_CORTEX_M4"),
        _core("cortex-m7", "UC_CPU_ARM_CORTEX_M7"),
        _core("cortex-m33", "UC_CPU_ARM_CORTEX_M33", zig_more="+dsp"),
    )
}


def core_named(name: str) -> Core:
    """The record of a core; ConfigError for a name that there is none of."""
    if name not in CORES:
        raise ConfigError(f"core '{name}' is unknown; choose one of {', '.join(CORES)}")
    return CORES[name]
