"""The Pareto front of a search: a picture and a page.  Reads measured points; returns bytes and text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_lstm.reporting import canvas
from edge_lstm.reporting.canvas import BOTTOM, LEFT, NARROW, RIGHT, WIDE, Axes, Figure, light
from edge_lstm.reporting.layout import Picture, render_template
from edge_lstm.reporting.tables import Cell, Table, cells, number

TITLES = {"front": "Pareto front", "made": "How it was made"}
HEIGHT, TOP = {NARROW: 300, WIDE: 400}, {NARROW: 48, WIDE: 30}  # of a figure; of its axes, for the key
NEAR = 14  # pixels between two numbers of trials that can both be read


@dataclass(frozen=True)
class Point:
    """One measured network.  quality: the search's.  flash, ram, instructions, network: see Costs.

    figures: other figures of the validation rows.  params: what was chosen.
    """

    trial: int
    quality: float
    flash: int
    ram: int
    instructions: int | None
    network: int | None
    figures: Mapping[str, float | None] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """What the picture shows on its x axis: instructions, or flash where none are counted."""
        return float(self.instructions or self.flash)


@dataclass(frozen=True)
class FrontPage:
    """board: in words.  judged: what quality is.  measured: every point, those of the front included.

    counts: trials by how they ended.  limits: by name, None where there is none.
    """

    board: str
    judged: str
    front: Sequence[Point]
    measured: Sequence[Point]
    counts: Mapping[str, int]
    limits: Mapping[str, int | None]
    notes: Sequence[str]


def draw_front(page: FrontPage) -> bytes:
    """The front as PNG."""
    with canvas.style("front png"):
        return canvas.to_png(_figure(page, WIDE))


def render_front(page: FrontPage) -> str:
    """The whole page as one HTML text without any outside resource; the same text for the same points."""
    alt = f"Quality against cost of {len(page.measured)} networks; the table has those of the front."
    pictures = []
    for width in (NARROW, WIDE):
        with canvas.style(f"front {width}"):
            pictures.append(canvas.to_svg(_figure(page, width)))
    counts = page.counts
    tiles = [
        ("Networks on the front", number(len(page.front)), f"of {counts['measured']} measured"),
        ("Rejected before training", number(counts["rejected"]), "beyond a limit"),
        ("Given up in training", number(counts["given_up"]), "worse than cheaper ones"),
    ]
    if page.front:
        best = max(page.front, key=lambda point: point.quality)
        tiles.insert(1, ("Best quality", number(best.quality), f"trial {best.trial}"))
    verdict = f"Quality: {page.judged}. The test part of the recording took no part."
    return render_template(
        "front.html.j2", kind="tune", name=f"Networks for {page.board}", verdict=verdict, tiles=tiles,
        titles=TITLES, picture_=Picture(alt, *pictures), front=_table(page.front),
        limits=_limits(page.limits), notes=page.notes,
    )  # fmt: skip


def _limits(limits: Mapping[str, int | None]) -> list[tuple[str, str]]:
    units = {"flash": "flash, bytes", "ram": "RAM with stack, bytes", "instructions": "instructions a sample"}
    return [(units[name], f"at most {value:,}") for name, value in limits.items() if value is not None]


def _table(front: Sequence[Point]) -> Table:
    names = list(dict.fromkeys(name for point in front for name in point.params))
    figures = [
        name for name in dict.fromkeys(n for point in front for n in point.figures) if name != "quality"
    ]
    titles = {"r2": "R2", "vus_pr": "VUS-PR", "auc_pr": "AUC-PR", "event_f1": "event F1"}
    columns = [
        "trial", "quality", *(titles.get(name, name) for name in figures), "instructions",
        "of the network", "flash", "RAM", *(name.removeprefix("input:") for name in names),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for point in front:
        measured = [point.figures.get(name) for name in figures]
        costs = [point.instructions, point.network, point.flash, point.ram]
        chosen = [str(point.params.get(name, "")) for name in names]
        rows.append(cells(str(point.trial), *map(number, [point.quality, *measured, *costs]), *chosen))
    caption = "The front: no other network is better in one figure and as good in all others."
    return Table(caption, columns, rows, tuple(range(len(columns) - len(names), len(columns))))


def _figure(page: FrontPage, width: int) -> Figure:
    height, top = HEIGHT[width], TOP[width]
    figure = canvas.new_figure(width, height)
    ax = canvas.new_axes(figure, LEFT, top, width - LEFT - RIGHT, height - top - BOTTOM)
    counted = any(point.instructions is not None for point in page.measured)
    ax.set_title("quality on the validation rows", pad=top - 25)
    cost, quality = (
        np.array([getattr(p, name) for p in page.measured], float) for name in ("cost", "quality")
    )
    ax.plot(cost, quality, linestyle="none", marker="o", markersize=5, color=light("measured"), alpha=0.45,
            label="measured")  # fmt: skip
    front = sorted(page.front, key=lambda point: (point.cost, -point.quality))
    ax.plot([p.cost for p in front], [p.quality for p in front], linestyle="none", marker="D", markersize=7,
            color=light("int8"), label="Pareto front")  # fmt: skip
    low, high = canvas.view(quality, below=0.12, above=0.14)
    _, right = canvas.view(cost, above=0.12)
    ax.set_xlim(0, right)
    ax.set_ylim(low, high)
    ax.grid(axis="y")
    canvas.set_ticks(ax.yaxis, low, high, 5)
    canvas.set_ticks(ax.xaxis, 0, right, 8 if width > NARROW else 4)
    ax.set_xlabel("instructions a sample, raw integers to alarm" if counted else "bytes of flash")
    limit = page.limits.get("instructions" if counted else "flash")
    if limit is not None and limit < right:
        ax.axvline(limit, color=light("threshold"), linestyle=(0, (7, 3)), linewidth=1.4, label="limit")
    _number(ax, front)
    ax.legend(loc="lower right", bbox_to_anchor=(1, 0.99), ncols=3, frameon=False, borderaxespad=0,
              handletextpad=0.3, columnspacing=1.2, labelcolor=light("muted"), fontsize=11)  # fmt: skip
    return figure


def _number(ax: Axes, front: Sequence[Point]) -> None:
    """The trial beside each point, where the one before leaves room."""
    place = np.full(2, -np.inf)
    for point in front:
        here = ax.transData.transform((point.cost, point.quality))
        if np.abs(here - place).max() < NEAR:
            continue
        place = here
        ax.annotate(str(point.trial), (point.cost, point.quality), xytext=(0, 7), textcoords="offset points",
                    ha="center", fontsize=11, color=light("ink"))  # fmt: skip
