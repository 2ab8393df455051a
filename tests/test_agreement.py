"""The promise: every executor returns the codes of its profile's reference, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest

from conftest import missing
from edge_lstm.detection import fixed
from edge_lstm.errors import MissingTool
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.executors.protocol import Executor
from edge_lstm.qgraph import Int8Array, QGraph
from edge_lstm.verbs.verify import difference, keeps_state
from firmware_tools.build import find_host_compiler
from firmware_tools.cores import core_named
from firmware_tools.emulator import EmulatedExecutor, build_machine
from firmware_tools.executors import COMPILED, NAMES, open_executor
from firmware_tools.host import HostExecutor, load_library
from random_models import random_codes, random_present, random_qgraph, random_raw, random_wide_qgraph

MODELS, GROUP, STEPS = 200, 20, 60
EXECUTORS = [name for name in NAMES if name != "tflite-runtime"]  # that one: test_tflite_runtimes.py


def assert_same(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    result = difference(found, expected)
    assert result.differing == 0, f"{what}: {result.differing} of {result.codes} differ, first {result.first}"


def opened(name: str, qgraph: QGraph) -> Executor:
    try:
        return open_executor(name, qgraph)
    except MissingTool as error:
        missing(str(error))
        raise


def qgraph_of(seed: int) -> QGraph:
    """Seeds cover one and two layers, with and without head and detector, calm and saturating."""
    return random_qgraph(seed, dense=seed % 5 != 0, saturating=seed % 3 == 0, detector=seed % 5 != 0)


@pytest.fixture(scope="module", params=EXECUTORS)
def executors(request: pytest.FixtureRequest) -> Iterator[list[tuple[Executor, Int8Array]]]:
    """Six networks loaded into one kind of executor, with a stream for each."""
    with ExitStack() as stack:
        loaded = []
        for seed in range(1, 7):
            qgraph = qgraph_of(seed)
            executor = stack.enter_context(opened(request.param, qgraph))
            loaded.append((executor, random_codes(seed, 40, qgraph.features)))
        yield loaded


def test_every_executor_returns_the_codes_of_its_profile(executors: list[tuple[Executor, Int8Array]]) -> None:
    for executor, codes in executors:
        reference = NumpyExecutor(executor.qgraph.with_profile(executor.profile))
        executor.reset()
        assert_same(executor.run(codes), reference.run(codes), f"{executor.name} {executor.qgraph.name}")


def test_steps_one_by_one_equal_one_call_of_all(executors: list[tuple[Executor, Int8Array]]) -> None:
    for executor, codes in executors:
        executor.reset()
        whole = executor.run(codes)
        executor.reset()
        single = np.stack([executor.step(row) for row in codes])
        assert_same(single, whole, f"{executor.name} {executor.qgraph.name}")


def test_a_reset_equals_a_fresh_start(executors: list[tuple[Executor, Int8Array]]) -> None:
    for executor, codes in executors:
        executor.reset()
        first = executor.run(codes)
        executor.run(codes[::-1])
        executor.reset()
        assert_same(executor.run(codes), first, f"{executor.name} {executor.qgraph.name}")
        windows = executor.run_windows(np.stack([codes, codes]))
        assert_same(windows[0], first, executor.name)
        assert_same(windows[1], first, executor.name)


def columns(detection: fixed.Detection) -> np.ndarray:
    return np.column_stack([detection.score, detection.alarm, detection.threshold, detection.contributions])


def test_scores_and_alarms_are_equal_with_missing_samples_and_over_several_calls(
    executors: list[tuple[Executor, Int8Array]],
) -> None:
    for executor, codes in executors:
        if executor.qgraph.detector is None:
            continue
        present = random_present(3, *codes.shape)
        reference = NumpyExecutor(executor.qgraph.with_profile(executor.profile))
        raw = random_raw(executor.qgraph, 3, len(codes), present)
        expected = columns(reference.detect(raw))
        executor.reset()
        parts = [executor.detect(raw[a:b]) for a, b in ((0, 1), (1, 18), (18, 40))]
        assert_same(np.concatenate([columns(part) for part in parts]), expected, executor.name)


@pytest.fixture(scope="module", params=range(MODELS // GROUP))
def group(request: pytest.FixtureRequest) -> list[tuple[QGraph, Int8Array]]:
    """Twenty of the 200 random networks."""
    seeds = range(1000 + GROUP * request.param, 1000 + GROUP * (request.param + 1))
    graphs = [qgraph_of(seed) for seed in seeds]
    return [(q, random_codes(seed, STEPS, q.features)) for seed, q in zip(seeds, graphs, strict=True)]


@pytest.mark.parametrize("runtime", ["litert", "tflm"])
def test_numpy_equals_the_foreign_runtime_on_200_random_models(
    runtime: str, group: list[tuple[QGraph, Int8Array]]
) -> None:
    for qgraph, codes in group:
        with opened(runtime, qgraph) as executor:
            expected = NumpyExecutor(qgraph.with_profile(runtime)).run(codes)
            assert_same(executor.run(codes), expected, f"{runtime} {qgraph.name}")


@pytest.mark.parametrize("profile", ["tflm", "litert", "tflite"])
def test_the_c_on_host_and_emulated_m4_equals_numpy_on_200_random_models(
    profile: str, group: list[tuple[QGraph, Int8Array]]
) -> None:
    graphs = [qgraph.with_profile(profile) for qgraph, _ in group]
    if profile != "tflm":  # the detector is the same in every profile, and takes long to compile
        graphs = [replace(qgraph, detector=None) for qgraph in graphs]
    compiler = find_host_compiler()
    compiler = replace(compiler, flags=(*compiler.flags, "-O1"))  # the core's C is optimized as it is shipped
    library = load_library(graphs, compiler=compiler)
    machine = build_machine(graphs, core_named("cortex-m4"))
    for qgraph, (_, codes) in zip(graphs, group, strict=True):
        expected = NumpyExecutor(qgraph).run(codes)
        host = HostExecutor(qgraph, library=library)
        assert_same(host.run(codes), expected, f"host {qgraph.name} {profile}")
        emulated = EmulatedExecutor(qgraph, "cortex-m4", machine=machine)
        assert_same(emulated.run(codes), expected, f"cortex-m4 {qgraph.name} {profile}")
        if qgraph.detector is not None:
            present = random_present(len(codes), *codes.shape)
            raw = random_raw(qgraph, len(codes), len(codes), present)
            scores = columns(NumpyExecutor(qgraph).detect(raw))
            for executor in (host, emulated):
                executor.reset()
                assert_same(columns(executor.detect(raw)), scores, f"{executor.name} scores")


def test_detectors_of_16_bit_codes_are_equal_on_host_and_emulated_m4_over_several_calls() -> None:
    graphs = [random_wide_qgraph(seed, "tflm" if seed % 3 else "native") for seed in range(4)]
    assert {q.detector.ahead for q in graphs if q.detector} == {0, 1, 3, 16}
    library = load_library(graphs)
    machine = build_machine(graphs, core_named("cortex-m4"))
    alarms = 0
    for qgraph in graphs:
        raw = random_raw(qgraph, 5, STEPS, random_present(5, STEPS, qgraph.features))
        scores = columns(NumpyExecutor(qgraph).detect(raw))
        alarms += int(scores[:, 1].any())
        host = HostExecutor(qgraph, library=library)
        for executor in (host, EmulatedExecutor(qgraph, "cortex-m4", machine=machine)):
            executor.reset()
            found = np.concatenate([columns(executor.detect(part)) for part in np.split(raw, [1, 18])])
            assert_same(found, scores, f"{executor.name} {qgraph.name}")
    assert alarms > len(graphs) // 2


def test_the_compiled_executors_are_all_here() -> None:
    cores = {"cortex-m0", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"}
    assert set(COMPILED) == {"host", *cores}


class Forgetful(NumpyExecutor):
    """A runtime that starts every call from reset, as TensorFlow Lite Micro does with CMSIS-NN kernels."""

    def run(self, codes: Int8Array) -> Int8Array:
        self.reset()
        return super().run(codes)


def test_a_runtime_that_forgets_its_state_is_found_out() -> None:
    qgraph = random_qgraph(12, units=6, features=3)
    codes = random_codes(12, 64, 3)
    assert keeps_state(NumpyExecutor(qgraph), codes) is True
    assert keeps_state(Forgetful(qgraph), codes) is False
