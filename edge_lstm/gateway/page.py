"""The live page: one HTML text without any outside resource, and the policy that its server sends with it."""

from __future__ import annotations

import json
from importlib import resources

from edge_lstm import __version__
from edge_lstm.gateway.drift import MEAN_LIMIT, SATURATED_LIMIT, SPREAD_LIMIT
from edge_lstm.graph import Stream
from edge_lstm.reporting.canvas import PALETTE
from edge_lstm.reporting.layout import page_environment, script_hash


def live_page(stream: Stream, name: str, tokens: bool) -> tuple[str, str]:
    """The page and its Content-Security-Policy.  tokens: whether it must ask for one."""
    folder = resources.files("edge_lstm.gateway") / "templates"
    script = folder.joinpath("live.js").read_text(encoding="utf-8")
    facts = {
        "channels": [{"name": channel.name, "unit": channel.unit} for channel in stream.channels],
        "tokens": tokens,
        "limits": {"mean": MEAN_LIMIT, "spread": SPREAD_LIMIT, "saturated": SATURATED_LIMIT},
    }
    template = page_environment().from_string(folder.joinpath("live.html.j2").read_text(encoding="utf-8"))
    text = template.render(
        name=name, version=__version__, palette=PALETTE, tokens=tokens, facts=json.dumps(facts), script=script
    )
    policy = (
        f"default-src 'none'; script-src '{script_hash(script)}'; style-src 'unsafe-inline'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return text, policy
