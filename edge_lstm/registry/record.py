"""The record that an artefact carries: the steps that made it, the first one first.

Writes plain JSON values under LINEAGE of a network's ``made``; reads them back, checked.  A record has file
names without folders and no time of day: the same input gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import platform
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from edge_lstm import __version__
from edge_lstm.errors import DataError, ModelError

LINEAGE = "lineage"
DATED = "metadata.json"  # the member of a .keras file in which Keras writes the date
CONFIG = "config.json"  # the one in which it writes addresses of this run's memory, under ADDRESS
ADDRESS = "shared_object_id"
BLOCK = 1 << 20
SHA256_LETTERS = 64


@dataclass(frozen=True)
class FileRecord:
    """file: its name without folder.  sha256: of its content, in hexadecimal.  rows: of a recording."""

    file: str
    sha256: str
    rows: int | None = None

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Step:
    """One verb that was run.

    options: tables of options by name, plain JSON values.  versions: of the packages that computed.
    data: the recording.  parent: the file it was made from, None where there is none; its sha256 is that of
    ``content_sha256``.  seed: None where nothing is drawn.  figures: of the validation rows, or of
    quantization.
    """

    verb: str
    options: Mapping[str, Any]
    versions: Mapping[str, str]
    data: FileRecord | None = None
    parent: FileRecord | None = None
    seed: int | None = None
    figures: Mapping[str, float | None] = field(default_factory=dict)

    def to_mapping(self) -> dict[str, Any]:
        """Plain JSON values, without what is not known."""
        found: dict[str, Any] = {"verb": self.verb, "options": self.options, "versions": dict(self.versions)}
        for name in ("data", "parent"):
            record = getattr(self, name)
            if record is not None:
                found[name] = record.to_mapping()
        if self.seed is not None:
            found["seed"] = self.seed
        return {**found, "figures": dict(self.figures)}

    @classmethod
    def from_mapping(cls, values: Any) -> Step:
        """Raises LookupError, TypeError or ValueError for what ``to_mapping`` did not write."""
        figures = {_text(k): v if v is None else float(v) for k, v in values["figures"].items()}
        return cls(
            _text(values["verb"]),
            {_text(key): value for key, value in values["options"].items()},
            {_text(key): _text(value) for key, value in values["versions"].items()},
            _file(values["data"]) if "data" in values else None,
            _file(values["parent"]) if "parent" in values else None,
            int(values["seed"]) if "seed" in values else None,
            figures,
        )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _file(values: Any) -> FileRecord:
    """A name with a folder in it is refused: files are made again under that name."""
    name, sha256 = _text(values["file"]), _text(values["sha256"])
    if name in ("", ".", "..") or any(letter in name for letter in "/\\\0"):
        raise ValueError(f"{name!r} is not the name of a file")
    if len(sha256) != SHA256_LETTERS or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError(f"{sha256[:80]!r} is not a SHA-256")
    return FileRecord(name, sha256, int(values["rows"]) if "rows" in values else None)


def lineage(made: Mapping[str, Any]) -> tuple[Step, ...]:
    """The steps that made a network; () where its file has no record; ModelError for a damaged one."""
    try:
        return tuple(Step.from_mapping(values) for values in made.get(LINEAGE, ()))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelError(
            f"its record of how it was made is damaged ({type(error).__name__}: {error}); make the file again"
        ) from error


def with_step(made: Mapping[str, Any], step: Step) -> dict[str, Any]:
    """``made`` of a network after one more step."""
    return {**made, LINEAGE: [*made.get(LINEAGE, ()), step.to_mapping()]}


def versions() -> dict[str, str]:
    """Of what computes without TensorFlow."""
    return {
        "edge_lstm": __version__,
        "python": platform.python_version(),
        "numpy": str(np.__version__),
    }


def validation_figures(figures: Mapping[str, Any]) -> dict[str, float | None]:
    """R2 and MSE of the forecast of the validation rows, and the loss of their windows, where known."""
    validation, windows = figures.get("validation", {}), figures.get("windows", {})
    found = {"r2": validation.get("r2_mean"), "mse": validation.get("mse"), "loss": windows.get("validation")}
    return {name: value for name, value in found.items() if value is not None}


def data_record(path: Path, rows: int) -> FileRecord:
    """The record of a recording that was read.  rows: as the verb took them."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            return FileRecord(path.name, _sha256(_blocks(file)), rows)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def parent_record(path: Path) -> FileRecord:
    """The record of a model that is the input of a step."""
    return FileRecord(Path(path).name, content_sha256(path))


def content_sha256(path: Path) -> str:
    """The SHA-256 of what a model file says: of a .keras file the members and their names, without the date
    and the addresses that Keras writes; of any other file its bytes.

    Raises ModelError for a file that cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if file.read(2) != b"PK":
                file.seek(0)
                return _sha256(_blocks(file))
        with zipfile.ZipFile(path) as archive:
            names = sorted(set(archive.namelist()) - {DATED})
            return _sha256(_members(archive, names))
    # zipfile raises NotImplementedError for a compression, RuntimeError for a password that it does not know
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"{path}: cannot be read ({reason})") from error


def _members(archive: zipfile.ZipFile, names: list[str]) -> Iterator[bytes]:
    for name in names:
        yield f"\0{name}\0".encode()
        with archive.open(name) as member:
            if name == CONFIG:
                yield json.dumps(_without_addresses(json.load(member)), sort_keys=True).encode()
            else:
                yield from _blocks(member)


def _without_addresses(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_addresses(part) for key, part in value.items() if key != ADDRESS}
    return [_without_addresses(part) for part in value] if isinstance(value, list) else value


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(BLOCK):
        yield block


def _sha256(blocks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()
