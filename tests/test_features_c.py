"""The feature stage in C: the integers of NumPy on this machine and on emulated cores; sanitizers; cost."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edge_lstm.detection.fixed import MISSING
from edge_lstm.emit.c_features import emit_features
from edge_lstm.extraction.config import HISTORY, MOMENTS, FeatureConfig
from edge_lstm.extraction.fixed import QFeatures, extract, quantize_features
from firmware_tools.build import Sources, build_core, build_host
from firmware_tools.cores import core_named
from firmware_tools.elf import read_image
from firmware_tools.emulator import BUFFER, Machine
from firmware_tools.measure import InstructionCounter
from test_c_code import COMPILERS, SANITIZE, WARNINGS, need, run

IntArray = npt.NDArray[np.int64]
Stream = tuple[IntArray, IntArray]

HARNESS = """
#include "{name}_features.h"
static {name}_features_state_t {name}_state;
void {name}_harness_reset(void);
uint32_t {name}_harness_run(const int16_t *sample, const int32_t *slow, int32_t *row, uint32_t count);
void {name}_harness_reset(void)
{{
    {name}_features_reset(&{name}_state);
}}
uint32_t {name}_harness_run(const int16_t *sample, const int32_t *slow, int32_t *row, uint32_t count)
{{
    const int32_t *const first = row;
    for (; count > 0u; count--) {{
        if ({name}_features_push(&{name}_state, sample, slow, row) != 0u) {{
            row += {width};
        }}
        sample += {fast};
        slow += {slow};
    }}
    return (uint32_t)(row - first) / {width}u;
}}
"""


def harness_of(stage: QFeatures) -> str:
    config = stage.config
    return HARNESS.format(
        name=config.name, width=len(config.columns), fast=len(config.fast), slow=len(config.slow)
    )


def write_sources(stages: Sequence[QFeatures], folder: Path) -> Sources:
    """The C of stages with different names, and a harness around it."""
    for stage in stages:
        for file, text in emit_features(stage).items():
            (folder / file).write_text(text)
    harness = folder / "edge_harness.c"
    harness.write_text("".join(map(harness_of, stages)))
    names = [stage.config.name for stage in stages]
    models = tuple(folder / f"{name}_features.c" for name in names)
    return Sources(models, (folder / "elstm_features.c",), harness, folder, f"{names[0]}_harness_run")


def run_host(library: ctypes.CDLL, stage: QFeatures, stream: Stream) -> npt.NDArray[np.int32]:
    """Rows of a stream from reset; what lies behind the last row stays as it was."""
    name, count = stage.config.name, len(stream[1])
    samples, slow = stream[0].astype(np.int16), stream[1].astype(np.int32)
    rows = np.full((count // stage.config.hop + 1, len(stage.config.columns)), 77, np.int32)
    library[f"{name}_harness_reset"]()
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (samples, slow, rows))
    written = library[f"{name}_harness_run"](*pointers, ctypes.c_uint32(count))
    assert (rows[written:] == 77).all()
    return rows[:written]


def run_core(machine: Machine, stage: QFeatures, stream: Stream) -> npt.NDArray[np.int32]:
    name, count, width = stage.config.name, len(stream[1]), len(stage.config.columns)
    samples, slow = stream[0].astype("<i2").tobytes(), stream[1].astype("<i4").tobytes()
    middle = BUFFER + -(-len(samples) // 8) * 8
    behind = middle + -(-len(slow) // 8) * 8
    machine.write(BUFFER, samples)
    machine.write(middle, slow)
    machine.call(f"{name}_harness_reset")
    written = machine.call(f"{name}_harness_run", BUFFER, middle, behind, count)
    return np.frombuffer(machine.read(behind, 4 * width * written), "<i4").reshape(written, width)


def random_stage(seed: int) -> QFeatures:
    """Any number of channels, features, bands and rows back."""
    rng = np.random.default_rng(seed)
    rate = float(rng.choice([100, 3200, 12000]))
    fast, slow = int(rng.integers(0, 4)), int(rng.integers(0, 3))
    content: dict[str, Any] = {
        "name": f"random_{seed}", "rate_hz": rate, "hop": int(rng.choice([1, 2, 3, 16, 65, 128])),
        "fast": {}, "slow": {},
    }  # fmt: skip
    for channel in range(fast or 1 - min(slow, 1)):
        kinds = list(rng.permutation(MOMENTS)[: rng.integers(1, 9)])
        for _ in range(rng.integers(0, 3)):
            low = float(rng.uniform(0.01, 0.3)) * rate
            high = low + float(rng.uniform(0.03, 0.15)) * rate
            kinds.insert(int(rng.integers(0, len(kinds) + 1)), f"band({low:.3f}, {high:.3f})")
        content["fast"][f"f{channel}"] = {"features": [str(kind) for kind in kinds]}
    for channel in range(slow):
        kinds = ["value", *(f"{kind}({rng.integers(2, 9)})" for kind in HISTORY)]
        content["slow"][f"s{channel}"] = {"features": list(rng.permutation(kinds)[: rng.integers(1, 6)])}
    return quantize_features(FeatureConfig.from_mapping(content))


def streams(stage: QFeatures, count: int) -> list[Stream]:
    """Noise of every size, full scale, alternating extremes, constants, impulses, a square at the band."""
    rng = np.random.default_rng(count)
    fast, slow = len(stage.config.fast), len(stage.config.slow)
    shape, t = (count, fast), np.arange(count)[:, None]
    period = int(rng.integers(2, 40))
    kinds = [
        rng.integers(-32768, 32768, shape) >> rng.integers(0, 15, fast),
        rng.choice([-32768, 32767], shape),
        np.where(t % 2 == 0, 32767, -32768) + np.zeros(shape, np.int64),
        np.where(t // period % 2 == 0, -32768, 32767) + np.zeros(shape, np.int64),
        np.full(shape, -32768),
        np.where(rng.random(shape) < 0.02, -32768, 32767),
        np.where(rng.random(shape) < 0.01, 1, 0),
        np.where(t == count // 2, 32767, -32768) + np.zeros(shape, np.int64),
    ]
    extremes = np.array([MISSING, MISSING + 1, 2**31 - 1, 0, 1, -1, MISSING])
    wild = [rng.integers(-(2**31), 2**31, (count, slow)), rng.choice(extremes, (count, slow))]
    some = rng.random((count, slow)) < 0.1
    return [
        (kind.astype(np.int64), np.where(some | (index % 3 == 0), wild[index % 2], MISSING))
        for index, kind in enumerate(kinds)
    ]


LONG = FeatureConfig.from_mapping(
    {
        "name": "longest", "rate_hz": 12000, "hop": 65535,
        "fast": {"a": {"features": [*MOMENTS, "band(10, 200)", "band(100, 5000)"]}},
    }
)  # fmt: skip
STAGES = [random_stage(seed) for seed in range(14)]


def long_streams() -> list[Stream]:
    t = np.arange(65535)[:, None]
    none = np.zeros((65535, 0), np.int64)
    return [(np.where(t % 2 == 0, 32767, -32768), none), (np.where(t == 9, 32767, -32768), none)]


def differing(stage: QFeatures, found: npt.NDArray[np.int32], stream: Stream) -> str:
    """'' where ``found`` are the rows of NumPy, else the first place that differs."""
    expected = extract(stage, *stream)[0]
    if found.shape != expected.shape:
        return f"{stage.config.name}: {found.shape} rows, want {expected.shape}"
    places = np.argwhere(found != expected)
    if not len(places):
        return ""
    row, column = places[0]
    return (
        f"{stage.config.name} row {row} {stage.config.columns[column]}: got {found[row, column]}, "
        f"want {expected[row, column]} ({len(places)} of {found.size} differ)"
    )


def test_the_random_stages_cover_every_feature() -> None:
    kinds = {f.kind for stage in STAGES for channel in stage.config.channels for f in channel.features}
    assert kinds == {*MOMENTS, *HISTORY, "band"}
    assert any(not stage.config.fast for stage in STAGES) and any(not stage.config.slow for stage in STAGES)


def test_host_c_returns_the_rows_of_numpy(tmp_path: Path) -> None:
    stages = [*STAGES, quantize_features(LONG)]
    library = ctypes.CDLL(str(build_host(write_sources(stages, tmp_path), tmp_path)))
    for stage in STAGES:
        for stream in streams(stage, 700):
            assert not (text := differing(stage, run_host(library, stage, stream), stream)), text
    for stream in long_streams():
        assert not (text := differing(stages[-1], run_host(library, stages[-1], stream), stream)), text


@pytest.mark.parametrize("core_name", ["cortex-m0", "cortex-m4"])
def test_emulated_cores_return_the_rows_of_numpy(core_name: str, tmp_path: Path) -> None:
    need("arm-none-eabi-gcc")
    core = core_named(core_name)
    stages = [*STAGES, quantize_features(LONG)]
    machine = Machine(read_image(build_core(core, write_sources(stages, tmp_path), tmp_path)), core)
    for stage in STAGES:
        for stream in streams(stage, 300):
            assert not (text := differing(stage, run_core(machine, stage, stream), stream)), text
    stream = long_streams()[0]
    assert not (text := differing(stages[-1], run_core(machine, stages[-1], stream), stream)), text


MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
{harness}
int main(void)
{{
    uint32_t count;
    {name}_features_state_t *state = malloc(sizeof *state);
    memset(state, 0xA5, sizeof *state);
    {name}_features_reset(state);
    if (fread(&count, 4, 1, stdin) != 1) return 1;
    for (; count > 0u; count--) {{
        int16_t *sample = malloc({fast} * sizeof *sample);
        int32_t *slow = malloc({slow} * sizeof *slow);
        int32_t *row = malloc({width} * sizeof *row);
        if (fread(sample, 2, {fast}, stdin) != {fast} || fread(slow, 4, {slow}, stdin) != {slow}) return 1;
        if ({name}_features_push(state, sample, slow, row) != 0u) fwrite(row, 4, {width}, stdout);
        free(sample); free(slow); free(row);
    }}
    free(state);
    return 0;
}}
"""


@pytest.mark.parametrize("stage", STAGES[::4], ids=lambda stage: stage.config.name)
def test_the_sanitizers_find_no_overflow_and_no_stray_access(stage: QFeatures, tmp_path: Path) -> None:
    need("gcc")
    config = stage.config
    write_sources([stage], tmp_path)
    sizes = {"fast": len(config.fast), "slow": len(config.slow), "width": len(config.columns)}
    include = f'#include "{config.name}_features.h"'
    (tmp_path / "main.c").write_text(MAIN.format(name=config.name, harness=include, **sizes))
    sources = [tmp_path / f"{name}.c" for name in ("main", f"{config.name}_features", "elstm_features")]
    run(*SANITIZE, *sources, "-o", tmp_path / "main")
    for stream in streams(stage, 400):
        samples, slow = stream[0].astype("<i2"), stream[1].astype("<i4")
        both = zip(samples, slow, strict=True)
        given = (400).to_bytes(4, "little") + b"".join(a.tobytes() + b.tobytes() for a, b in both)
        written = run(tmp_path / "main", input=given).stdout
        found = np.frombuffer(written, "<i4").reshape(-1, sizes["width"])
        assert not (text := differing(stage, found, stream)), text


@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_compiler_takes_the_c_without_a_warning(compiler: str, tmp_path: Path) -> None:
    command = COMPILERS[compiler]
    if command[0] != COMPILERS["zig"][0]:
        need(command[0])
    sources = write_sources(STAGES[:4], tmp_path)
    for source in (*sources.models, *sources.runtime):
        run(*command, *WARNINGS, "-O2", "-c", source, "-o", tmp_path / "object.o")


def test_equal_stages_give_equal_text_that_names_every_column() -> None:
    stage = next(stage for stage in STAGES if stage.config.fast and stage.config.slow)
    files = emit_features(stage)
    assert files == emit_features(stage)
    for index, column in enumerate(stage.config.columns):
        assert f"row[{index}]: {column}, " in files[f"{stage.config.name}_features.h"]


def test_no_name_of_a_channel_or_a_stage_can_break_the_c(tmp_path: Path) -> None:
    need("gcc")
    channels = {"a */ x\n#error": {"features": ["rms", "band(100, 200)"]}}
    content = {"name": "int", "rate_hz": 3200, "hop": 8, "fast": channels}
    for file, text in emit_features(quantize_features(FeatureConfig.from_mapping(content))).items():
        (tmp_path / file).write_text(text)
    run("gcc", *WARNINGS, "-c", tmp_path / "model_int_features.c", "-o", tmp_path / "o.o")


def test_a_file_of_another_version_is_refused_by_the_compiler(tmp_path: Path) -> None:
    need("gcc")
    write_sources(STAGES[:1], tmp_path)
    header = tmp_path / "elstm_features.h"
    header.write_text(header.read_text().replace("ELSTM_FEATURES_VERSION 1", "ELSTM_FEATURES_VERSION 9"))
    source = tmp_path / f"{STAGES[0].config.name}_features.c"
    done = subprocess.run(["gcc", "-c", source, "-o", tmp_path / "o.o"], capture_output=True, text=True)
    assert done.returncode != 0 and "copy every elstm file from the same export" in done.stderr


COSTS = {"cortex-m0": (2900, 20500), "cortex-m4": (600, 5600)}  # instructions: a sample's mean, a row's most


@pytest.mark.parametrize("core_name", COSTS)
def test_three_axes_at_hop_128_cost_no_more_than_stated(core_name: str, tmp_path: Path) -> None:
    need("arm-none-eabi-gcc")
    names = ["rms", "peak", "crest", "kurtosis", "band(50, 200)", "band(200, 800)"]
    axes = {axis: {"features": names} for axis in ("ax", "ay", "az")}
    content = {"name": "axes", "rate_hz": 3200, "hop": 128, "fast": axes}
    stage = quantize_features(FeatureConfig.from_mapping(content))
    core = core_named(core_name)
    machine = Machine(read_image(build_core(core, write_sources([stage], tmp_path), tmp_path)), core)
    state = machine.image.symbol("axes_state").address
    machine.write(BUFFER + 4096, bytes(128))
    counts = []
    with InstructionCounter(machine) as counter:
        machine.call("axes_features_reset", state)
        for sample in np.random.default_rng(0).normal(0, 3000, (512, 3)).astype("<i2"):
            machine.write(BUFFER, sample.tobytes())
            counter.instructions = 0
            machine.call("axes_features_push", state, BUFFER, 0, BUFFER + 4096)
            counts.append(counter.instructions)
    per_row = np.array(counts).reshape(-1, 128)
    mean, most = COSTS[core_name]
    assert 0 < per_row[:, :-1].mean() <= mean and per_row[:, -1].max() <= most, per_row[:, -3:]
