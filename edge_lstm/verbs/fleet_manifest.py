"""The assets of a fleet: a manifest in, and a file of results that is written on and gone on from.

Reads a CSV with the columns asset and data; reads and writes JSON lines.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_lstm.errors import DataError, raise_all

COLUMNS = ("asset", "data")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
LISTED = 20  # problems of a manifest that are told


@dataclass(frozen=True)
class Asset:
    """One machine: its name, which is its folder's too, and its recording."""

    name: str
    data: Path


def read_manifest(path: Path) -> list[Asset]:
    """The assets of a manifest, in its order; paths are relative to it.

    Raises DataError for a manifest that cannot be read, with every problem of its rows; a recording that is
    missing or torn is no problem of the manifest.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            absent = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            unknown = [name for name in reader.fieldnames or () if name not in COLUMNS]
            if absent or unknown:
                found = ", ".join(reader.fieldnames or ()) or "nothing"
                raise DataError(f"{path}: its first line has {found}, expected the columns asset,data")
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: no CSV in UTF-8 ({error}); expected the columns asset,data") from error
    problems = _problems([(line, row["asset"] or "", row["data"] or "") for line, row in rows])
    if not rows:
        problems = ["it names no asset; expected a line for each below asset,data"]
    more = len(problems) - LISTED
    raise_all(DataError, str(path), problems[:LISTED] + ([f"and {more} more"] if more > 0 else []))
    return [Asset(row["asset"], path.parent / row["data"]) for _, row in rows]


def _problems(rows: Sequence[tuple[int, str, str]]) -> list[str]:
    seen: dict[str, int] = {}
    problems = []
    for line, asset, data in rows:
        if not NAME.fullmatch(asset):
            problems.append(f"line {line}: asset '{asset}' is no folder's name; use letters, digits, _ . -")
        elif asset.lower() in seen:
            problems.append(f"line {line}: asset '{asset}' stands on line {seen[asset.lower()]} already")
        seen.setdefault(asset.lower(), line)
        if not data:
            problems.append(f"line {line}: asset '{asset}' names no recording; put its path under data")
    return problems


def key_of(settings: str, data: Path) -> str:
    """What a result depends on: the fleet's settings and every byte of the recording; OSError without it."""
    return hashlib.sha256(settings.encode() + data.read_bytes()).hexdigest()[:16]


class Results:
    """The last result of each asset, by its name, in a file of JSON lines.

    Raises DataError on a file of other content.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        entries = [self._entry(line, number) for number, line in enumerate(whole.splitlines(), 1)]
        self.known.update((entry["asset"], entry) for entry in entries)
        if whole != text:  # the last line was torn while it was written
            self.path.write_text(whole, encoding="utf-8")

    def _entry(self, line: str, number: int) -> dict[str, Any]:
        try:
            entry: dict[str, Any] = json.loads(line)
            if {"asset", "key", "error"} <= set(entry):
                return entry
        except (ValueError, TypeError):
            pass
        raise DataError(f"{self.path}: line {number} is no result of a fleet; choose another folder with -o")

    def add(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Keep and write the results of some assets."""
        with self.path.open("a", encoding="utf-8") as file:
            for result in results:
                self.known[result["asset"]] = dict(result)
                file.write(json.dumps(result, allow_nan=False) + "\n")

    def has(self, asset: Asset, settings: str, folder: Path) -> bool:
        """Whether an asset is done: its result is of these settings and this recording, its files stand."""
        known = self.known.get(asset.name)
        if known is None or known["error"] is not None:
            return False
        try:
            return bool(known["key"] == key_of(settings, asset.data)) and all(
                (folder / asset.name / name).is_file() for name in ("model.keras", "model.tflite")
            )
        except OSError:
            return False
