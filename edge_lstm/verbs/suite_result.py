"""What a suite found: figures by method, which method leads, and where a simple one is ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_lstm.evaluation.metrics import MARGIN
from edge_lstm.evaluation.metrics_summary import Result, Summary
from edge_lstm.files import check_place, write_text
from edge_lstm.optional import require
from edge_lstm.verbs.suite_networks import NETWORKS

INT8_LSTM = "LSTM int8"
JUDGED = {"vus_pr": "VUS-PR", "event_f1": "event F1"}

Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class SuiteEvaluation:
    """summaries: by method, see ``metrics_summary``.  results: the figures that they come from, by method.

    folder: of the recordings.  seconds: that this call took; results that were stored take none.
    """

    folder: str
    seeds: tuple[int, ...]
    summaries: dict[str, Summary]
    results: dict[str, list[Result]]
    notes: tuple[str, ...]
    seconds: float

    @property
    def datasets(self) -> list[str]:
        """All data sets, in the order of the index."""
        found = (result.dataset for results in self.results.values() for result in results)
        return list(dict.fromkeys(found))

    @property
    def series(self) -> int:
        """How many recordings were judged."""
        return len({(r.dataset, r.series) for results in self.results.values() for r in results})

    @property
    def verdict(self) -> str:
        """Whether the int8 LSTM leads every simple method in the means, and which one is best."""
        if INT8_LSTM not in self.summaries:
            return f"Cannot tell: {INT8_LSTM} was not judged on any recording."
        sentences = []
        for figure, title in JUDGED.items():
            own, (best, value) = self.summaries[INT8_LSTM].mean[figure], self._best(lambda s: s.mean, figure)
            place = "above" if (own or 0.0) > value else "not above"
            sentences.append(f"{title} {own or 0.0:.3f} is {place} {best}'s {value:.3f}")
        return f"{INT8_LSTM}: {'; '.join(sentences)}."

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """A sentence for each data set where a simple method is ahead of the int8 LSTM by over ``MARGIN``."""
        if INT8_LSTM not in self.summaries:
            return ()
        return tuple(
            f"{dataset}: {' and '.join(ahead)}."
            for dataset in self.datasets
            if (ahead := [text for figure in JUDGED if (text := self._ahead(dataset, figure))])
        )

    def _ahead(self, dataset: str, figure: str) -> str:
        """How the best simple method leads on a data set, "" where it does not."""
        own = self.summaries[INT8_LSTM].datasets.get(dataset, {}).get(figure)
        best, value = self._best(lambda s: s.datasets.get(dataset, {}), figure)
        if own is None or value - own <= MARGIN:
            return ""
        return f"{best} is ahead in {JUDGED[figure]}, {value:.3f} against {own:.3f}"

    def _best(self, figures: Callable[[Summary], Figures], figure: str) -> tuple[str, float]:
        """The simple method with the highest figure, and that figure."""
        simple = {
            name: figures(summary).get(figure) or 0.0
            for name, summary in self.summaries.items()
            if name not in NETWORKS
        }
        best = max(simple, key=simple.__getitem__, default="no simple method")
        return best, simple.get(best, 0.0)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "folder": self.folder,
            "seeds": list(self.seeds),
            "methods": {name: asdict(summary) for name, summary in self.summaries.items()},
            "series": {name: [asdict(result) for result in found] for name, found in self.results.items()},
            "verdict": self.verdict,
            "shortfalls": list(self.shortfalls),
            "notes": list(self.notes),
            "seconds": round(self.seconds, 1),
        }


def check_page(path: Path) -> None:
    """Raises OutputError or MissingTool where ``write_page`` would: ask before long work."""
    check_place(path)
    require("matplotlib", "data")


def write_page(result: SuiteEvaluation, path: Path) -> None:
    """Write the HTML page of a suite; see ``check_page``."""
    from edge_lstm.reporting.suite_page import SuitePage, render_suite

    page = SuitePage(
        name=Path(result.folder).resolve().name,
        summaries=result.summaries,
        networks=tuple(name for name in result.summaries if name in NETWORKS),
        datasets={
            dataset: len(
                {r.series for found in result.results.values() for r in found if r.dataset == dataset}
            )
            for dataset in result.datasets
        },
        seeds=len(result.seeds),
        verdict=result.verdict,
        shortfalls=result.shortfalls,
        notes=result.notes,
    )
    write_text(path, render_suite(page))
