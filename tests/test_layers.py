"""The house: each room imports only from rooms above it, and heavy packages stay in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

# top to bottom: a room imports from rooms before it, or from its own
ORDER = [
    {"errors", "arrays"},
    {"optional", "files", "naming"},
    {"layer_types", "predictor"},
    {"graph"},
    {"fixedpoint"},
    {"softmax"},
    {"datasets", "detection"},
    {"extraction"},
    {"operators"},
    {"lstm_operators", "placing_operators", "scaling"},
    {"qgraph"},
    {"program"},
    {"lower_lstm"},
    {"lower"},
    {"reference"},
    {"scales"},
    {"tape", "recipes_lstm", "recipes_native"},
    {"recipes_recurrent"},
    {"recipes"},
    {"quantizer"},
    {"emit"},
    {"importers"},
    {"training"},
    {"executors"},
    {"evaluation"},
    {"analysis"},
    {"reporting"},
    {"firmware_tools"},
    {"gateway", "tuning", "registry"},
    {"verbs"},
    {"cli"},
]
ONLY_IN = {
    "keras": {"training/model.py"},
    "tensorflow": {"training/model.py"},
    "serial": {"firmware_tools/uart.py"},
    "onnx": {"emit/onnx", "importers/onnx"},
    "h5py": {"importers/keras"},
    "torch": set(),
    "onnxruntime": set(),
    "flatbuffers": {"emit/tflite_", "importers/flatbuffer.py"},
    "tflite": {
        "emit/tflite_",
        "importers/flatbuffer.py",
        "importers/tflite_own.py",
        "importers/tflite_equal.py",
    },
    "click": {"cli/"},
    "mlflow": {"registry/mlflow_export.py"},
    "paho": {"gateway/broker.py"},
    "ray": {"verbs/fleet_pool.py"},
    "fastapi": {"gateway/web.py"},
    "uvicorn": {"gateway/server.py"},
    "prometheus_client": {"gateway/metrics.py"},
}
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
FILES = sorted([*ROOT.glob("edge_lstm/**/*.py"), *ROOT.glob("firmware_tools/**/*.py")])


def room_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "firmware_tools":
        return "firmware_tools"
    return parts[1] if parts[0] == "edge_lstm" and len(parts) > 1 else None


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
            first = node.args[0]
            if isinstance(first, ast.Constant):
                found.append(str(first.value))
    return found


def test_every_room_imports_only_from_rooms_above_it() -> None:
    wrong = []
    for path in FILES:
        relative = path.relative_to(ROOT)
        own = room_of(".".join(relative.with_suffix("").parts))
        if own is None or own == "__init__":
            continue
        assert own in RANK, f"{relative}: room '{own}' is not in the plan"
        for module in imports(path):
            other = room_of(module)
            if other in RANK and other != own and RANK[other] >= RANK[own] and ".__version__" not in module:
                wrong.append(f"{relative} imports {module}")
    assert wrong == []


def test_heavy_packages_stay_in_their_rooms() -> None:
    wrong = []
    for path in FILES:
        relative = str(path.relative_to(ROOT)).removeprefix("edge_lstm/")
        for module in imports(path):
            allowed = ONLY_IN.get(module.split(".")[0])
            if allowed is not None and not any(relative.startswith(place) for place in allowed):
                wrong.append(f"{relative} imports {module}")
    assert wrong == []


HEAVY = ("tensorflow", "keras", "pandas", "sklearn", "scipy", "matplotlib", "statsmodels", "unicorn", "onnx",
         "ai_edge_litert", "serial", "rich")  # fmt: skip


@pytest.mark.parametrize("code", ["import edge_lstm", "from edge_lstm.cli import main; main(['--help'])"])
def test_the_package_and_its_help_load_none_of_the_extras(code: str) -> None:
    program = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr))\n"
        f"{code}\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() == "[]"


def test_files_and_functions_stay_small() -> None:
    long = []
    for path in FILES:
        text = path.read_text()
        if text.count("\n") > 400:
            long.append(f"{path.name}: {text.count(chr(10))} lines")
        long += [
            f"{path.name}: {node.name}"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 45
        ]
    assert long == []
