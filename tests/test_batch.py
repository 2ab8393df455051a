"""Many streams at once in C on the host: the same codes as each stream alone, in any number, at any size."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from conftest import missing
from edge_lstm.emit.c_batch import batches
from edge_lstm.emit.c_code import emit_c
from edge_lstm.errors import DataError
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.lower import lower
from edge_lstm.qgraph import QGraph
from edge_lstm.reference import integer
from firmware_tools import host
from firmware_tools.build import (
    HARNESS,
    Compiler,
    find_host_compiler,
    host_compilers,
    run_compiler,
    write_sources,
)
from firmware_tools.host import HostExecutor, write_batch
from random_lstms import alone, random_lstm
from random_models import random_codes, random_qgraph

PROFILES = ("tflm", "tflm", "litert")
STEPS = 9


def network(seed: int) -> QGraph:
    """A random network whose layers have names of their own: many fit into one source."""
    drawn = random_qgraph(seed, dense=seed % 4 != 0, saturating=seed % 3 == 0)
    layers = tuple(replace(layer, name=f"of_{seed}_{layer.name}") for layer in drawn.layers)
    return replace(drawn, layers=layers, profile=PROFILES[seed % len(PROFILES)])


NETWORKS = [network(seed) for seed in range(200, 260)]


def streams_of(qgraph: QGraph, streams: int, steps: int = STEPS) -> npt.NDArray[np.int8]:
    return np.stack([random_codes(1000 + seed, steps, qgraph.features) for seed in range(streams)])


def assert_same_streams(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    assert found.shape == expected.shape and found.dtype == expected.dtype, what
    wrong = np.argwhere(found != expected)
    assert not len(wrong), (
        f"{what}: stream, step, output {wrong[0].tolist()}: got {found[tuple(wrong[0])]}, "
        f"want {expected[tuple(wrong[0])]} ({len(wrong)} of {expected.size} differ)"
    )


def compiled(qgraphs: Sequence[QGraph], folder: Path, *flags: str) -> ctypes.CDLL:
    """All networks in one source, so that the compiler reads its own headers once."""
    sources = write_batch(qgraphs, write_sources(qgraphs, folder), folder)
    together = folder / "together.c"
    together.write_text("".join(f'#include "{path.name}"\n' for path in sources.models))
    files = (sources.harness, together, *sources.runtime)
    include = ("-I", str(folder), "-I", str(HARNESS))
    target = folder / "together.so"
    run_compiler(
        find_host_compiler(),
        ["-std=c99", *flags, "-fPIC", "-shared", *include, *map(str, files), "-o", str(target)],
    )
    return ctypes.CDLL(str(target))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """All networks, compiled in little time rather than to fast code."""
    return compiled(
        NETWORKS, tmp_path_factory.mktemp("batch"), "-O0", *host.native_flags(find_host_compiler().command)
    )


def test_the_networks_vary_in_what_the_batch_distinguishes() -> None:
    programs = [lower(qgraph) for qgraph in NETWORKS]
    assert all(map(batches, programs))
    layers = [layer for program in programs for layer in program.layers]
    assert {(layer.features % 4, layer.outputs % 4) for layer in layers} == set(product(range(4), range(4)))
    assert {program.profile for program in programs} == set(PROFILES)
    assert {len(program.layers) for program in programs} == {1, 2, 3}
    assert max(layer.outputs for layer in layers) > 32 and min(layer.outputs for layer in layers) < 3


def test_random_networks_give_the_codes_of_the_reference(library: ctypes.CDLL) -> None:
    for index, qgraph in enumerate(NETWORKS):
        codes = streams_of(qgraph, 1 + (index * 7) % 70)
        found = HostExecutor(qgraph, library=library).run_windows(codes)
        assert_same_streams(found, integer.run(lower(qgraph), codes)[0], qgraph.name)


def test_codes_do_not_depend_on_how_many_streams_there_are(library: ctypes.CDLL) -> None:
    qgraph = NETWORKS[1]
    codes = streams_of(qgraph, 35)
    executor = HostExecutor(qgraph, library=library)
    whole = executor.run_windows(codes)
    for streams in (1, 2, 15, 16, 17, 31, 32, 33):
        assert_same_streams(executor.run_windows(codes[:streams]), whole[:streams], f"{streams} streams")


def test_streams_of_any_lengths_give_what_each_gives_alone(library: ctypes.CDLL) -> None:
    qgraph = NETWORKS[4]
    lengths = [1, 40, 3, 0, 17, 39, 20, 19, 40, 2, *range(30)]
    streams = [random_codes(index, steps, qgraph.features) for index, steps in enumerate(lengths)]
    found = HostExecutor(qgraph, library=library).run_streams(streams)
    expected = NumpyExecutor(qgraph).run_streams(streams)
    assert len(found) == len(expected) == len(lengths)
    for index, outputs in enumerate(expected):
        assert_same_streams(found[index], outputs, f"stream {index}")


def test_last_only_networks_give_a_row_a_window(library: ctypes.CDLL) -> None:
    qgraph = replace(NETWORKS[1], timesteps=3, last_only=True)
    codes = streams_of(qgraph, 18)
    executor = HostExecutor(qgraph, library=library)
    expected = NumpyExecutor(qgraph).run_windows(codes)
    assert expected.shape[1] == STEPS // 3
    assert_same_streams(executor.run_windows(codes), expected, "windows")
    streams = [codes[0], codes[1][:6], codes[2][:3]]
    for found, expected in zip(
        executor.run_streams(streams), NumpyExecutor(qgraph).run_streams(streams), strict=True
    ):
        assert_same_streams(found, expected, "streams")


def test_a_batch_leaves_the_executor_in_reset_state(library: ctypes.CDLL) -> None:
    qgraph = NETWORKS[2]
    codes = streams_of(qgraph, 3)
    executor = HostExecutor(qgraph, library=library)
    fresh = executor.run(codes[0])
    executor.run_windows(codes)
    assert_same_streams(executor.run(codes[0]), fresh, "after a batch")


def test_no_streams_and_no_steps_give_no_codes(library: ctypes.CDLL) -> None:
    qgraph = NETWORKS[0]
    executor = HostExecutor(qgraph, library=library)
    for shape in ((0, 5), (3, 0)):
        codes = np.zeros((*shape, qgraph.features), dtype=np.int8)
        assert executor.run_windows(codes).shape == (*shape, qgraph.outputs)


def test_codes_of_another_width_are_refused(library: ctypes.CDLL) -> None:
    qgraph = NETWORKS[0]
    with pytest.raises(DataError, match=rf"expected int8 \(steps, {qgraph.features}\)"):
        HostExecutor(qgraph, library=library).run_windows(
            np.zeros((2, 3, qgraph.features + 1), dtype=np.int8)
        )


@pytest.mark.parametrize("profile", ["tflm", "litert"])
def test_many_steps_are_run_as_a_batch_that_is_compiled_for_them(
    profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    qgraph = random_qgraph(3, layers=2, units=17, features=5).with_profile(profile)
    codes = streams_of(qgraph, 18, 40)
    built: list[bool] = []
    load = host.load_library

    def counted(*arguments: Any, **options: Any) -> ctypes.CDLL:
        built.append(options.get("streams", False))
        return load(*arguments, **options)

    monkeypatch.setattr(host, "load_library", counted)
    executor = HostExecutor(qgraph)
    alone = executor.run_windows(codes)
    assert built == [False]
    monkeypatch.setattr(host, "BATCH_STEPS", 18 * 40)
    batch = executor.run_windows(codes)
    executor.run_windows(codes)
    assert built == [False, True]
    assert_same_streams(batch, alone, profile)
    assert_same_streams(batch, NumpyExecutor(qgraph).run_windows(codes), profile)


def test_the_exported_c_in_a_folder_is_what_a_batch_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qgraph = random_qgraph(5, layers=1, units=3, features=2)
    for file, text in emit_c(lower(qgraph)).items():
        (tmp_path / file).write_text(text)
    source = tmp_path / f"{qgraph.name}.c"
    edited = source.read_text().replace(".hidden_zero_point = ", ".hidden_zero_point = 1 + ")
    assert edited != source.read_text()
    source.write_text(edited)
    executor = HostExecutor(qgraph, c_dir=tmp_path)
    codes = streams_of(qgraph, 3)
    alone = executor.run_windows(codes)
    monkeypatch.setattr(host, "BATCH_STEPS", 1)
    assert_same_streams(executor.run_windows(codes), alone, "the edited C")
    assert (alone != NumpyExecutor(qgraph).run_windows(codes)).any()


def others() -> list[QGraph]:
    """Networks that are not run as a batch: a window, a variant, 16 bits."""
    drawn = random_qgraph(7, layers=1, units=4, features=3)
    return [
        replace(drawn, name="window", timesteps=4, window=4),
        alone(random_lstm(1, "peephole", units=5), "peephole", "litert"),
        alone(random_lstm(2, bits=16, units=5), "wide", "tflm"),
    ]


@pytest.mark.parametrize("qgraph", others(), ids=lambda qgraph: qgraph.name)
def test_other_networks_run_stream_after_stream(qgraph: QGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not batches(lower(qgraph))
    monkeypatch.setattr(host, "BATCH_STEPS", 1)
    rng = np.random.default_rng(0)
    codes = rng.integers(-128, 128, (3, 8, qgraph.features)).astype(qgraph.input.dtype)
    found = HostExecutor(qgraph).run_windows(codes)
    assert_same_streams(found, NumpyExecutor(qgraph).run_windows(codes), qgraph.name)


WARN = ("-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.mark.parametrize("compiler", host_compilers(), ids=lambda compiler: compiler.name)
def test_no_compiler_warns_of_the_batch(compiler: Compiler, tmp_path: Path) -> None:
    qgraph = random_qgraph(11, layers=1, units=5, features=3)
    sources = write_batch([qgraph], write_sources([qgraph], tmp_path), tmp_path)
    for flags in ((), host.native_flags(compiler.command)):
        options = ("-std=c99", "-O1", *flags, *WARN, "-I", str(tmp_path), "-c", "-o", str(tmp_path / "m.o"))
        run_compiler(compiler, [*options, str(sources.models[0])])


def sanitized_main(qgraph: QGraph, streams: int) -> str:
    """A program that reads the codes of all streams and writes theirs, all on the heap."""
    name, sizes = qgraph.name, (streams * STEPS * qgraph.features, streams * STEPS * qgraph.outputs)
    return (
        f'#include "{name}_streams.c"\n#include <stdio.h>\n#include <stdlib.h>\n'
        "int main(void)\n{\n"
        f"    {name}_streams_t *state = aligned_alloc(64, sizeof *state);\n"
        "    memset(state, 0xA5, sizeof *state);\n"
        f"    int8_t *x = malloc({sizes[0]}), *y = malloc({sizes[1]});\n"
        f"    if (fread(x, 1, {sizes[0]}, stdin) != {sizes[0]}) {{\n        return 1;\n    }}\n"
        f"    {name}_run_streams(state, x, y, {streams}, {STEPS});\n"
        f"    fwrite(y, 1, {sizes[1]}, stdout);\n"
        "    free(y);\n    free(x);\n    free(state);\n    return 0;\n}\n"
    )


@pytest.mark.parametrize(("profile", "native"), [("tflm", True), ("litert", False)])
def test_the_sanitizers_find_nothing(profile: str, native: bool, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        missing("gcc")
    qgraph = random_qgraph(11, layers=1, units=5, features=3, saturating=True).with_profile(profile)
    codes = streams_of(qgraph, 18)
    sources = write_batch([qgraph], write_sources([qgraph], tmp_path), tmp_path)
    main, program = tmp_path / "main.c", tmp_path / "main"
    main.write_text(sanitized_main(qgraph, len(codes)))
    flags = ("-std=c11", *SANITIZE, *(host.native_flags(("gcc",)) if native else ()), "-I", str(tmp_path))
    run_compiler(
        Compiler("gcc", ("gcc",)), [*flags, str(main), *map(str, sources.runtime), "-o", str(program)]
    )
    done = subprocess.run([program], input=codes.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    expected = NumpyExecutor(qgraph).run_windows(codes)
    found = np.frombuffer(done.stdout, dtype=np.int8).reshape(expected.shape)
    assert_same_streams(found, expected, profile)
