"""Packages for other ecosystems: built by their tools or by stand-ins, run, and checked by their rules."""

from __future__ import annotations

import os
import re
import shutil
import xml.etree.ElementTree as ET
import zipfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from edge_lstm.cli import main
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import ConfigError, OutputError, UnsupportedModel
from edge_lstm.executors.numpy_executor import NumpyExecutor
from edge_lstm.graph import Channel, Graph, Stream
from edge_lstm.layer_types import Dense
from edge_lstm.qgraph import QGraph, QReverse
from edge_lstm.scaling import scaling_of
from edge_lstm.verbs.convert import channel_lines
from edge_lstm.verbs.export import export
from export_stand_ins import ARDUINO, ESP_IDF, MICROPYTHON, ZEPHYR
from firmware_tools.export import FORMATS, package_files
from firmware_tools.export.writing import write_package, zip_bytes
from random_models import c_files, random_qgraph, with_random_resolution
from random_operators import network
from test_c_code import WARNINGS, need, renamed, run
from test_c_windows import Q8, bidirectional

CHANNELS = (
    Channel("flow */ ??/", "l/min", 12.5, 3.25, 0.05, 4.0),
    Channel("ram\\", "bar", -4e4, 7.0, 0.001, -4e4),
    Channel("t", resolution=1.0),
)


def detector_model() -> QGraph:
    """Three channels with units, and a detector that scores after a few rows."""
    qgraph = random_qgraph(5, layers=1, units=5, features=3, detector=True)
    assert qgraph.detector is not None
    quick = replace(
        qgraph.detector,
        warmup=max(3, qgraph.detector.lags, qgraph.detector.ahead),
        base=400,
        debounce=2,
        clear=250,
    )
    return replace(renamed(qgraph, "pump"), stream=Stream(CHANNELS, 0.01), detector=quick)


MODELS = {
    "pump": detector_model(),
    "Two": renamed(random_qgraph(2, layers=2, units=4, features=2), "Two"),
    "n": renamed(bidirectional(), "n"),
}
RAW = {"raw_two": with_random_resolution(renamed(MODELS["Two"], "raw_two"), 4),
       "raw_n": with_random_resolution(renamed(MODELS["n"], "raw_n"), 5)}  # fmt: skip
MODELS |= RAW


def expected(qgraph: QGraph) -> list[str]:
    """What the example prints, by the reference."""
    rows = qgraph.window or 20 + (qgraph.detector.warmup if qgraph.detector else 0)
    offsets = (7 * np.arange(rows)[:, None] + 3 * np.arange(qgraph.features)) % 20
    codes = np.clip(qgraph.input.zero_point + offsets, qgraph.input.low, qgraph.input.high)
    codes = codes.astype(qgraph.input.dtype)
    scaling = scaling_of(qgraph.stream, qgraph.input)
    raw = np.zeros(codes.shape, dtype=np.int32)
    if scaling is not None:
        zero = np.full((1, qgraph.features), qgraph.input.zero_point)
        further = scaling.counts(np.minimum(zero + 16, qgraph.input.high)) - scaling.counts(zero)
        raw = (scaling.counts(zero) + np.maximum(further // 16, 1) * offsets).astype(np.int32)
        codes = scaling.codes(raw)
    executor = NumpyExecutor(qgraph)
    if qgraph.detector is None:
        answers = [" ".join(map(str, row)) for row in executor.run(codes)]
    else:
        found = executor.detect(raw)
        answers = [
            f"alarm {int(alarm)}, score {score} of {threshold}"
            for alarm, score, threshold in zip(found.alarm, found.score, found.threshold, strict=True)
        ]
        assert any(score > 0 for score in found.score) and any(found.alarm)
    return [f"row {row}: {answer}" for row, answer in enumerate(answers)]


@cache
def c_of(model: str) -> dict[str, str]:
    return c_files(MODELS[model], channel_lines(MODELS[model]))


def package(folder: Path, package_format: str, model: str = "pump") -> Path:
    """A package of a model in a folder of its name."""
    qgraph, out = MODELS[model], folder / model
    files = package_files(qgraph, c_of(model), package_format, channel_lines(qgraph))
    write_package(out, package_format, qgraph.name, files)
    return out


def stand_ins(folder: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


def lines_of(program: Path) -> list[str]:
    text: str = run(program).stdout.decode()
    return text.splitlines()


def cmake(source: Path, build: Path, **variables: str | Path) -> None:
    """Configure and build; every warning of a compiler is an error."""
    need("cmake")
    flags = "-Wall -Wextra -Wconversion -Werror"
    options = [f"-D{name}={value}" for name, value in variables.items()]
    environment = os.environ | {name: str(value) for name, value in variables.items() if name.isupper()}
    run("cmake", "-S", source, "-B", build, f"-DCMAKE_C_FLAGS={flags}", *options, env=environment)
    run("cmake", "--build", build, "-j", "2", env=environment)


@pytest.mark.parametrize("model", MODELS)
def test_the_platformio_library_and_its_example_compile_and_answer_as_the_reference(
    model: str, tmp_path: Path
) -> None:
    root = package(tmp_path, "platformio", model)
    sources = [*root.glob("src/*.c"), root / "examples/read_rows/src/main.c"]
    sanitizers = ("-fsanitize=undefined,address", "-fno-sanitize-recover=all")
    run("gcc", *WARNINGS, *sanitizers, "-I", root / "src", "-o", tmp_path / "rows", *sources)
    assert lines_of(tmp_path / "rows") == expected(MODELS[model])


def test_cmake_builds_runs_installs_and_finds_two_models_side_by_side(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    for model in ("pump", "n"):
        root, build = package(tmp_path, "cmake", model), tmp_path / f"build_{model}"
        cmake(root, build)
        assert lines_of(build / "examples/read_rows/read_rows") == expected(MODELS[model])
        run("cmake", "--install", build, "--prefix", prefix)
        example, found = root / "examples/read_rows", tmp_path / f"found_{model}"
        cmake(example, found, CMAKE_PREFIX_PATH=prefix)
        assert lines_of(found / "read_rows") == expected(MODELS[model])
    both = stand_ins(
        tmp_path / "both",
        {
            "CMakeLists.txt": "cmake_minimum_required(VERSION 3.14)\nproject(both C)\n"
            "add_subdirectory(../pump pump)\nadd_subdirectory(../n n)\nadd_executable(both main.c)\n"
            "target_link_libraries(both PRIVATE edge_lstm::pump edge_lstm::n)\n",
            "main.c": '#include "n.h"\n#include "pump.h"\nint main(void)\n{\n    static pump_state_t pump;\n'
            "    static n_state_t n;\n    static int8_t x[N_WINDOW * N_FEATURES];\n"
            "    static int16_t y[N_ROWS * N_OUTPUTS];\n    pump_reset(&pump);\n    n_window(&n, x, y);\n"
            "    return 0;\n}\n",
        },
    )
    cmake(both, tmp_path / "build_both")
    run(tmp_path / "build_both/both")


@pytest.mark.parametrize("model", ["pump", "Two"])
def test_the_arduino_sketch_runs_on_a_simulated_mega(model: str, tmp_path: Path) -> None:
    need("avr-gcc")
    root = package(tmp_path, "arduino", model)
    folder = stand_ins(tmp_path / "core", ARDUINO)
    shutil.copy(root / "examples/read_rows/read_rows.ino", folder)
    answers = expected(MODELS[model])
    common = ("-mmcu=atmega2560", "-DF_CPU=16000000UL", "-Os", "-Wall", "-Wextra", "-I", root / "src")
    objects = []
    for source in root.glob("src/*.c"):
        objects.append(tmp_path / f"{source.stem}.o")
        run("avr-gcc", "-std=gnu11", *common, "-c", source, "-o", objects[-1])
    sketch = (
        f"-DLOOPS={len(answers)}",
        "-std=gnu++11",
        *common,
        "-Werror",
        "-I",
        folder,
        folder / "main.cpp",
    )
    run("avr-g++", *sketch, *objects, "-o", tmp_path / "sketch.elf")
    need("simavr")
    done = run("simavr", "-m", "atmega2560", "-f", "16000000", tmp_path / "sketch.elf", timeout=60)
    text = re.sub(r"\x1b\[[0-9;]*m", "", (done.stdout + done.stderr).decode())
    assert [line.rstrip(".") for line in text.splitlines() if line.startswith("row ")] == answers


def test_the_zephyr_sample_finds_its_module_and_answers_as_the_reference(tmp_path: Path) -> None:
    root = package(tmp_path, "zephyr", "Two")
    base = stand_ins(tmp_path / "base", ZEPHYR)
    cmake(root / "samples/read_rows", tmp_path / "build", ZEPHYR_BASE=base)
    assert lines_of(tmp_path / "build/app") == expected(MODELS["Two"])


def test_two_zephyr_modules_bring_the_runtime_once(tmp_path: Path) -> None:
    first, second = package(tmp_path, "zephyr", "pump"), package(tmp_path, "zephyr", "Two")
    base = stand_ins(tmp_path / "base", ZEPHYR)
    with (first / "samples/read_rows/prj.conf").open("a") as config:
        config.write("CONFIG_EDGE_LSTM_TWO=y\n")
    extra = {"ZEPHYR_BASE": base, "ZEPHYR_EXTRA_MODULES": second}
    cmake(first / "samples/read_rows", tmp_path / "build", **extra)
    assert lines_of(tmp_path / "build/app") == expected(MODELS["pump"])


@pytest.mark.parametrize("model", ["pump", "n"])
def test_the_esp_idf_example_builds_its_component_and_answers_as_the_reference(
    model: str, tmp_path: Path
) -> None:
    root = package(tmp_path, "esp-idf", model)
    idf = stand_ins(tmp_path / "idf", ESP_IDF)
    cmake(root / "examples/read_rows", tmp_path / "build", IDF_PATH=idf)
    assert lines_of(tmp_path / "build/firmware") == expected(MODELS[model])


def test_the_micropython_modules_compile_and_share_the_runtime(tmp_path: Path) -> None:
    roots = [package(tmp_path, "micropython", model) for model in MODELS]
    port = stand_ins(tmp_path / "port", MICROPYTHON)
    cmake(port, tmp_path / "build", MODULES=";".join(f"{root}/micropython.cmake" for root in roots))
    for root in roots:
        compile(root.joinpath("examples/read_rows.py").read_text(), "read_rows.py", "exec")
    make = "".join(f"USERMOD_DIR := {root}\ninclude {root}/micropython.mk\n" for root in roots)
    head = "SRC_USERMOD_C :=\nSRC_USERMOD_LIB_C :=\n"
    (tmp_path / "Makefile").write_text(f"{head}{make}all:\n\t@echo $(SRC_USERMOD_C) $(SRC_USERMOD_LIB_C)\n")
    sources = run("make", "-s", "-C", tmp_path).stdout.decode().split()
    names = [Path(source).name for source in sources]
    assert len(names) == len(set(names)) and {"elstm.c", "pump_module.c", "n.c"} <= set(names)
    assert all(Path(source).is_file() for source in sources)


def test_the_files_that_the_cmsis_pack_lists_make_the_example(tmp_path: Path) -> None:
    root = package(tmp_path, "cmsis-pack")
    files = ET.parse(root / "edge-lstm.pump.pdsc").findall("components/component/files/file")
    by_category: dict[str, list[Path]] = {}
    for file in files:
        by_category.setdefault(file.attrib["category"], []).append(root / file.attrib["name"])
    assert set(by_category["header"]) == set(root.glob("src/*.h"))
    includes = [f"-I{folder}" for folder in by_category["include"]]
    run("gcc", *WARNINGS, *includes, "-o", tmp_path / "rows", *by_category["source"])
    assert lines_of(tmp_path / "rows") == expected(MODELS["pump"])


@pytest.mark.parametrize("package_format", FORMATS)
def test_every_package_holds_all_of_the_model_and_nothing_of_the_machine(
    package_format: str, tmp_path: Path
) -> None:
    root = package(tmp_path, package_format)
    assert {path.name: path.read_text() for path in root.glob("src/*")} == c_of("pump")
    texts = [path.read_text() for path in root.rglob("*") if path.is_file()]
    assert not any(str(tmp_path) in text or str(Path.cwd()) in text for text in texts)
    assert any("raw[0]: flow * / ? ?/, counts of 0.05 l/min; 0 is 4 l/min" in text for text in texts)
    assert all(text.endswith("\n") for text in texts)


def edge_lstm(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "pump.tflite"
    path.write_bytes(emit_tflite(MODELS["pump"]))
    return path


@pytest.mark.parametrize("package_format", FORMATS)
def test_the_verb_writes_a_folder_or_the_same_files_in_a_zip_with_fixed_dates(
    package_format: str, model_file: Path, tmp_path: Path
) -> None:
    archive = tmp_path / ("a.pack" if package_format == "cmsis-pack" else "a.zip")
    result = edge_lstm("export", model_file, "--format", package_format, "-o", tmp_path / "out" / "deep")
    assert result.exit_code == 0, result.output
    assert f"{package_format} package, " in result.output
    first = export(model_file, archive, package_format)
    content = archive.read_bytes()
    assert export(model_file, archive, package_format) == first and archive.read_bytes() == content
    top = "" if package_format == "cmsis-pack" else "pump/"
    with zipfile.ZipFile(archive) as packed:
        assert {entry.date_time for entry in packed.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        unpacked = {entry: packed.read(entry) for entry in packed.namelist()}
    root = tmp_path / "out" / "deep"
    folder = {
        top + path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }
    assert unpacked == folder and zip_bytes({k: v.decode() for k, v in folder.items()}, "") == content
    assert {path: len(text) for path, text in folder.items()} == {top + p: n for p, n in first.files.items()}


def test_a_package_is_written_again_over_itself_but_over_nothing_else(
    model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "library"
    export(model_file, out, "arduino")
    (out / "library.properties").write_text("changed")
    export(model_file, out, "arduino")
    assert (out / "library.properties").read_text().startswith("name=pump\n")
    (out / "src" / "notes.txt").write_text("mine")
    with pytest.raises(
        OutputError, match=r"library holds src/notes\.txt, which is not of this package; choose"
    ):
        export(model_file, out, "arduino")
    with pytest.raises(OutputError, match=r"holds examples/read_rows/read_rows\.ino, which is not of this"):
        export(model_file, out, "cmake")
    assert (out / "src" / "notes.txt").read_text() == "mine" and not list(out.glob(".edge-lstm-*"))
    with pytest.raises(
        OutputError, match=r"pump\.tflite is not a folder; choose another -o, or one that ends in"
    ):
        export(model_file, model_file, "cmake")
    with pytest.raises(OutputError, match=r"cannot create the folder .*: Not a directory; choose another -o"):
        export(model_file, model_file / "out", "cmake")


def test_a_folder_in_the_way_of_a_file_is_an_error_that_leaves_no_staging(
    model_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "README.md").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"cannot write into .*out: Is a directory; choose another -o"):
        export(model_file, tmp_path / "out", "cmake")
    assert not list((tmp_path / "out").glob(".edge-lstm-*"))


def test_formats_outputs_and_models_that_do_not_fit_are_refused(model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="--format is 'mbed', expected one of arduino, platformio, zephyr, esp-idf"
    ):
        export(model_file, tmp_path / "out", "mbed")
    result = edge_lstm("export", model_file, "--format", "mbed", "-o", tmp_path / "out")
    assert result.exit_code == 2 and all(name in result.output for name in FORMATS)
    with pytest.raises(
        ConfigError, match=r"a\.pack is a CMSIS-Pack, --format is zephyr; give a folder or a \.zip"
    ):
        export(model_file, tmp_path / "a.pack", "zephyr")
    assert not (tmp_path / "out").exists() and not (tmp_path / "a.pack").exists()


@pytest.mark.parametrize(
    ("found", "kind", "message"),
    [
        (
            network("n", QReverse("r", Q8), window=65536),
            UnsupportedModel,
            "^model 'n' has no C: .*at most 65535 fit",
        ),
        (
            Graph("pump", (Dense("d", np.ones((2, 2)), np.zeros(2)),), Stream.unnamed(2)),
            ConfigError,
            r"^m\.onnx: a float model; quantize it first: edge-lstm quantize m\.onnx --data CSV -o pump",
        ),
    ],
)
def test_models_without_c_are_refused_with_the_reason(
    found: Graph | QGraph,
    kind: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("edge_lstm.verbs.export.read_model", lambda path: found)
    with pytest.raises(kind, match=message):
        export(Path("m.onnx"), tmp_path / "out", "cmake")
    assert not (tmp_path / "out").exists()
