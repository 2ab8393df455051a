"""The frame of every page: style, head, sections; templates in, HTML text out.  Touches no file but them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edge_lstm import __version__
from edge_lstm.reporting.canvas import PALETTE
from edge_lstm.reporting.environment import page_environment


@dataclass(frozen=True)
class Picture:
    """SVG for wide and for narrow screens; one that is narrow by nature has no wide form."""

    alt: str
    narrow: str
    wide: str = ""


def render_template(template: str, **values: Any) -> str:
    """The page of ``template``, which extends page.html.j2 and imports parts.html.j2.

    values: what the template names, and what every page has: kind (the verb), name, verdict, tiles
    ((what, figure, remark) ...) and titles (of the sections, by id).
    """
    return page_environment().get_template(template).render(version=__version__, palette=PALETTE, **values)
