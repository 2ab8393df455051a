"""Every manifest of a package against the published rules of its ecosystem."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from conftest import missing
from edge_lstm import __version__
from test_export import MODELS, expected, package

# https://docs.arduino.cc/arduino-cli/library-specification
ARDUINO_KEYS = {
    "name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures",
}  # fmt: skip
ARDUINO_MORE = {"depends", "dot_a_linkage", "includes", "precompiled", "ldflags"}
ARDUINO_CATEGORIES = {
    "Display", "Communication", "Signal Input/Output", "Sensors", "Device Control", "Timing", "Data Storage",
    "Data Processing", "Other",
}  # fmt: skip
SEMVER = r"\d+\.\d+\.\d+"


@pytest.mark.parametrize("model", MODELS)
def test_library_properties_follow_the_arduino_specification(model: str, tmp_path: Path) -> None:
    root = package(tmp_path, "arduino", model)
    text = (root / "library.properties").read_text()
    fields = dict(line.split("=", 1) for line in text.splitlines())
    assert set(fields) >= ARDUINO_KEYS and set(fields) <= ARDUINO_KEYS | ARDUINO_MORE
    assert fields["category"] in ARDUINO_CATEGORIES and all(fields.values())
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9 _.-]{0,62}", fields["name"])
    assert re.fullmatch(SEMVER, fields["version"]) and fields["version"] == __version__
    assert (root / "src" / fields["includes"]).is_file()
    assert [path.parent.name == path.stem for path in root.glob("examples/*/*.ino")] == [True]


def test_library_json_follows_the_platformio_schema(tmp_path: Path) -> None:
    root = package(tmp_path, "platformio")
    manifest = json.loads((root / "library.json").read_text())
    assert set(manifest) == {
        "name", "version", "description", "keywords", "frameworks", "platforms", "headers", "examples",
    }  # fmt: skip
    assert not set(manifest["name"]) & set(":;/,@<>") and re.fullmatch(SEMVER, manifest["version"])
    assert all(re.fullmatch(r"[a-z\d\-_+. ]{1,50}", keyword) for keyword in manifest["keywords"])
    (example,) = manifest["examples"]
    assert re.fullmatch(r"[a-zA-Z\d\-_/. ]+", example["name"])
    assert all((root / example["base"] / file).is_file() for file in example["files"])
    assert all((root / "src" / header).is_file() for header in manifest["headers"])


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ModuleNotFoundError:
        missing("PyYAML")
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


def test_the_zephyr_manifests_hold_only_known_keys_and_point_to_files(tmp_path: Path) -> None:
    root = package(tmp_path, "zephyr")
    module = read_yaml(root / "zephyr/module.yml")
    assert module == {"name": "pump", "build": {"cmake": ".", "kconfig": "Kconfig"}, "samples": ["samples"]}
    assert (root / "CMakeLists.txt").is_file() and (root / "samples").is_dir()
    options = re.findall(r"^config (\w+)\n\tbool \"", (root / "Kconfig").read_text(), re.MULTILINE)
    assert options == ["EDGE_LSTM_PUMP"]
    sample = read_yaml(root / "samples/read_rows/sample.yaml")
    assert set(sample) == {"sample", "tests"}
    ((name, test),) = sample["tests"].items()
    assert re.fullmatch(r"[\w.]+\.[\w]+", name) and test["harness_config"]["type"] == "one_line"
    (pattern,) = test["harness_config"]["regex"]
    assert re.search(pattern, expected(MODELS["pump"])[0])


@pytest.mark.parametrize("model", MODELS)
def test_the_idf_manifest_holds_only_known_keys_and_the_example_finds_its_component(
    model: str, tmp_path: Path
) -> None:
    root = package(tmp_path, "esp-idf", model)
    component = read_yaml(root / "idf_component.yml")
    assert set(component) == {"version", "description", "url", "dependencies"}
    assert component["version"] == __version__ and component["dependencies"] == {"idf": ">=5.0"}
    project = (root / "examples/read_rows/CMakeLists.txt").read_text()
    assert "EXTRA_COMPONENT_DIRS ${CMAKE_CURRENT_LIST_DIR}/../..)\ninclude($ENV{IDF_PATH}" in project


@pytest.mark.parametrize("model", MODELS)
def test_the_pdsc_follows_the_pack_schema(model: str, tmp_path: Path) -> None:
    root = package(tmp_path, "cmsis-pack", model)
    pack = ET.parse(root / f"edge-lstm.{model}.pdsc").getroot()
    elements = [element.tag for element in pack]
    assert elements == ["vendor", "name", "description", "url", "releases", "keywords", "components"]
    for tag in ("vendor", "name"):
        assert re.fullmatch(r"[\-_A-Za-z0-9/.]+", pack.findtext(tag, ""))
    assert f"{pack.findtext('vendor')}.{pack.findtext('name')}.pdsc" == f"edge-lstm.{model}.pdsc"
    assert [release.attrib["version"] for release in pack.iter("release")] == [__version__]
    (component,) = pack.iter("component")
    assert set(component.attrib) == {"Cclass", "Cgroup", "Csub", "Cversion"}
    assert [child.tag for child in component] == ["description", "files"]
    categories = {"doc", "header", "include", "source"}
    for file in component.iter("file"):
        assert file.attrib["category"] in categories and (root / file.attrib["name"]).exists()
