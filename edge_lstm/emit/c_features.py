"""QFeatures -> C99: ``NAME_features.c``, ``NAME_features.h`` and the runtime of feature stages.

Returns the text of the files, byte-identical for equal input.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import jinja2

from edge_lstm import __version__
from edge_lstm.emit.c_code import runtime_text
from edge_lstm.emit.c_tables import one_line
from edge_lstm.extraction.bands import QBand
from edge_lstm.extraction.config import ChannelFeatures
from edge_lstm.extraction.fixed import QFeatures, rows_back
from edge_lstm.naming import identifier

RUNTIME = ("elstm.h", "elstm_features.h", "elstm_features.c", "elstm_features_rows.h")
UNITS = {"value": "raw units", "peak_to_peak": "raw units", "crest": "1/256", "kurtosis": "1/256"}
SQUARES = ("rms", "std", "crest")
VERSION = 1  # of elstm_features.h


def emit_features(features: QFeatures) -> dict[str, str]:
    """File name -> text of the stage and of the runtime that it needs."""
    config = features.config
    name = identifier(config.name)
    fast = [
        {
            "name": one_line(channel.name),
            "kinds": [f"ELSTM_FAST_{feature.kind.upper()}" for feature in channel.features],
            "bands": [_band(band) for band in bands],
            "powers": _powers(channel),
        }
        for channel, bands in zip(config.fast, features.bands, strict=True)
    ]
    slow = [
        {
            "name": one_line(channel.name),
            "features": [_slow_feature(kind, rows) for kind, rows in rows_back(channel)],
            "depth": depth,
        }
        for channel, depth in zip(config.slow, features.depth, strict=True)
    ]
    values = {
        "name": name,
        "upper": name.upper(),
        "version": VERSION,
        "tool": __version__,
        "summary": f"{config.rate_hz:g} samples a second, a row of {len(config.columns)} columns "
        f"every {config.hop}",
        "hop": config.hop,
        "columns": column_lines(features),
        "width": len(config.columns),
        "fast": fast,
        "slow": slow,
        "bands": sum(len(channel["bands"]) for channel in fast),
        "depth": sum(features.depth),
    }
    files = {
        f"{name}_features.{kind}": _template(f"features.{kind}.j2").render(values) for kind in ("c", "h")
    }
    return files | {file: runtime_text(file) for file in RUNTIME}


def column_lines(features: QFeatures) -> list[str]:
    """What each column of a row is: name and unit."""
    lines = []
    for channel in features.config.fast:
        for column, feature in zip(channel.columns, channel.features, strict=True):
            lines.append(f"{column}, {UNITS.get(feature.kind, '1/16 of a raw unit')}")
    for channel in features.config.slow:
        lines += [f"{column}, raw units" for column in channel.columns]
    return [one_line(f"row[{index}]: {line}") for index, line in enumerate(lines)]


def _powers(channel: ChannelFeatures) -> str:
    kinds = {feature.kind for feature in channel.features}
    if "kurtosis" in kinds:
        return "ELSTM_FOURTHS"
    return "ELSTM_SQUARES" if kinds & set(SQUARES) else "ELSTM_NO_POWERS"


def _band(band: QBand) -> str:
    sections = ", ".join(
        f"{{{section.gain}, {{{section.back[0]}, {section.back[1]}}}}}" for section in band.sections
    )
    return f"{{{{{sections}}}, {band.fraction}}}"


def _slow_feature(kind: str, rows: int) -> str:
    return f"{{ELSTM_SLOW_{kind.upper()}, {rows}}}"


@cache
def _template(file: str) -> jinja2.Template:
    environment = jinja2.Environment(  # noqa: S701 - C has no markup to escape
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    source = resources.files("edge_lstm.emit").joinpath("templates").joinpath(file)
    return environment.from_string(source.read_text(encoding="utf-8"))
