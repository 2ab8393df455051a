"""The frame of every page: style, head, sections; templates in, HTML text out.  Touches no file but them."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from edge_lstm import __version__
from edge_lstm.reporting.canvas import PALETTE


@dataclass(frozen=True)
class Picture:
    """SVG for wide and for narrow screens; one that is narrow by nature has no wide form."""

    alt: str
    narrow: str
    wide: str = ""


def page_environment() -> Environment:
    """Templates of this room by name; all text is escaped.  The style that all include reads ``palette``."""
    return Environment(
        loader=PackageLoader("edge_lstm.reporting"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip


def script_hash(script: str) -> str:
    """The SHA-256 by which a page's content security policy allows an inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def render_template(template: str, **values: Any) -> str:
    """The page of ``template``, which extends page.html.j2 and imports parts.html.j2.

    values: what the template names, and what every page has: kind (the verb), name, verdict, tiles
    ((what, figure, remark) ...) and titles (of the sections, by id).
    """
    return page_environment().get_template(template).render(version=__version__, palette=PALETTE, **values)
