"""What all pages share: how templates are read, and the style (``style.css.j2``) that they include."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_environment() -> Environment:
    """Templates of this room by name; all text is escaped.  The style reads ``palette``."""
    return Environment(
        loader=PackageLoader("edge_lstm.reporting"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
