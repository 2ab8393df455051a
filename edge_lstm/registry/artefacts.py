"""The artefacts below a folder, read from the files themselves: there is no other store.

Reads model files and manifests; writes Artefacts, and the reason for each file that is none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_lstm.errors import EdgeLstmError, ModelError
from edge_lstm.graph import Graph
from edge_lstm.importers.any_model import read_model
from edge_lstm.qgraph import QGraph
from edge_lstm.registry.manifest import MANIFEST, changed_files, read_manifest
from edge_lstm.registry.record import Step, content_sha256, lineage

SUFFIXES = (".keras", ".h5", ".hdf5", ".tflite", ".onnx", ".safetensors")


@dataclass(frozen=True, eq=False)
class Artefact:
    """path: of the file.  sha256: of ``content_sha256``.  steps: that made it, the last one its own verb.

    network: None of a manifest.  files: of a manifest, path -> SHA-256.  notes: what is wrong with it.
    """

    path: Path
    sha256: str
    steps: tuple[Step, ...]
    network: Graph | QGraph | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def step(self) -> Step | None:
        """The last step; None for a file without a record."""
        return self.steps[-1] if self.steps else None

    @property
    def parent(self) -> str:
        """The SHA-256 of the file it was made from, "" where there is none."""
        return self.step.parent.sha256 if self.step and self.step.parent else ""


@dataclass(frozen=True, eq=False)
class Catalogue:
    """artefacts: by path.  refused: path -> the reason why it is not read."""

    folder: Path
    artefacts: tuple[Artefact, ...]
    refused: Mapping[Path, str]

    def tree(self) -> list[tuple[int, Artefact]]:
        """Each artefact with its depth below the first one it was made from; parents come first.

        Of files with one content the first by path is the parent of what was made from them.
        """
        first: dict[str, Artefact] = {}
        for artefact in self.artefacts:
            first.setdefault(artefact.sha256, artefact)
        children: dict[Artefact | None, list[Artefact]] = {}
        for artefact in self.artefacts:
            children.setdefault(first.get(artefact.parent), []).append(artefact)
        rows: list[tuple[int, Artefact]] = []
        waiting = [(0, artefact) for artefact in reversed(children.get(None, []))]
        while waiting:
            depth, artefact = waiting.pop()
            rows.append((depth, artefact))
            waiting += [(depth + 1, child) for child in reversed(children.get(artefact, []))]
        return rows

    def by_sha256(self, sha256: str) -> Artefact | None:
        """The first artefact of that content."""
        return next((artefact for artefact in self.artefacts if artefact.sha256 == sha256), None)


def read_artefact(path: Path) -> Artefact:
    """A model file or a manifest; raises ModelError for one that cannot be read or has a damaged record."""
    path = Path(path)
    if path.name == MANIFEST:
        manifest = read_manifest(path)
        changed = changed_files(path, manifest)
        notes = (f"changed or missing since: {', '.join(changed)}",) if changed else ()
        return Artefact(path, content_sha256(path), manifest.steps, None, manifest.files, notes)
    network = read_model(path)
    try:
        steps = lineage(network.made)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    notes = () if steps else ("no record of how it was made",)
    return Artefact(path, content_sha256(path), steps, network, notes=notes)


def read_folder(folder: Path) -> Catalogue:
    """Read every model and manifest below ``folder``; what cannot be read is told, never fatal.

    Raises ModelError where ``folder`` is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"{folder}: not a folder; give the one that the models lie in, or below it")
    artefacts, refused = [], {}
    for path in _candidates(folder):
        found = _read(path)
        if isinstance(found, Artefact):
            artefacts.append(found)
        else:
            refused[path] = found
    return Catalogue(folder, tuple(artefacts), refused)


def _read(path: Path) -> Artefact | str:
    """An artefact, or the reason why it is not read."""
    try:
        return read_artefact(path)
    except (EdgeLstmError, OSError) as error:
        return str(error).removeprefix(f"{path}: ")


def _candidates(folder: Path) -> Iterator[Path]:
    """Ordinary files by their names, in order; hidden folders and links to folders are left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if (path.suffix.lower() in SUFFIXES or name == MANIFEST) and path.is_file():
                yield path


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Tables in tables as one, names joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found
