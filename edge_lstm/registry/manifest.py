"""The file beside exported C that says what made it, and the SHA-256 of each file of the export.

Reads and writes MANIFEST, canonical JSON: the same bytes for the same model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_lstm.errors import ModelError
from edge_lstm.registry.record import LINEAGE, Step, lineage, with_step

MANIFEST = "made.json"
FORMAT = 1
MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Manifest:
    """name: of the model.  steps: that made it.  files: path below the folder -> SHA-256 of its bytes."""

    name: str
    steps: tuple[Step, ...]
    files: Mapping[str, str]


def manifest_text(name: str, made: Mapping[str, Any], step: Step, files: Mapping[str, str]) -> str:
    """The manifest of an export.  made: of the model.  step: the export.  files: path -> text."""
    sums = {path: hashlib.sha256(text.encode("utf-8")).hexdigest() for path, text in files.items()}
    content = {"format": FORMAT, "name": name, "files": sums, LINEAGE: with_step(made, step)[LINEAGE]}
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"


def read_manifest(path: Path) -> Manifest:
    """Raises ModelError for a file that is damaged or is no manifest."""
    try:
        with Path(path).open("rb") as file:
            content = json.loads(file.read(MAX_BYTES + 1))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}, this version reads {FORMAT}")
        files = {str(name): str(sha256) for name, sha256 in content["files"].items()}
        return Manifest(str(content["name"]), lineage(content), files)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(
            f"{path}: no manifest of an export, or a damaged one ({type(error).__name__}: {error})"
        ) from error


def changed_files(path: Path, manifest: Manifest) -> list[str]:
    """Files of the export that are absent or have other bytes than the manifest at ``path`` says."""
    folder = Path(path).parent
    changed = []
    for name, sha256 in manifest.files.items():
        file = folder / name
        inside = file.resolve().is_relative_to(folder.resolve())
        if not (inside and file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256):
            changed.append(name)
    return changed
