"""Hostile Keras files: circles, claims of any size and any bytes end soon, in a stated failure."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ROOT
from edge_lstm.errors import EdgeLstmError
from edge_lstm.importers.keras_file import DESCRIPTION
from edge_lstm.importers.keras_model import read_keras
from keras_models import (
    WARNING,
    Edit,
    call,
    changed,
    configured,
    functional,
    our_file,
    saved_graph,
    weighted,
)

pytestmark = pytest.mark.filterwarnings(WARNING)
SECONDS = 2.0  # for any bytes
CELL = "layers/lstm/cell/vars"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return our_file(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return saved_graph(tmp_path_factory.mktemp("graphs"))


MANY = [call(f"d{n}", f"d{n - 1}" if n else "x") for n in range(1200)]
TANH = {"activation": "tanh", "recurrent_activation": "tanh", "reset_after": False}
PLACES = call("o", "x", kind="GetItem")
PLACES["inbound_nodes"][0]["args"] += [[{"class_name": "__slice__", "config": {}}, *[None] * 150_000]]
PLACES["config"] = {"name": "o"}
SQUARE: Any = {"class_name": "Sequential", "config": {"name": "deep", "layers": []}}
for depth in range(25):
    SQUARE = {"class_name": "Sequential", "config": {"name": f"s{depth}", "layers": [SQUARE]}}
HOSTILE: dict[str, tuple[Edit, str]] = {
    "a circle": (functional([call("a", "b"), call("b", "a")], ["a", 0, 0]), "the calls of '.' form a circle"),
    "itself": (functional([call("a", "a")], ["a", 0, 0]), "the calls of 'a' form a circle"),
    "no such call": (functional([call("a", "x")], ["a", 3, 0]), "call 3 of 'a' does not exist"),
    "no such layer": (functional([call("a", "b")], ["a", 0, 0]), "KeyError: 'b'"),
    "no such output": (functional([call("a", "x")], ["a", 0, 5]), "IndexError"),
    "no output": (functional([], []), "its inputs or outputs are not among its layers"),
    "an output of numbers": (functional([], [3]), "3 is no tensor"),
    "too many": (functional(MANY, ["d1199", 0, 0]), "it has more than 2000 layers and tensors"),
    "too many tensors": (
        functional([call("a", *["x"] * 6000, kind="Add")], ["a", 0, 0]), "more than 2000 layers and tensors"
    ),
    "too many axes": (
        functional([call("a", "x", kind="Reshape", target_shape=[2] * 300_000)], ["a", 0, 0]), "its shape is "
    ),
    "too many places": (functional([PLACES], ["o", 0, 0]), "it takes a part of the batch"),
    "too wide to scale": (
        functional([call("a", "x", kind="GRU", units=1 << 13, use_bias=False, **TANH)], ["a", 0, 0]),
        "it has more than 16777216 weights",
    ),
    "too deep": (lambda _: json.dumps(SQUARE).encode(), "models in models in models, 20 deep"),
    "a constant": (
        functional([{**call("a", "x"), "inbound_nodes": [{"args": [3], "kwargs": {}}]}], ["a", 0, 0]),
        "it reads a constant, expected a tensor",
    ),
    "joined with a number": (
        functional([{**call("a", "x", kind="Concatenate"), "config": {"name": "a"},
                     "inbound_nodes": [{"args": [[3]], "kwargs": {}}]}], ["a", 0, 0]),
        "it joins tensors with numbers, expected tensors",
    ),
    "a number alone": (
        functional([{**call("a", "x", kind="Tanh"), "config": {"name": "a"},
                     "inbound_nodes": [{"args": [3], "kwargs": {}}]}], ["a", 0, 0]),
        "it reads a number, expected a tensor",
    ),
    "an option of an operation": (
        functional([{**call("a", "x", kind="Tanh"), "config": {"name": "a", "mode": 3}}], ["a", 0, 0]),
        "operation 'a' .Tanh.: it has mode=3, which is not implemented",
    ),
    "huge repeats": (
        functional([call("a", "x", kind="Dense", units=1, activation="softmax"),
                    call("f", "a", kind="Flatten"), call("r", "f", kind="RepeatVector", n=2**40)],
                   ["r", 0, 0]),
        "it has more than 16777216 weights",
    ),
    "huge layers": (
        functional([call("a", "x", kind="Dense", units=1 << 40, activation="relu")], ["a", 0, 0]),
        "it has more than 16777216 weights",
    ),
    "huge windows": (
        functional([call("f", "x", kind="Flatten"), call("a", "f", kind="Dense", units=2**30)], ["a", 0, 0]),
        "it has more than 16777216 weights",
    ),
    "huge values": (
        functional([call(f"c{n}", *[f"c{n - 1}" if n else "x"] * 9, kind="Concatenate", axis=-1)
                    for n in range(9)], ["c8", 0, 0]),
        "it writes .* features, expected at most 16384",
    ),
    "huge bands": (
        functional([call("s", "x", kind="Reshape", target_shape=[5, 2, 1]),
                    call("a", "s", kind="ConvLSTM1D", filters=1 << 20, kernel_size=[1], strides=[1],
                         padding="same", dilation_rate=[1], activation="tanh",
                         recurrent_activation="sigmoid")], ["a", 0, 0]),
        "it has more than 16777216 weights",
    ),
}  # fmt: skip


def measured(path: Path) -> str:
    """Read a file within the promised time and memory; the message of the failure, '' where it is read."""
    start = time.perf_counter()
    try:
        read_keras(path)
        message = ""
    except EdgeLstmError as error:
        message = str(error)
    assert time.perf_counter() - start < SECONDS
    return message


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_description_is_refused_soon(good: bytes, tmp_path: Path, case: str) -> None:
    change, message = HOSTILE[case]
    path = changed(good, tmp_path / "m.keras", {"config.json": change, DESCRIPTION: None})
    assert re.search(message, measured(path))


def test_no_hostile_description_takes_a_gigabyte(good: bytes, tmp_path: Path) -> None:
    for number, (change, _) in enumerate(HOSTILE.values()):
        changed(good, tmp_path / f"{number}.keras", {"config.json": change, DESCRIPTION: None})
    program = (
        "import pathlib, resource, sys\n"
        "from edge_lstm.errors import ModelError\n"
        "from edge_lstm.importers.keras_model import read_keras\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    try:\n"
        "        read_keras(path)\n"
        "    except ModelError:\n"
        "        print(path.name)\n"
    )
    one = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each thread of the library takes address space
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env=one,
    )
    assert len(result.stdout.split()) == len(HOSTILE), result.stderr


def test_models_that_use_one_another_many_times_are_refused_soon(good: bytes, tmp_path: Path) -> None:
    """Twenty models that each use the next one twice: a million calls in a small file."""
    inner: dict[str, Any] = call("leaf", "x")
    start = {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 5, 2]}, "name": "x",
             "inbound_nodes": []}  # fmt: skip
    for depth in range(18):
        first, name = inner["inbound_nodes"][0], inner["name"]
        tensor = {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}
        inner["inbound_nodes"] = [first, {"args": [tensor], "kwargs": {}}]
        shift = int(inner["class_name"] == "Functional")
        config = {"name": f"m{depth}", "layers": [start, inner], "input_layers": ["x", 0, 0],
                  "output_layers": [name, 1 + shift, 0]}  # fmt: skip
        inner = {"class_name": "Functional", "config": config, "name": f"m{depth}", "inbound_nodes": [first]}
    path = changed(good, tmp_path / "m.keras", {"config.json": lambda _: json.dumps(inner).encode()})
    assert "it has more than 1000 calls" in measured(path)


def test_members_and_arrays_of_any_claimed_size_are_not_read(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(5 << 20))
    assert "its config.json is larger than 1 MiB, expected a small network" in measured(path)

    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("config.json", bytes(1 << 19))
    assert "a damaged or truncated zip file" in measured(path)

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("config.json", bytes(100 << 20))
    content = path.read_bytes().replace((100 << 20).to_bytes(4, "little"), (1 << 20).to_bytes(4, "little"))
    path.write_bytes(content)  # 100 MB that claim to be one
    assert "a damaged or truncated zip file" in measured(path)

    def bomb(file: Any) -> None:
        del file[f"{CELL}/0"]
        file.create_dataset(f"{CELL}/0", (1 << 30, 12), "f4", chunks=(1024, 12))

    changed(good, path, weighted(bomb))
    assert "kernel is (1073741824, 12), expected (2, 12)" in measured(path)


def mutations(content: bytes, rng: np.random.Generator) -> bytes:
    """The content cut, with some bytes drawn, or with a number of the file at its largest."""
    changed_bytes = bytearray(content)
    if rng.random() < 0.2:
        return bytes(changed_bytes[: int(rng.integers(0, len(content)))])
    for at in rng.integers(0, len(content), int(rng.choice([1, 4, 30]))):
        if rng.random() < 0.3:
            changed_bytes[at : at + 8] = bytes([int(rng.choice([0, 127, 255]))]) * len(
                changed_bytes[at : at + 8]
            )
        else:
            changed_bytes[at] = int(rng.integers(0, 256))
    return bytes(changed_bytes)


def test_every_truncation_and_every_flipped_byte_ends_in_a_stated_failure_or_a_network(
    good: bytes, graphs: list[bytes], tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    path = tmp_path / "m.keras"
    member = {"model.weights.h5": lambda content: mutations(content, rng),
              "config.json": lambda content: mutations(content, rng)}  # fmt: skip
    read = 0
    for number in range(300):
        content = [good, *graphs][number % 3]
        if number % 2 and content.startswith(b"PK"):
            name = ("model.weights.h5", "config.json")[number // 2 % 2]
            changed(content, path, {name: member[name]})
        else:
            path.write_bytes(mutations(content, rng))
        read += not measured(path)
    assert 0 < read < 300


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a parsed JSON text."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(deeper for key in keys for deeper in paths(value[key], (*path, key)))]


def test_every_value_of_a_description_may_be_anything(graphs: list[bytes], tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    values = [None, True, 0, -1, 3, 1 << 40, 0.5, "relu", "x", [], {}, [1, 2], [None], {"class_name": "x"}]
    with zipfile.ZipFile(io.BytesIO(graphs[0])) as archive:
        ways = paths(json.loads(archive.read("config.json")))[1:]

    def edit(config: dict[str, Any]) -> None:
        *way, last = ways[int(rng.integers(len(ways)))]
        place: Any = config
        for key in way:
            place = place[key]
        place[last] = values[int(rng.integers(len(values)))]

    for _ in range(150):
        measured(changed(graphs[0], tmp_path / "m.keras", configured(edit)))
