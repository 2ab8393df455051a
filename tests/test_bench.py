"""bench: phases of a step, products, and the comparison with an earlier measurement."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from benchmark_models import benchmark_model
from conftest import ROOT, missing
from edge_lstm.cli import main
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import ConfigError
from edge_lstm.qgraph import QGraph, QLstm
from edge_lstm.quantizer import QuantizeConfig
from edge_lstm.verbs.bench import Change, bench_graph, compare, count_macs, read_benchmark
from firmware_tools import build
from firmware_tools.build import GCC, ZIG, Compiler, Sources, build_core, core_compilers, write_sources
from firmware_tools.cores import core_named
from firmware_tools.elf import read_image
from firmware_tools.emulator import Machine
from firmware_tools.measure import InstructionCounter
from firmware_tools.phases import (
    PHASE_OF,
    PHASES,
    PhaseMap,
    PhaseTally,
    ends_with_link,
    phase_of,
    read_phases,
)
from random_models import random_qgraph

SMALL = replace(random_qgraph(57, layers=1, units=6, features=3, detector=True), name="small")
RUNTIME = ROOT / "edge_lstm" / "c_runtime"
# a network of nops: how many belong to which phase is known; elstm_requantize is called, not inlined
NOPS = """
#define NOPS(n) __asm volatile(".rept " #n "\\n nop\\n .endr")
#define INLINE static inline __attribute__((always_inline))
#define CALLED static __attribute__((noinline))
CALLED void elstm_requantize(void) { NOPS(1000); }
INLINE void elstm_interpolate(void) { NOPS(100); }
INLINE void elstm_sigmoid_by_table(void) { NOPS(200); elstm_interpolate(); }
INLINE void elstm_gate_terms(void) { NOPS(3000); elstm_requantize(); elstm_requantize(); }
INLINE void elstm_hidden(void) { NOPS(400); elstm_requantize(); }
INLINE void elstm_lstm_step_tflm(void)
{
    NOPS(600);
    elstm_gate_terms();
    elstm_sigmoid_by_table();
    elstm_hidden();
}
CALLED void elstm_dense_tflm(void) { NOPS(700); elstm_sigmoid_by_table(); elstm_requantize(); }
CALLED void elstm_detector_step(void) { NOPS(800); }
void m_step(void);
void m_step(void)
{
    elstm_detector_step();
    elstm_lstm_step_tflm();
    elstm_dense_tflm();
    elstm_requantize();
}
"""
KNOWN = {
    "gates": 5000, "activations": 300, "update": 1400, "head": 2000, "scoring": 800, "other": 1600,
}  # fmt: skip


def compiler_of(core: str, kind: str, optimize: str = "speed") -> Compiler:
    found = [c for c in core_compilers(core_named(core), optimize) if (c.command == ZIG) == (kind == "zig")]
    if not found:
        missing(GCC if kind == "gcc" else "zig")
    return found[0]


@pytest.mark.parametrize(
    ("core", "kind", "optimize"),
    [("cortex-m0", "gcc", "speed"), ("cortex-m4", "gcc", "speed"), ("cortex-m4", "gcc", "size"),
     ("cortex-m4", "zig", "speed"), ("cortex-m4", "zig", "size")],
)  # fmt: skip
def test_each_instruction_belongs_to_the_outermost_function_with_a_phase(
    core: str, kind: str, optimize: str, tmp_path: Path
) -> None:
    (tmp_path / "m.c").write_text(NOPS)
    (tmp_path / "harness.c").write_text("typedef int nothing;\n")
    sources = Sources((tmp_path / "m.c",), (), tmp_path / "harness.c", tmp_path, "m_step")
    linked = build_core(core_named(core), sources, tmp_path, compiler_of(core, kind, optimize))
    machine = Machine(read_image(linked), core_named(core))
    functions = {symbol.address for symbol in machine.image.symbols if symbol.function}
    tally = PhaseTally(read_phases(linked), functions, machine.read)
    with InstructionCounter(machine, tally) as counter:
        machine.call("m_step")
    counts = tally.counts()
    assert sum(counts.values()) == counter.instructions
    beyond = {phase: counts[phase] - nops for phase, nops in KNOWN.items()}
    assert all(0 <= rest <= 12 for rest in beyond.values()), beyond  # calls and returns


def test_a_branch_with_link_is_a_call_only_when_it_reaches_a_function() -> None:
    """On M0 a BL also jumps far within a function."""
    link, nops = bytes.fromhex("00f000f8"), bytes.fromhex("00bf00bf")
    code = {0x100: link, 0x200: nops, 0x300: link, 0x400: nops, 0x304: nops}
    phases = PhaseMap(((0x100, 0x104, "gates"), (0x300, 0x304, "update")))
    tally = PhaseTally(phases, {0x400}, lambda address, size: code[address][:size])
    for address in (0x100, 0x200, 0x300, 0x400, 0x304):
        tally.enter(address, 4)
    assert tally.counts() == dict.fromkeys(PHASES, 0) | {"gates": 1, "update": 3, "other": 4}


@pytest.mark.parametrize(
    ("code", "links"),
    [("00f000f8", True), ("9847", True), ("00f000b8", False), ("7047", False), ("00bf00bf", False)],
)
def test_bl_and_blx_link_but_b_bx_and_others_do_not(code: str, links: bool) -> None:
    assert ends_with_link(bytes.fromhex(code)) == links


@pytest.mark.parametrize("optimize", ["speed", "size"])
@pytest.mark.parametrize("core", ["cortex-m0", "cortex-m3", "cortex-m4"])
def test_the_phases_of_a_network_sum_to_its_instructions(core: str, optimize: str) -> None:
    steps = 40  # beyond the detector's warm-up
    for qgraph in (SMALL, replace(SMALL, detector=None)):
        cost = bench_graph(qgraph, [core], steps, optimize=optimize).cores[core]
        counted = cost.detect_instructions_per_step or cost.instructions_per_step
        assert cost.phases is not None
        totals = {phase: round(steps * mean) for phase, mean in cost.phases.items()}
        assert sum(totals.values()) == round(steps * counted["mean"])
        assert (totals["scoring"] > 0) == (qgraph.detector is not None)
        named = [total for phase, total in totals.items() if phase != "scoring"]
        assert min(named) > 0 and totals["gates"] > totals["update"]
        assert totals["other"] < 0.15 * sum(totals.values())


def test_every_phase_is_of_functions_that_the_runtime_has() -> None:
    text = "".join(path.read_text() for path in RUNTIME.iterdir() if path.suffix in (".c", ".h"))
    functions = set(re.findall(r"\b(elstm_\w+)\(", text))
    assert {p for p in PHASE_OF if not any(name.startswith(p) for name in functions)} == set()
    assert phase_of("elstm_requantize") is None


@pytest.mark.parametrize("kind", ["gcc", "zig"])
def test_debug_information_changes_no_byte_of_the_code(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, images = core_named("cortex-m4"), []
    assert "-g" in build.CORE_FLAGS
    sources = write_sources([SMALL], tmp_path)
    for flag in ("-g", "-g0"):
        flags = tuple(flag if each == "-g" else each for each in build.CORE_FLAGS)
        monkeypatch.setattr(build, "CORE_FLAGS", flags)
        images.append(read_image(build_core(core, sources, tmp_path, compiler_of(core.name, kind))))
    assert images[0].segments == images[1].segments


def test_macs_are_the_products_of_weights_a_step_or_a_window() -> None:
    assert count_macs(benchmark_model("D")) == 4 * 16 * (8 + 16) + 16 * 8 == 1664
    assert count_macs(benchmark_model("C")) == 4 * 16 * (8 + 16) + 4 * 16 * (16 + 16) + 16 * 8
    assert count_macs(benchmark_model("B", config=QuantizeConfig(profile="native"))) == 4 * 32 * 35 + 32 * 3
    lstm = SMALL.layers[0]
    assert isinstance(lstm, QLstm)
    window = QGraph("window", (lstm,), SMALL.stream, window=5)
    assert count_macs(window) == 5 * 4 * 6 * (3 + 6)


def test_optimizing_for_size_gives_less_code() -> None:
    speed, size = (
        bench_graph(SMALL, ["cortex-m4"], 2, optimize=o).cores["cortex-m4"] for o in ("speed", "size")
    )
    assert ("-O2" in speed.flags, "-Os" in size.flags) == (True, True)
    assert "-O2" not in size.flags and size.code_bytes < speed.code_bytes


def entry(**changes: object) -> dict[str, object]:
    return {
        "instructions_per_step": {"mean": 1000.0, "min": 1000, "max": 1000},
        "detect_instructions_per_step": None,
        "code_bytes": 500, "table_bytes": 300, "weight_bytes": 200, "ram_bytes": 60, "stack_bytes": 0,
        "macs": 40, "compiler": "cc 1", "flags": ["-O2"],
    } | changes  # fmt: skip


def test_a_rise_of_more_than_one_percent_is_one() -> None:
    assert not Change("core", "flash bytes", 1000, 1010).rose
    assert Change("core", "flash bytes", 1000, 1011).rose
    assert not Change("core", "flash bytes", 1000, 10).rose
    assert Change("core", "stack bytes", 0, 4).rose and Change("core", "stack bytes", 0, 4).percent is None
    assert (
        str(Change("cortex-m4", "flash bytes", 1000, 1150))
        == "cortex-m4 flash bytes: 1,000 -> 1,150 (+15.0 %)"
    )


def test_a_comparison_has_each_figure_that_both_measurements_have() -> None:
    old = {"a": entry(), "b": entry(), "gone": entry()}
    new = {"a": entry(code_bytes=520, ram_bytes=50), "b": entry(detect_instructions_per_step={"mean": 2.0})}
    changes = compare(old, new)
    assert [(c.core, c.figure) for c in changes if c.rose] == [("a", "flash bytes")]
    assert [c.percent for c in changes if c.core == "a"] == [0, 2, pytest.approx(-100 / 6), None]
    assert len(changes) == 8


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ({"b": entry()}, "it has b, none of a; measure one of them"),
        ({"a": entry(macs=1664)}, "another network: 1,664 products of weights a step, this one has 40"),
    ],
)
def test_a_comparison_with_something_else_is_refused(old: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compare(old, {"a": entry()})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"code_bytes": 1}}', "3"])
def test_a_file_that_bench_did_not_write_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text(text)
    with pytest.raises(
        ConfigError, match=r"old.json' is not what bench prints; write it with: edge-lstm bench"
    ):
        read_benchmark(tmp_path / "old.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"on": ["cortex-m4", "z80"]},
            "--on: z80 cannot be measured; choose from cortex-m0, cortex-m3",
        ),
        ({"on": []}, "--on names no core; choose from cortex-m0"),
        ({"steps": 0}, "steps is 0, expected 1 or more"),
        ({"optimize": "fun"}, "--optimize is 'fun', expected one of speed, size"),
    ],
)
def test_bench_refuses_what_it_cannot_measure(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bench_graph(SMALL, **options)  # type: ignore[arg-type]


def test_core_compilers_refuse_an_unknown_level() -> None:
    with pytest.raises(ConfigError, match="optimize is 'fun', expected one of speed, size"):
        core_compilers(core_named("cortex-m4"), "fun")


def bench_command(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["bench", *map(str, arguments)])


def test_the_command_shows_phases_and_fails_where_a_figure_rose(tmp_path: Path) -> None:
    model, old = tmp_path / "small.tflite", tmp_path / "old.json"
    model.write_bytes(emit_tflite(SMALL))
    measure = (model, "--on", "cortex-m4", "--steps", 3)
    plain = bench_command(*measure)
    assert plain.exit_code == 0, plain.output
    assert all(word in plain.stdout for word in (*PHASES, "a MAC", "flash", "stack"))
    assert max(map(len, plain.stdout.splitlines()[:-1])) <= 100  # but for the compiler's flags
    found = json.loads(bench_command(*measure, "--json").stdout)
    assert found["cortex-m4"]["macs"] == count_macs(SMALL)
    assert set(found["cortex-m4"]["phases"]) == set(PHASES)

    old.write_text(json.dumps(found))
    same = bench_command(*measure, "--compare", old)
    assert same.exit_code == 0 and "+0.00 %" in same.stdout and not same.stderr
    less = copy.deepcopy(found)
    less["cortex-m4"]["weight_bytes"] -= 200
    less["cortex-m4"]["flags"].append("-funny")
    old.write_text(json.dumps(less))
    worse = bench_command(*measure, "--compare", old)
    assert worse.exit_code == 1
    note, message = worse.stderr.strip().splitlines()
    assert note.startswith("note: cortex-m4: the old figures were measured with ") and note.endswith("-funny")
    assert re.fullmatch(
        r"edge-lstm bench: more than 1% above .*old.json: cortex-m4 flash bytes: [\d,]+ -> [\d,]+ \(\+.* %\)",
        message,
    )
    as_json = bench_command(*measure, "--compare", old, "--json")
    assert (
        as_json.exit_code == 1 and json.loads(as_json.stdout) == found and as_json.stderr.strip() == message
    )
