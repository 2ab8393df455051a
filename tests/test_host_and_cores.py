"""The exported C on the host and on emulated cores: codes, detector and failures."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_lstm.detection.fixed import MISSING, Detection
from edge_lstm.errors import ConfigError, DataError, MissingTool, RuntimeFailure
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.protocol import Executor
from edge_lstm.graph import Stream
from edge_lstm.qgraph import QGraph
from firmware_tools import build, emulator, host
from firmware_tools.build import ZIG, Compiler
from firmware_tools.c_executor import CExecutor
from firmware_tools.cores import core_named
from firmware_tools.emulator import EmulatedExecutor, Machine, build_machine
from firmware_tools.host import HostExecutor, load_library
from pump_network import CORE_COMPILERS, PUMP, compiler_for
from random_models import c_files, random_codes, random_present, random_qgraph, random_raw
from test_reference import golden_lstm

STEPS = 90
SEEDS = range(40, 44)


def _networks() -> list[QGraph]:
    """Both profiles of every seed; sizes 1 .. 40, some without a dense head, some saturating."""
    drawn = [
        random_qgraph(seed, dense=seed % 3 != 0, saturating=seed % 4 == 0, detector=seed % 2 == 0)
        for seed in SEEDS
    ]
    drawn += [random_qgraph(seed, layers=1, units=2, features=2, detector=True) for seed in (35, 38, 57)]
    drawn.append(random_qgraph(50, layers=1, units=1, features=1, detector=True))
    return [*drawn, *(replace(q, name=f"{q.name}_litert", profile="litert") for q in drawn)]


NETWORKS = _networks()
NAMED = {qgraph.name: qgraph for qgraph in NETWORKS}


@dataclass(frozen=True)
class Compiled:
    """Networks in one library or one image, and what opens an executor of one of them."""

    networks: list[QGraph]
    open: Callable[[QGraph], CExecutor]


@pytest.fixture(scope="module", params=["host", *(f"{core}/{kind}" for core, kind in CORE_COMPILERS)])
def compiled(request: pytest.FixtureRequest) -> Compiled:
    """All NETWORKS on the host, M0 and M4; on the other cores a few."""
    if request.param == "host":
        library = load_library(NETWORKS)
        return Compiled(NETWORKS, lambda qgraph: HostExecutor(qgraph, library=library))
    core, kind = request.param.split("/")
    networks = NETWORKS if core in ("cortex-m0", "cortex-m4") else NETWORKS[1::5]
    machine = build_machine(networks, core_named(core), compiler=compiler_for(core, kind))
    return Compiled(networks, lambda qgraph: EmulatedExecutor(qgraph, core, machine=machine))


@cache
def expected_codes(name: str) -> np.ndarray:
    qgraph = NAMED[name]
    return NumpyExecutor(qgraph).run(random_codes(1, STEPS, qgraph.features))


@cache
def expected_detection(name: str, gaps: bool) -> Detection:
    qgraph = NAMED[name]
    return NumpyExecutor(qgraph).detect(random_raw(qgraph, 2, STEPS, masks(qgraph.features, gaps)))


def masks(features: int, gaps: bool) -> np.ndarray:
    return random_present(2, STEPS, features) if gaps else np.ones((STEPS, features), dtype=bool)


def assert_same_codes(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Equal arrays; else the first place where they differ."""
    assert found.shape == expected.shape
    places = np.argwhere(found != expected)
    if len(places):
        first = tuple(places[0])
        pytest.fail(f"{what}, step and output {first}: got {found[first]}, want {expected[first]} "
                    f"({len(places)} of {found.size} differ)")  # fmt: skip


def test_compiled_c_returns_the_codes_of_the_reference(compiled: Compiled) -> None:
    for qgraph in compiled.networks:
        found = compiled.open(qgraph).run(random_codes(1, STEPS, qgraph.features))
        assert_same_codes(found, expected_codes(qgraph.name), qgraph.name)


def test_single_steps_equal_one_run_and_a_reset_equals_a_fresh_start(compiled: Compiled) -> None:
    for qgraph in compiled.networks[::4]:
        codes = random_codes(3, 20, qgraph.features)
        executor = compiled.open(qgraph)
        whole = executor.run(codes)
        executor.reset()
        assert_same_codes(np.stack([executor.step(row) for row in codes]), whole, qgraph.name)
        executor.reset()
        assert_same_codes(executor.run(codes[:0]), whole[:0], qgraph.name)
        halves = np.concatenate([executor.run(codes[:7]), executor.run(codes[7:])])
        assert_same_codes(halves, whole, qgraph.name)


def test_the_detector_in_c_equals_its_twin_bit_for_bit(compiled: Compiled) -> None:
    for qgraph in compiled.networks:
        for gaps in (True, False) if qgraph.detector is not None else ():
            expected = expected_detection(qgraph.name, gaps)
            executor = compiled.open(qgraph)
            raw = random_raw(qgraph, 2, STEPS, masks(qgraph.features, gaps))
            for rows in (slice(0, 33), slice(33, None)):  # the second call goes on where the first ended
                found = executor.detect(raw[rows])
                for name in ("score", "alarm", "threshold", "contributions"):
                    what = f"{qgraph.name}, {name} from row {rows.start}"
                    assert_same_codes(getattr(found, name), getattr(expected, name)[rows], what)


def test_the_detectors_of_these_networks_have_every_option_and_both_answers() -> None:
    detectors = [qgraph.detector for qgraph in NETWORKS if qgraph.detector is not None]
    assert {detector.whitening is None for detector in detectors} == {True, False}
    assert {detector.gain == 0 for detector in detectors} == {True, False}
    alarms = [expected_detection(q.name, True).alarm for q in NETWORKS if q.detector is not None]
    assert {int(alarm) for series in alarms for alarm in series} == {0, 1}
    assert max(np.abs(np.diff(series.astype(int))).sum() for series in alarms) >= 3


def test_a_row_without_any_channel_changes_nothing(compiled: Compiled) -> None:
    qgraph = next(q for q in compiled.networks if q.detector is not None)
    raw = random_raw(qgraph, 4, 60)
    executor = compiled.open(qgraph)
    whole = executor.detect(raw)
    executor.reset()
    twice = np.repeat(raw, 2, axis=0)
    twice[1::2] = MISSING
    found = executor.detect(twice)
    assert found.score[::2].tolist() == found.score[1::2].tolist() == whole.score.tolist()
    assert found.contributions[1::2].tolist() == whole.contributions.tolist()


@pytest.mark.parametrize("profile", ["tflm", "litert"])
def test_the_c_returns_the_golden_vectors(shared_data: Path, profile: str) -> None:
    key = {"tflm": "Y_tflm", "litert": "Y_tflite"}[profile]
    models = json.loads((shared_data / "golden" / "integer_lstm.json").read_text())["models"]
    qgraphs = [
        QGraph(f"golden_{k}", (golden_lstm(m),), Stream.unnamed(len(m["W" + "i"][0])), profile)
        for k, m in enumerate(models)
    ]
    library = load_library(qgraphs)
    for qgraph, model in zip(qgraphs, models, strict=True):
        found = HostExecutor(qgraph, library=library).run_windows(np.array(model["X"], dtype=np.int8))
        assert found.tolist() == model[key]


def test_last_only_models_return_one_row_a_window() -> None:
    qgraph = replace(PUMP, timesteps=4, last_only=True)
    codes = random_codes(1, 12, 3)
    assert_same_codes(HostExecutor(qgraph).run(codes), HostExecutor(PUMP).run(codes)[3::4], "pump")


@pytest.mark.parametrize("size", [1, 5, 100])
def test_long_streams_run_in_batches_of_any_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codes, raw = random_codes(1, 50, 3), random_raw(PUMP, 1, 50, random_present(1, 50, 3))
    executor, reference = EmulatedExecutor(PUMP, "cortex-m4"), NumpyExecutor(PUMP)
    monkeypatch.setattr(emulator, "BUFFER_BYTES", 64 * size)
    assert_same_codes(executor.run(codes), reference.run(codes), "run")
    executor.reset()
    reference.reset()
    assert_same_codes(executor.detect(raw).score, reference.detect(raw).score, "score")


# --- exported C in a folder ------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """The C of PUMP, as `convert --to c` writes it."""
    for file, text in c_files(PUMP).items():
        (tmp_path / file).write_text(text)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def open_on(name: str, c_dir: Path) -> Executor:
    return HostExecutor(PUMP, c_dir) if name == "host" else EmulatedExecutor(PUMP, name, c_dir)


@pytest.mark.parametrize("name", ["host", "cortex-m4"])
def test_one_changed_weight_in_exported_c_changes_the_codes(name: str, exported: Path) -> None:
    codes = random_codes(2, 200, 3)
    expected = NumpyExecutor(PUMP).run(codes)
    assert_same_codes(open_on(name, exported).run(codes), expected, name)
    text = (exported / "pump.c").read_text()
    weight = re.search(r"lstm_0_weights\[\d+\] ELSTM_ALIGNED = \{\s+(-?\d+),", text)
    assert weight is not None
    changed = text[: weight.start(1)] + str(int(weight[1]) // 2 - 30) + text[weight.end(1) :]
    (exported / "pump.c").write_text(changed)
    assert (open_on(name, exported).run(codes) != expected).any()


def test_a_folder_without_the_models_c_is_refused_with_the_command_that_fills_it(tmp_path: Path) -> None:
    message = r"has no pump.c, pump.h, elstm.c, .*; export the model with: edge-lstm convert pump.tflite"
    with pytest.raises(ConfigError, match=message):
        HostExecutor(PUMP, tmp_path)


@pytest.mark.parametrize("name", ["host", "cortex-m0"])
def test_exported_c_of_another_network_is_refused(name: str, exported: Path) -> None:
    edit(exported / "pump.h", "#define PUMP_FEATURES 3", "#define PUMP_FEATURES 4")
    with pytest.raises(RuntimeFailure, match="pump.h is of another network; export this one again"):
        open_on(name, exported)


def test_exported_c_without_the_detector_is_refused(exported: Path) -> None:
    for file, text in c_files(replace(PUMP, detector=None)).items():
        (exported / file).write_text(text)
    with pytest.raises(RuntimeFailure, match="pump.h has no detector, but the network has one"):
        HostExecutor(PUMP, exported)


@pytest.mark.parametrize("name", ["host", "cortex-m0"])
def test_a_compiler_error_is_shown_in_its_own_words(name: str, exported: Path) -> None:
    edit(exported / "pump.c", "state->turn = next;", "state->turn = nxt;")
    with pytest.raises(RuntimeFailure, match=r"failed; if the C was edited, export it again:\n.*\n*.*nxt"):
        open_on(name, exported)


STEP_END = "    elstm_dense_tflm("


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("*(volatile int *)4 = 1;", r"UNMAPPED\); pc 0x080\w+ in pump_step\. If the C was edited"),
        ("*(volatile int8_t *)pump_step = 1;", r"call of pump_harness_run failed: .*in pump_step"),
        ('__asm__ volatile (".short 0xde00");', r"failed: .* in pump_step"),
        ("for (;;) { now_or_never++; }", r"it did not return within 1 s; pc 0x080\w+ in pump_step"),
    ],
)
def test_a_fault_on_a_core_names_the_function_that_it_happened_in(
    code: str, message: str, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator, "CALL_LIMIT_S", 0.6)
    edit(exported / "pump.c", STEP_END, f"    {code}\n{STEP_END}")
    edit(
        exported / "pump.c",
        "static elstm_channels_t",
        "static volatile int now_or_never;\nstatic elstm_channels_t",
    )
    executor = EmulatedExecutor(PUMP, "cortex-m4", exported)
    with pytest.raises(RuntimeFailure, match=rf"^cortex-m4: .*{message}"):
        executor.run(random_codes(0, 5, 3))


def test_codes_of_another_width_are_refused_before_the_c_sees_them() -> None:
    executor = HostExecutor(PUMP)
    with pytest.raises(DataError, match=r"model 'pump': codes are int8 \(5, 4\), expected int8 \(steps, 3\)"):
        executor.run(np.zeros((5, 4), dtype=np.int8))
    with pytest.raises(DataError, match=r"codes are int16 \(5, 3\), expected int8 \(steps, 3\)"):
        executor.run(np.zeros((5, 3), dtype=np.int16))
    message = r"raw values are int32 \(5, 2\), expected int32 \(steps, 3\)"
    with pytest.raises(DataError, match=message):
        executor.detect(np.zeros((5, 2), dtype=np.int32))
    with pytest.raises(DataError, match=r"raw values are float64 \(5, 3\), expected int32"):
        executor.detect(np.zeros((5, 3)))  # type: ignore[arg-type]


def test_a_network_without_detector_detects_nothing() -> None:
    with pytest.raises(DataError, match="carries no detector"):
        HostExecutor(replace(PUMP, detector=None)).detect(np.zeros((5, 3), np.int32))
    for open_one in (NumpyExecutor, HostExecutor):
        with pytest.raises(DataError, match="does not state the resolution of its channels"):
            open_one(replace(PUMP, stream=Stream.unnamed(3))).detect(np.zeros((5, 3), np.int32))


def test_an_unknown_core_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="core 'cortex-m1' is unknown; choose one of cortex-m0, cortex-m3"):
        EmulatedExecutor(PUMP, "cortex-m1")


def test_networks_of_one_image_need_distinct_names() -> None:
    with pytest.raises(ConfigError, match="networks of one image need distinct names, got pump, pump"):
        load_library([PUMP, PUMP])


def test_a_machine_without_compilers_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    with pytest.raises(MissingTool, match=r"no C compiler found.*\n.*apt install gcc .*pip install"):
        HostExecutor(PUMP)
    with pytest.raises(
        MissingTool, match=r"no C compiler for cortex-m4 found.*\n.*apt install gcc-arm-none-eabi"
    ):
        EmulatedExecutor(PUMP, "cortex-m4")


def test_a_machine_without_the_emulator_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = EmulatedExecutor(PUMP, "cortex-m4").machine
    monkeypatch.setitem(__import__("sys").modules, "unicorn", None)
    with pytest.raises(MissingTool, match=r"'unicorn' is not installed.*edge-lstm\[emulator\]"):
        Machine(machine.image, machine.core)


def test_the_host_compiler_is_cc_of_the_environment_if_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", f"{ZIG[0]} -m ziglang cc")
    assert build.find_host_compiler().command == ZIG
    codes = random_codes(2, 30, 3)
    assert_same_codes(HostExecutor(PUMP).run(codes), NumpyExecutor(PUMP).run(codes), "zig")


def test_a_compiler_that_cannot_start_is_reported() -> None:
    with pytest.raises(RuntimeFailure, match="broken cannot be started: No such file"):
        load_library([PUMP], compiler=Compiler("broken", ("/nonexistent/cc",)))


def test_a_library_of_another_machine_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def write_text(sources: Any, folder: Path, compiler: Any = None) -> Path:
        (folder / "model.so").write_text("not a library")
        return folder / "model.so"

    monkeypatch.setattr(host, "build_host", write_text)
    with pytest.raises(RuntimeFailure, match=r"cannot be loaded: .*does \$CC compile for another machine\?"):
        HostExecutor(PUMP)


def test_an_image_without_the_harness_symbol_is_reported() -> None:
    machine = EmulatedExecutor(PUMP, "cortex-m4").machine
    with pytest.raises(RuntimeFailure, match="the linked image has no symbol 'pump_fly'"):
        machine.call("pump_fly")
    assert machine.image.function_at(0) == "no function"
