"""Rows of many streams through one executor: each stream goes on from its own state, batch by batch.

Reads Messages; writes the store, then answers, messages for the broker and samples for pages.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from edge_lstm.arrays import BoolArray, FloatArray
from edge_lstm.detection import fixed, floating
from edge_lstm.detection.events import EventStream, in_spreads
from edge_lstm.errors import DataError
from edge_lstm.executors.protocol import Executor
from edge_lstm.gateway.drift import Drift
from edge_lstm.gateway.payload import Row, check_name, read_rows
from edge_lstm.gateway.record import Record
from edge_lstm.gateway.store import Outgoing, Store
from edge_lstm.scaling import counts_of


@dataclass(frozen=True)
class Message:
    """A payload for a stream.  source: "mqtt" or "http"."""

    stream: str
    payload: bytes
    source: str


@dataclass(frozen=True)
class Answer:
    """What became of a message: rows that count, rows that counted before; or why none does."""

    rows: int = 0
    duplicates: int = 0
    error: str = ""


@dataclass(frozen=True)
class Rules:
    """prefix: of all topics.  scores: whether every score is published.  gap_factor: periods without a row
    before a stream begins anew.  most_streams: others are refused.  broker: whether there is one.
    """

    prefix: str = "edge_lstm"
    scores: bool = False
    gap_factor: float = 5.0
    most_streams: int = 10_000
    broker: bool = False


@dataclass
class Counts:
    """Since the start, by name; malformed: by source."""

    rows: int = 0
    duplicates: int = 0
    gaps: int = 0
    alarms: int = 0
    malformed: dict[str, int] = field(default_factory=lambda: {"http": 0, "mqtt": 0})


@dataclass(frozen=True)
class Batch:
    """What a batch gave once it was stored.  samples: (stream, JSON)."""

    answers: list[Answer]
    outgoing: list[Outgoing]
    samples: list[tuple[str, str]]


@dataclass(eq=False)
class _Work:
    """What a batch has given so far."""

    pending: dict[str, list[tuple[Row, bool]]] = field(default_factory=dict)
    touched: dict[str, Record] = field(default_factory=dict)
    alarms: list[tuple[str, int, str]] = field(default_factory=list)
    messages: list[tuple[str, str]] = field(default_factory=list)
    samples: list[tuple[str, str]] = field(default_factory=list)


class Gateway:
    """All streams of one model.  Scores are those of ``detect`` on the same rows, bit for bit."""

    def __init__(self, executor: Executor, store: Store, rules: Rules) -> None:
        """executor: one that saves its state.  The streams go on from what ``store`` holds."""
        self.rules = rules
        self.counts = Counts()
        self.model, self.stream = executor.qgraph.name, executor.qgraph.stream
        self._executor, self._store = executor, store
        executor.reset()
        self._fresh = executor.save()
        self.streams = {stored.name: Record.of(stored, self.stream) for stored in store.streams()}

    def advance(self, messages: Sequence[Message], now: float, confirmed: Iterable[int] = ()) -> Batch:
        """Score and store the rows of ``messages``; nothing of them may be acknowledged before this returns.

        now: seconds since 1970.  confirmed: numbers of outgoing messages that the broker has.
        Raises OutputError where the store cannot be written: then the gateway must stop.
        """
        work = _Work()
        answers = [self._take(message, now, work) for message in messages]
        if work.pending:
            self._score(work)
        stored = [record.stored() for record in work.touched.values()]
        outgoing = self._store.commit(
            stored, work.alarms, work.messages if self.rules.broker else (), confirmed
        )
        return Batch(answers, outgoing, work.samples)

    def details(self, stream: str) -> dict[str, object] | None:
        """All that is known of a stream, None of one that is not here."""
        record = self.streams.get(stream)
        return None if record is None else record.details(self._store.alarms(stream), self.stream.names)

    def forget(self, stream: str) -> bool:
        """Remove a stream with its state and alarms; whether there was one."""
        if self.streams.pop(stream, None) is None:
            return False
        self._store.forget(stream)
        return True

    def _take(self, message: Message, now: float, work: _Work) -> Answer:
        """Check a message and put its rows to the batch."""
        try:
            check_name(message.stream)
            rows = read_rows(message.payload, self.stream.names, now)
            record = self._record(message.stream, rows)
        except DataError as error:
            self.counts.malformed[message.source] += 1
            if message.source == "mqtt":
                text = json.dumps({"error": str(error)})
                work.messages.append((f"{self.rules.prefix}/{message.stream}/error", text))
            return Answer(error=str(error))
        work.touched[record.name] = record
        taken = 0
        for row in rows:
            if record.is_duplicate(row):
                continue
            gap = record.is_gap(row, self.stream.period_s, self.rules.gap_factor)
            work.pending.setdefault(record.name, []).append((row, gap))
            record.kind, record.order, record.gaps = row.kind, row.order, record.gaps + gap
            self.counts.gaps += gap
            taken += 1
        record.duplicates += len(rows) - taken
        self.counts.rows += taken
        self.counts.duplicates += len(rows) - taken
        return Answer(taken, len(rows) - taken)

    def _record(self, stream: str, rows: Sequence[Row]) -> Record:
        """The stream that rows are for; DataError where they cannot be."""
        kinds = {row.kind for row in rows}
        record = self.streams.get(stream)
        if record is not None and record.kind:
            kinds.add(record.kind)
        if len(kinds) > 1:
            raise DataError(
                f"stream '{stream}': rows come by {' and by '.join(sorted(kinds))}; number all of them by "
                "time or by seq, or delete the stream to begin anew"
            )
        if record is None:
            if len(self.streams) >= self.rules.most_streams:
                raise DataError(
                    f"stream '{stream}' would be one more than {self.rules.most_streams:,}; delete one, or "
                    "raise --most-streams"
                )
            names = self.stream.names
            record = Record(
                stream, self._fresh, Drift.begin(len(names)), EventStream(names, self.stream.scored)
            )
            self.streams[stream] = record
        return record

    def _score(self, work: _Work) -> None:
        """Score all pending rows, stream by stream."""
        rows = [row for pending in work.pending.values() for row, _ in pending]
        raw = self._raw(rows)
        present = raw != fixed.MISSING
        scaling = self._executor.scaling
        x = scaling.unit * (scaling.fine(raw) - scaling.start)
        outside = scaling.outside(raw)
        stop = 0
        for name, pending in work.pending.items():
            record, start, stop = self.streams[name], stop, stop + len(pending)
            here = slice(start, stop)
            found = self._detect(record, raw[here], [gap for _, gap in pending])
            record.drift = record.drift.after(x[here], outside[here], present[here])
            self._report(record, [row for row, _ in pending], raw[here], found, work)

    def _raw(self, rows: Sequence[Row]) -> npt.NDArray[np.int32]:
        """Raw integers (rows, channels) of rows of either kind."""
        cells = np.array([row.cells for row in rows])
        counts = counts_of(self.stream, cells)
        given = np.where(np.isnan(cells), fixed.MISSING, np.nan_to_num(cells))
        is_raw = np.array([[row.raw] for row in rows])
        raw: npt.NDArray[np.int32] = np.where(is_raw, given, counts).astype(np.int32)
        return raw

    def _detect(
        self, record: Record, raw: npt.NDArray[np.int32], gaps: Sequence[bool]
    ) -> floating.FloatDetection:
        """Go on with a stream, from reset at its gaps."""
        edges = [0, *(index for index, gap in enumerate(gaps) if gap and index), len(raw)]
        parts = []
        for start, stop in pairwise(edges):
            self._executor.restore(self._fresh if gaps[start] else record.state)
            parts.append(self._executor.detect(raw[start:stop]))
            record.state = self._executor.save()
        return floating.from_fixed(
            fixed.Detection(*(np.concatenate([getattr(part, name) for part in parts])
                              for name in ("score", "alarm", "threshold", "contributions")))
        )  # fmt: skip

    def _report(
        self,
        record: Record,
        rows: Sequence[Row],
        raw: npt.NDArray[np.int32],
        found: floating.FloatDetection,
        work: _Work,
    ) -> None:
        """Alarms, samples and messages of the rows of one stream."""
        present = raw != fixed.MISSING
        real = np.where(present, raw * self.stream.resolution + self.stream.zero, np.nan)
        for index, row in enumerate(rows):
            contributions, here = found.contributions[index], present[index]
            number = record.rows
            event = record.events.push(
                float(found.score[index]), int(found.alarm[index]), float(found.threshold[index]),
                contributions, here, row.stamp,
            )  # fmt: skip
            if event is not None:
                text = json.dumps({"stream": record.name, **event.to_dict()})
                work.alarms.append((record.name, event.start_row, text))
                work.messages.append((f"{self.rules.prefix}/{record.name}/alarm", text))
                self.counts.alarms += event.stop_row is None
            record.sample = self._sample(record, number, row, real[index], found, index, here)
            text = json.dumps(record.sample)
            record.recent.append(text)
            work.samples.append((record.name, text))
            if self.rules.scores:
                work.messages.append((f"{self.rules.prefix}/{record.name}/score", text))

    def _sample(
        self,
        record: Record,
        number: int,
        row: Row,
        real: FloatArray,
        found: floating.FloatDetection,
        index: int,
        present: BoolArray,
    ) -> dict[str, object]:
        """One scored row; score and threshold in spreads, contributions as shares of the score."""
        names = self.stream.names
        given = real.tolist() if row.raw else row.cells
        shares = record.events.shares(found.contributions[index], present)
        return {
            "row": number,
            "time": row.stamp,
            "values": {n: None if math.isnan(v) else v for n, v in zip(names, given, strict=True)},
            "score": round(in_spreads(float(found.score[index]), len(names)), 6),
            "threshold": round(in_spreads(float(found.threshold[index]), len(names)), 6),
            "alarm": bool(found.alarm[index]),
            "contributions": {name: round(share, 4) for name, share in shares.items()},
        }
