"""Sentences about the recording itself: clock, missing values, channels, range, memory, redundancy, labels.

Reads Findings; writes (topic, text).
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_lstm.analysis.channels import ChannelFacts, Clock
from edge_lstm.analysis.findings import Findings
from edge_lstm.analysis.redundancy import MOST_LAG

MANY = 8  # names in a sentence
SPANS = ((60.0, "s", 1.0), (3600.0, "min", 60.0), (86_400.0, "h", 3600.0), (float("inf"), "days", 86_400.0))
KINDS = (
    ("binary", "has two values", "have two values"),
    ("states", "has few values, a state rather than a measurement", "have few values each, states rather "
     "than measurements"),
    ("still", "changes in under 2 % of the rows", "change in under 2 % of the rows"),
)  # fmt: skip

Sentences = list[tuple[str, str]]


def listed(names: Sequence[str]) -> str:
    """Names in a sentence; many as a number."""
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    return ", ".join(names[:MANY]) + more


def shown(value: float) -> str:
    """R2 and the like: three digits after the point where it is near 1, else two."""
    return f"{value:.3f}" if value >= 0.9 else f"{value:.2f}"


def lasting(seconds: float) -> str:
    """A time in the unit that people would use.

    >>> lasting(300), lasting(86_400)
    ('5 min', '24 h')
    """
    for limit, unit, size in SPANS:
        if seconds < limit or (unit == "h" and seconds <= 2 * limit):
            return f"{seconds / size:.3g} {unit}"
    raise AssertionError


def dropped(findings: Findings) -> dict[str, str]:
    """Why each channel that a network should not get is left out."""
    why = {channel.name: f"constant ({channel.low:g})" for channel in findings.of("constant")}
    why |= {channel.name: "counts up" for channel in findings.of("counter")}
    why |= {late: f"repeats {first}" for late, first in findings.redundancy.duplicates.items()}
    return why


def sentences(findings: Findings, out: dict[str, str]) -> Sentences:
    """All of them, in the order in which a reader needs them."""
    return [
        *_clock(findings.clock),
        *_missing(findings.channels),
        *_channels(findings, out),
        *_range(findings.channels),
        *_memory(findings),
        *_redundancy(findings),
        *_labels(findings),
    ]


def _clock(clock: Clock) -> Sentences:
    if clock.rate_hz is None or clock.step_s is None or clock.duration_s is None:
        return [("clock", f"{clock.rows:,} rows; the rate is not known, as no column holds stamps: state it "
                 "with --rate-hz to read seasons in seconds.")]  # fmt: skip
    rate = f" at {clock.rate_hz:.4g} Hz" if clock.rate_hz >= 0.1 else f", one in {lasting(clock.step_s)},"
    found = [("clock", f"{clock.rows:,} rows{rate} over {lasting(clock.duration_s)}.")]
    if clock.irregular and clock.least_step_s is not None and clock.most_step_s is not None:
        steps = clock.rows - 1
        found.append(
            ("clock", f"The stamps are irregular: {clock.irregular:,} of {steps:,} steps "
             f"({clock.irregular / steps:.1%}) lie off the median of {clock.step_s:g} s, from "
             f"{clock.least_step_s:g} to {clock.most_step_s:g} s. A network counts rows, not seconds: "
             "compare with --irregular resample.")
        )  # fmt: skip
    if clock.gaps:
        found.append(
            ("clock", f"Gaps: {clock.gaps:,}, the longest {lasting(clock.longest_gap_s)}; the state is reset "
             "behind each.")
        )  # fmt: skip
    return found


def _missing(channels: Sequence[ChannelFacts]) -> Sentences:
    holed = [channel for channel in channels if channel.missing > 0]
    if not holed:
        return [("missing", "No value is missing.")]
    worst = max(holed, key=lambda channel: channel.missing)
    longest = max(channel.longest_missing for channel in holed)
    names = listed([channel.name for channel in holed])
    return [
        ("missing", f"Values are missing in {len(holed)} of {len(channels)} channels ({names}): at most "
         f"{worst.missing:.2%}, in {worst.name}, up to {longest:,} rows in a row. The device holds and masks "
         "them too.")
    ]  # fmt: skip


def _channels(findings: Findings, out: dict[str, str]) -> Sentences:
    found: Sentences = []
    constant, counters = findings.of("constant"), findings.of("counter")
    if constant:
        values = listed([f"{channel.name} = {channel.low:g}" for channel in constant])
        found.append(("channels", f"{_channels_are(len(constant), 'constant')}: {values}. Leave out."))
    if counters:
        counting = listed([channel.name for channel in counters])
        found.append(("channels", f"{counting} only counts up: leave out, or record its rate instead."))
    for kind, one, several in KINDS:
        named = [channel.name for channel in findings.of(kind)]
        if named:
            found.append(("channels", f"{listed(named)} {one if len(named) == 1 else several}."))
    if out and findings.used:
        found.append(
            ("channels", f"Give the network {len(findings.used)} of {len(findings.channels)} channels.")
        )
    return found


def _channels_are(count: int, what: str) -> str:
    return f"{count} channel{' is' if count == 1 else 's are'} {what}"


def _range(channels: Sequence[ChannelFacts]) -> Sentences:
    moving = [channel for channel in channels if channel.kind in ("measurement", "still")]
    if not moving:
        return []
    coarse = max(moving, key=lambda channel: channel.steps_in_one)
    found = [
        ("range", f"One int8 step of {coarse.name} is {coarse.int8_step:.3g} {coarse.unit}".rstrip()
         + f", {_count(coarse.steps_in_one)} steps of the sensor (its resolution is {coarse.resolution:g}), "
         "the most of all channels.")
    ]  # fmt: skip
    spiked = [channel.name for channel in channels if channel.spiked]
    if spiked:
        found.append(
            ("range", f"A few spikes take most of the int8 range of {listed(spiked)}: the middle 99.8 % of "
             "the rows use under a quarter of it. Check those rows.")
        )  # fmt: skip
    return found


def _count(steps: float) -> str:
    return f"{steps:,.0f}" if steps >= 10 else f"{steps:.2g}"


def _memory(findings: Findings) -> Sentences:
    found: Sentences = []
    for verdict, text in (
        ("unit root", "a unit root (ADF does not reject it, KPSS rejects a steady level): the level wanders, "
         "so what was normal last month is no measure"),
        ("level moves", "no unit root, but a level that moves (ADF and KPSS both reject)"),
    ):  # fmt: skip
        names = [name for name, memory in findings.memory.items() if memory.verdict == verdict]
        if names:
            found.append(("memory", f"{listed(names)}: {text}."))
    white = [
        name for name, memory in findings.memory.items()
        if memory.ljung_box_p is not None and memory.ljung_box_p >= 0.05 and memory.order == 0
    ]  # fmt: skip
    if white:
        found.append(("memory", f"{listed(white)}: white noise in time (Ljung-Box finds no dependence)."))
    orders = {name: findings.memory[name].order for name in findings.used if name in findings.memory}
    if any(orders.values()):
        ranked = sorted(orders.items(), key=lambda item: -item[1])
        texts = [f"{order} in {name}" for name, order in ranked if order]
        found.append(("memory", f"The partial autocorrelation cuts off at lag {listed(texts)}."))
    return found + _seasons(findings)


def _seasons(findings: Findings) -> Sentences:
    seasons = [
        (memory.strength, memory.season, name) for name, memory in findings.memory.items() if memory.season
    ]
    if not seasons:
        return [("season", "No season repeats itself five times or more.")]
    strength, season, name = max(seasons)
    step = findings.clock.step_s
    clock = f" ({lasting(season * step)})" if step else ""
    more = f"; {len(seasons)} of {len(findings.memory)} channels have one" if len(findings.memory) > 1 else ""
    return [("season", f"{name} has a season of {season:,} rows{clock}, strength {strength:.2f} of 1{more}.")]


def _redundancy(findings: Findings) -> Sentences:
    redundancy, found = findings.redundancy, []
    if len(redundancy.names) < 2:
        return []
    if redundancy.duplicates:
        texts = [f"{late} repeats {first}" for late, first in redundancy.duplicates.items()]
        found.append(("redundancy", f"{listed(texts)} (correlation 0.9999 or more): leave out."))
    found.append(
        ("redundancy", f"{redundancy.components} principal components hold 95 % of the variance of "
         f"{len(redundancy.names)} channels.")
    )  # fmt: skip
    later = [
        pair
        for pair in redundancy.pairs
        if 0 < abs(pair.lag) < MOST_LAG and abs(pair.best) > abs(pair.correlation) + 0.02
    ]
    if later:
        pair = later[0]
        first, second = (pair.first, pair.second) if pair.lag > 0 else (pair.second, pair.first)
        found.append(
            ("redundancy", f"{second} follows {first} by {abs(pair.lag)} rows (correlation {pair.best:.2f} "
             f"there, {pair.correlation:.2f} in the same row).")
        )  # fmt: skip
    if redundancy.curved:
        a, b, nats, r = redundancy.curved[0]
        found.append(
            ("redundancy", f"{a} and {b} depend on each other in a curve: {nats:.2f} nats of mutual "
             f"information at a correlation of {r:.2f}.")
        )  # fmt: skip
    return found


def _labels(findings: Findings) -> Sentences:
    if findings.anomalous is None or findings.events is None:
        return [("labels", "No label column: alarms cannot be judged, only the forecast.")]
    if not findings.anomalous:
        return [("labels", "The label column marks no row.")]
    share = findings.anomalous / findings.clock.rows
    events = "1 event" if findings.events == 1 else f"{findings.events:,} events"
    return [
        ("labels", f"{findings.anomalous:,} rows ({share:.2%}) in {events} are labelled; "
         "nothing said of the forecast uses them; evaluate judges alarms by them.")
    ]  # fmt: skip
