"""Costs that must hold: no figure above the committed ones, and the limits of the kernels.

All figures are of one version of arm-none-eabi-gcc; where another one or none is installed these tests skip
on a laptop and fail in CI.
"""

from __future__ import annotations

import json

import pytest

from benchmark_models import SHAPES
from benchmarks import CASES, COMMAND, RECORD, case_name, measured, measured_figures
from conftest import missing
from edge_lstm.errors import MissingTool
from edge_lstm.verbs.bench import Change
from firmware_tools.build import core_compilers
from firmware_tools.cores import core_named

RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))
# instructions of a step at -O2
MOST_INSTRUCTIONS = [
    ("D", "cortex-m4", 5_900),
    ("D", "cortex-m0", 20_000),
    ("D", "cortex-m3", 9_000),
    ("D", "cortex-m55", 3_500),
    ("L32", "cortex-m4", 14_000),
    ("B", "cortex-m4", 12_600),
    ("C", "cortex-m4", 11_500),
]


@pytest.fixture(scope="module", autouse=True)
def recorded_compiler() -> None:
    """Skip, or fail in CI, without the compiler of the record."""
    names = [compiler.name for compiler in core_compilers(core_named("cortex-m4"))]
    if RECORDED["compiler"] not in names[:1]:
        missing(f"{RECORDED['compiler']}, with which {RECORD.name} was measured,")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case_name(*case))
def test_no_figure_is_more_than_one_percent_above_the_record(case: tuple[str, str, str, bool]) -> None:
    name = case_name(*case)
    try:
        old, new = RECORDED["figures"][name], measured_figures(*case)
    except MissingTool as error:
        missing(str(error))
        raise
    assert old.keys() == new.keys()
    risen = [str(change) for figure in new if (change := Change(name, figure, old[figure], new[figure])).rose]
    assert not risen, f"{'; '.join(risen)}; if that is meant, say why in the commit and run: {COMMAND}"


def test_the_record_has_every_case_and_no_other() -> None:
    assert list(RECORDED["figures"]) == [case_name(*case) for case in CASES]
    assert RECORDED["rewrite"] == COMMAND


@pytest.mark.parametrize(("name", "core", "most"), MOST_INSTRUCTIONS)
def test_a_step_takes_few_instructions(name: str, core: str, most: int) -> None:
    try:
        cost = measured(name, core).cores[core]
    except MissingTool as error:
        missing(str(error))
        raise
    assert cost.instructions_per_step["max"] <= most


@pytest.mark.parametrize("name", SHAPES)
def test_state_stack_and_constants_are_small(name: str) -> None:
    features, layers, outputs = SHAPES[name]
    found = measured(name, "cortex-m4")
    cost = found.cores["cortex-m4"]
    widths = (features, *layers)
    assert cost.ram_bytes <= sum(3 * units + inputs + 64 for inputs, units in zip(widths, layers))  # noqa: B905
    assert cost.stack_bytes <= 160
    folded_biases = 4 * (8 * sum(layers) + outputs)  # of the inputs' term and of the hidden codes'
    assert cost.weight_bytes <= found.macs + folded_biases + 64


def test_network_head_and_scorer_fit_a_small_part() -> None:
    cost = measured("D", "cortex-m4", "size", True).cores["cortex-m4"]
    assert cost.code_bytes + cost.table_bytes <= 2_560
