"""Means over a suite: every data set counts the same, however many series it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Figures = Mapping[str, float | None]


@dataclass(frozen=True)
class Result:
    """Figures of one method on one series of a data set with one seed, None where undefined."""

    dataset: str
    series: str
    seed: int
    figures: Figures


@dataclass(frozen=True)
class Summary:
    """Means of each figure, None where it is undefined everywhere.

    datasets: over seeds and series, by data set.  mean: over data sets.
    spread: sample standard deviation over seeds of the mean over data sets, None below two seeds.
    dataset_spread: the same of each data set's mean over its series.
    """

    datasets: dict[str, dict[str, float | None]]
    mean: dict[str, float | None]
    spread: dict[str, float | None]
    dataset_spread: dict[str, dict[str, float | None]]


def summarize(results: Sequence[Result]) -> Summary:
    """Average first over the seeds and series of a data set, then over data sets.

    An undefined figure is left out, so a data set without it does not count in that figure's mean.
    """
    names = list(dict.fromkeys(name for result in results for name in result.figures))
    datasets = _by_dataset(results, names)
    seeds = sorted({result.seed for result in results})
    by_seed = [_by_dataset([result for result in results if result.seed == seed], names) for seed in seeds]
    means = [_over_datasets(found, names) for found in by_seed]
    dataset_spread = {
        dataset: {name: _spread([found.get(dataset, {}).get(name) for found in by_seed]) for name in names}
        for dataset in datasets
    }
    spread = {name: _spread([mean[name] for mean in means]) for name in names}
    return Summary(datasets, _over_datasets(datasets, names), spread, dataset_spread)


def _by_dataset(results: Sequence[Result], names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    return {
        dataset: {
            name: _mean([result.figures.get(name) for result in results if result.dataset == dataset])
            for name in names
        }
        for dataset in dict.fromkeys(result.dataset for result in results)
    }


def _over_datasets(
    datasets: Mapping[str, Mapping[str, float | None]], names: Sequence[str]
) -> dict[str, float | None]:
    return {name: _mean([figures[name] for figures in datasets.values()]) for name in names}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _spread(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) > 1 else None
