"""Results of a suite in a file of JSON lines, so that one that was interrupted goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edge_lstm.datasets.suite import Recording
from edge_lstm.errors import DataError
from edge_lstm.evaluation.metrics_summary import Result
from edge_lstm.files import check_place

Place = tuple[str, str, str, int]  # data set, series, method, seed


class Store:
    """Figures by data set, series, method and seed.

    path: of the file, which is read first and written on; None keeps them in memory.
    key: of the settings; lines of another key are left alone.  Raises DataError on a file of other content.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        self.path, self.key = path, key
        self.known: dict[Place, dict[str, Any]] = {}
        if path is not None:
            check_place(path, "--store")
            if path.exists():
                self._read(path)

    def _read(self, path: Path) -> None:
        text = path.read_text(encoding="utf-8", errors="replace")
        whole = text[: text.rfind("\n") + 1]
        entries = [self._entry(line, number) for number, line in enumerate(whole.splitlines(), 1)]
        self.known.update(entry for entry in entries if entry is not None)
        if whole != text:  # the last line was torn while it was written
            path.write_text(whole, encoding="utf-8")

    def _entry(self, line: str, number: int) -> tuple[Place, dict[str, Any]] | None:
        """One line; None where it is of other settings."""
        try:
            entry = json.loads(line)
            place = entry["dataset"], entry["series"], entry["method"], entry["seed"]
            return (place, dict(entry["figures"])) if entry["key"] == self.key else None
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{self.path}: line {number} is no result of a suite; give --store a file that an earlier "
                "run has written, or one that does not exist yet"
            ) from None

    def add(self, recording: Recording, method: str, seed: int, figures: Mapping[str, Any]) -> None:
        """Keep and write one result."""
        self.known[recording.dataset, recording.series, method, seed] = dict(figures)
        if self.path is not None:
            entry = {
                "key": self.key, "dataset": recording.dataset, "series": recording.series,
                "method": method, "seed": seed, "figures": figures,
            }  # fmt: skip
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")

    def has(self, recording: Recording, methods: Sequence[str], seeds: Sequence[int]) -> bool:
        """Whether nothing is left to do for a recording."""
        place = recording.dataset, recording.series
        return all((*place, method, seed) in self.known for method in methods for seed in seeds)

    def results(self, recordings: Sequence[Recording]) -> dict[str, list[Result]]:
        """The results of these recordings by method, in their order."""
        order = {(r.dataset, r.series): number for number, r in enumerate(recordings)}
        found: dict[str, list[Result]] = {}
        for dataset, series, method, seed in sorted(
            (where for where in self.known if where[:2] in order), key=lambda w: (order[w[:2]], w[3])
        ):
            figures = self.known[dataset, series, method, seed]
            found.setdefault(method, []).append(Result(dataset, series, seed, figures))
        return found
