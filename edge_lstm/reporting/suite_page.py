"""The HTML page of a suite: methods against data sets, as pictures and tables; returns text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_lstm.reporting import canvas
from edge_lstm.reporting.canvas import NARROW, WIDE, Axes, Figure, light
from edge_lstm.reporting.layout import Picture, render_template
from edge_lstm.reporting.tables import Cell, Table, number

DRAWN = {"vus_pr": ("VUS-PR", "float", "o"), "event_f1": ("event F1", "int8", "D")}
LISTED = {
    "vus_pr": "VUS-PR", "auc_pr": "AUC-PR", "event_f1": "event F1", "event_precision": "event P",
    "event_recall": "event R", "affiliation_f1": "affiliation F1",
    "false_alarms_per_1000": "false / 1,000", "delay_rows": "delay",
    "hit_rate_100": "channel hits",
}  # fmt: skip
ROW, NAMES = 21, 170  # pixels of a method, and of its name
PLACES = {"false_alarms_per_1000": 2, "delay_rows": 0}  # decimals; others have 3


Values = Mapping[str, float | None]


class Means(Protocol):
    """Figures of a method over all data sets and on each, and their standard deviations over seeds."""

    @property
    def mean(self) -> Values: ...

    @property
    def spread(self) -> Values: ...

    @property
    def datasets(self) -> Mapping[str, Values]: ...

    @property
    def dataset_spread(self) -> Mapping[str, Values]: ...


@dataclass(frozen=True)
class SuitePage:
    """summaries: by method, in the order of the page.  networks: which of them are LSTMs, the others simple.

    datasets: series of each.  seeds: of the networks.
    """

    name: str
    summaries: Mapping[str, Means]
    networks: Sequence[str]
    datasets: Mapping[str, int]
    seeds: int
    verdict: str
    shortfalls: Sequence[str]
    notes: Sequence[str]


def render_suite(page: SuitePage) -> str:
    """The whole page as one HTML text without any outside resource; the same text for the same data.

    Raises MissingTool where Matplotlib is not installed.
    """
    titles = {
        "means": "All data sets",
        "datasets": "Each data set",
        "behind": "Where a simple method is ahead",
    }
    if page.notes:
        titles["notes"] = "Notes"
    tables = [_dataset_table(page, figure, title) for figure, (title, _, _) in DRAWN.items()]
    return render_template(
        "suite.html.j2", kind="suite", name=page.name, verdict=page.verdict, tiles=_tiles(page),
        titles=titles, means=_means_picture(page), means_table=_means_table(page),
        pictures=_dataset_pictures(page), tables=tables, shortfalls=page.shortfalls, notes=page.notes,
        seeds=page.seeds, key=[(title, colour) for title, colour, _ in DRAWN.values()],
    )  # fmt: skip


def _tiles(page: SuitePage) -> list[tuple[str, str, str]]:
    """(what, figure, remark): the int8 network beside the best simple method."""
    tiles = [("Recordings", number(sum(page.datasets.values())), f"of {len(page.datasets)} data sets")]
    for figure, (title, _, _) in DRAWN.items():
        for kind, names in (
            ("LSTM", page.networks),
            ("simple method", [name for name in page.summaries if name not in page.networks]),
        ):
            known = {name: page.summaries[name].mean.get(figure) or 0.0 for name in names}
            if known:
                best = max(known, key=known.__getitem__)
                tiles.append((f"{title}, best {kind}", f"{known[best]:.3f}", best))
    return tiles


Figures = Callable[[Means], tuple[Values, Values]]  # means, spreads


def _means_picture(page: SuitePage) -> Picture:
    alt = f"Dots of the mean VUS-PR and event F1 of {len(page.summaries)} methods; the table has the figures."
    narrow, wide = (
        _draw(page, "mean over data sets", lambda s: (s.mean, s.spread), width) for width in (NARROW, WIDE)
    )
    return Picture(alt, narrow, wide)


def _dataset_pictures(page: SuitePage) -> list[Picture]:
    return [
        Picture(
            f"Dots of VUS-PR and event F1 of each method on {dataset}; the tables have the figures.",
            _draw(
                page,
                f"{dataset} ({count} {'recording' if count == 1 else 'recordings'})",
                _on(dataset),
            ),
        )
        for dataset, count in page.datasets.items()
    ]


def _on(dataset: str) -> Figures:
    """The figures of a method on one data set."""
    return lambda method: (method.datasets.get(dataset, {}), method.dataset_spread.get(dataset, {}))


def _draw(page: SuitePage, title: str, figures: Figures, width: int = NARROW) -> str:
    """A row a method: a dot for each figure, a whisker of one standard deviation over seeds each way."""
    with canvas.style(f"suite {title} {width}"):
        return canvas.to_svg(_figure(page, title, figures, width))


def _figure(page: SuitePage, title: str, figures: Figures, width: int) -> Figure:
    height = ROW * len(page.summaries)
    figure = canvas.new_figure(width, 30 + height + 30)
    ax = canvas.new_axes(figure, NAMES, 30, width - NAMES - 16, height)
    ax.set_title(canvas.fit(title, width - 20), x=-NAMES / (width - NAMES - 16))
    for row, (name, summary) in enumerate(page.summaries.items()):
        _name(ax, row, name, "ink" if name in page.networks else "muted")
        for key, (_, colour, marker) in DRAWN.items():
            means, spreads = figures(summary)
            value, spread = means.get(key), spreads.get(key)
            if value is not None:
                ax.errorbar(value, row, xerr=spread or 0.0, marker=marker, markersize=6, color=light(colour),
                            elinewidth=1.5, capsize=3 if spread else 0)  # fmt: skip
    _finish(ax, len(page.summaries), len(page.networks))
    return figure


def _name(ax: Axes, row: int, name: str, colour: str) -> None:
    """A method's name, left of the axes."""
    ax.annotate(
        canvas.fit(name, NAMES + 12, 11), (0, row), (-NAMES, 0), ("axes fraction", "data"), "offset points",
        va="center", fontsize=11, annotation_clip=False, color=light(colour),
    )  # fmt: skip


def _finish(ax: Axes, rows: int, networks: int) -> None:
    """Axes from 0 to 1; a line between the networks and the simple methods."""
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(rows - 0.5, -0.5)
    ax.set_yticks([])
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "0.25", "0.5", "0.75", "1"])
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)
    ax.axhline(networks - 0.5, color=light("muted"), linewidth=0.8)


def _means_table(page: SuitePage) -> Table:
    """Means of all figures, with the spread of those that are drawn."""
    columns = ["method"]
    cells = [[Cell(name)] for name in page.summaries]
    for figure, title in LISTED.items():
        column = [summary.mean.get(figure) for summary in page.summaries.values()]
        if all(value is None for value in column):
            continue
        columns.append(title)
        best = _best(column) if figure in DRAWN else None
        for row, value in zip(cells, column, strict=True):
            row.append(
                Cell(
                    _text(value, PLACES.get(figure, 3)), "best" if best is not None and value == best else ""
                )
            )
        if figure in DRAWN and page.seeds > 1:
            columns.append("±")
            spreads = [summary.spread.get(figure) for summary in page.summaries.values()]
            for row, value in zip(cells, spreads, strict=True):
                row.append(Cell(_text(value)))
    caption = (
        "Means over data sets; false alarms for each 1,000 normal rows, median delay in rows; ± is the "
        f"standard deviation over {page.seeds} seeds. The best is bold."
    )
    return Table(caption, columns, cells)


def _dataset_table(page: SuitePage, figure: str, title: str) -> Table:
    """One figure of every method on every data set."""
    best = {
        dataset: _best([s.datasets.get(dataset, {}).get(figure) for s in page.summaries.values()])
        for dataset in page.datasets
    }
    rows = []
    for name, summary in page.summaries.items():
        row = [Cell(name)]
        for dataset in page.datasets:
            value = summary.datasets.get(dataset, {}).get(figure)
            spread = summary.dataset_spread.get(dataset, {}).get(figure)
            text = _text(value) + (f" ± {_text(spread)}" if spread is not None else "")
            row.append(Cell(text, "best" if value is not None and value == best[dataset] else ""))
        rows.append([*row, Cell(_text(summary.mean.get(figure)))])
    return Table(f"{title} by data set; the best is bold.", ["method", *page.datasets, "mean"], rows)


def _best(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _text(value: float | None, places: int = 3) -> str:
    return number(None) if value is None else f"{value:.{places}f}"
