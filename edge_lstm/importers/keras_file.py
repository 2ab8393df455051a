"""The parts of a Keras file: version, description of the network, weights, and this toolkit's own member.

Reads ``.keras`` archives and whole-model HDF5 files, seen from their content; no code of a file runs.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_lstm.errors import ModelError, UnsupportedModel
from edge_lstm.importers.keras_hdf5 import SIGNATURE, Hdf5, Hdf5Error, Node, texts_of

CONFIG, WEIGHTS, METADATA = "config.json", "model.weights.h5", "metadata.json"
DESCRIPTION = "edge_lstm.json"  # written by training/model.py
MAX_BYTES = 1 << 26  # of a file and of its weights
MAX_TEXT = 1 << 20  # of a description: a layer takes about 2 kB
MAX_MEMBERS = 1000
PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Python unpacks others whole, whatever they declare
EXPECTED = "expected a .keras or .h5 file of Keras 2 or 3"

# what Python's readers of zip and JSON, and ours of what they give, raise on damaged content
DAMAGE = (
    zipfile.BadZipFile, zlib.error, EOFError, LookupError, ValueError, TypeError, AttributeError,
    ArithmeticError, RuntimeError, OSError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class KerasFile:
    """What a file holds.

    version: of Keras, such as 2.15.0.  legacy: it is a Keras 2.  config: the model's description.
    weights: the HDF5 group with the weights.  whole: the weights lie in the way of an .h5 file, a list of
    arrays for each layer; else in that of a .keras file.  description: the text of this toolkit's member.
    """

    path: Path
    version: str
    config: Mapping[str, Any]
    weights: Node
    whole: bool
    description: bytes | None = None

    @property
    def legacy(self) -> bool:
        return self.version.startswith("2.")


def open_keras(path: Path) -> KerasFile:
    """The parts of the file.

    Raises ModelError for a file that is damaged or is no model of Keras, UnsupportedModel for Keras 1.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ModelError(f"{path}: no such file") from error
    except OSError as error:
        raise ModelError(f"{path}: it cannot be read ({error.strerror}), {EXPECTED}") from error
    if len(content) > MAX_BYTES:
        raise ModelError(f"{path}: it is larger than {MAX_BYTES >> 20} MiB, expected a small network")
    if content.startswith(SIGNATURE):
        return _open_hdf5(path, content)
    if content.startswith(b"PK"):
        return _open_archive(path, content)
    kind = "a .tflite file" if content[4:8] == b"TFL3" else "neither a zip file nor an HDF5 file"
    raise ModelError(f"{path}: {kind}, {EXPECTED}")


def _open_archive(path: Path, content: bytes) -> KerasFile:
    members = _members(path, content)
    missing = [name for name in (CONFIG, METADATA, WEIGHTS) if name not in members]
    if missing:
        raise ModelError(f"{path}: a zip file without {' and '.join(missing)}, {EXPECTED}")
    version = _parsed(path, METADATA, members[METADATA]).get("keras_version")
    config = _parsed(path, CONFIG, members[CONFIG])
    try:
        weights = Hdf5(members[WEIGHTS]).root
    except Hdf5Error as error:
        raise ModelError(f"{path}: its {WEIGHTS} is damaged: {error}; save the model again") from error
    return KerasFile(path, _version(path, version), config, weights, False, members.get(DESCRIPTION))


def _members(path: Path, content: bytes) -> dict[str, bytes]:
    """The members that this toolkit reads."""
    limits = {CONFIG: MAX_TEXT, METADATA: MAX_TEXT, WEIGHTS: MAX_BYTES, DESCRIPTION: MAX_TEXT}
    if content.count(b"PK\x01\x02") > MAX_MEMBERS:  # zipfile would read them all
        raise ModelError(f"{path}: a zip file of more than {MAX_MEMBERS} members, {EXPECTED}")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            found = {info.filename: info for info in archive.infolist() if info.filename in limits}
            large = [name for name, info in found.items() if info.file_size > limits[name]]
            if any(info.compress_type not in PLAIN for info in found.values()):
                raise zipfile.BadZipFile("packed in a way that Keras does not use")
            members = {} if large else {name: _read(archive, info) for name, info in found.items()}
    except DAMAGE as error:
        raise ModelError(f"{path}: a damaged or truncated zip file, {EXPECTED}") from error
    if large:
        raise ModelError(
            f"{path}: its {large[0]} is larger than {limits[large[0]] >> 20} MiB, expected a small network"
        )
    return members


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """A member, of which no more is unpacked than it declares."""
    with archive.open(info) as member:
        return member.read(info.file_size + 1)


def _open_hdf5(path: Path, content: bytes) -> KerasFile:
    try:
        root = Hdf5(content).root
        texts = {name: "".join(texts_of(root, name)) for name in ("model_config", "keras_version")}
        weights = root.members.get("model_weights")
    except Hdf5Error as error:
        raise ModelError(f"{path}: a damaged HDF5 file: {error}; save the model again") from error
    if not texts["model_config"] or weights is None:
        raise ModelError(
            f"{path}: an HDF5 file without the model's description, {EXPECTED}; "
            "save the whole model (model.save), not its weights alone"
        )
    config = _parsed(path, "model_config", texts["model_config"].encode())
    return KerasFile(path, _version(path, texts["keras_version"]), config, weights, True)


def _parsed(path: Path, name: str, content: bytes) -> dict[str, Any]:
    if len(content) > MAX_TEXT:
        raise ModelError(f"{path}: its {name} is larger than {MAX_TEXT >> 20} MiB, expected a small network")
    try:
        value = json.loads(content)
    except DAMAGE as error:
        raise ModelError(f"{path}: its {name} is no JSON; save the model again") from error
    if not isinstance(value, dict):
        raise ModelError(
            f"{path}: its {name} is a {type(value).__name__}, expected an object; save the model again"
        )
    return value


def _version(path: Path, version: object) -> str:
    """The version of Keras; what hard_sigmoid means depends on it."""
    if not isinstance(version, str) or not re.fullmatch(r"[0-9]{1,4}\.[-+.0-9A-Za-z]{1,60}", version):
        raise ModelError(f"{path}: it names no version of Keras; save the model again")
    if version.startswith(("2.", "3.")):
        return version
    raise UnsupportedModel(
        f"model '{path.name}': saved by Keras {version}, expected Keras 2 or 3; save it with one of these"
    )
