"""What the gateway keeps of one stream, in memory and as one row of the store."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from edge_lstm.detection.events import Event, EventStream
from edge_lstm.gateway.drift import Drift
from edge_lstm.gateway.payload import Row
from edge_lstm.gateway.store import StoredStream
from edge_lstm.graph import Stream

RECENT = 120  # samples that a page shows at once; in memory only


@dataclass(eq=False)
class Record:
    """One stream after its last row.

    state: of network and detector, as the executor saves it.  kind, order: what the last row was numbered by,
    "" before the first.  rows: that counted; duplicates: that did not, for they were not behind the last.
    gaps: how often the state was reset.  sample: the last row with its score.  recent: the last ones as JSON.
    """

    name: str
    state: bytes
    drift: Drift
    events: EventStream
    kind: str = ""
    order: float = 0.0
    duplicates: int = 0
    gaps: int = 0
    sample: dict[str, Any] = field(default_factory=dict)
    recent: deque[str] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def rows(self) -> int:
        return self.events.row

    @property
    def alarm(self) -> bool:
        return bool(self.sample.get("alarm"))

    def is_duplicate(self, row: Row) -> bool:
        """Whether a row of the same kind is not behind the last one."""
        return self.kind == row.kind != "arrival" and row.order <= self.order

    def is_gap(self, row: Row, period_s: float, factor: float) -> bool:
        """Whether more than ``factor`` periods passed since the last row, as in a recording."""
        period = 1.0 if row.kind == "seq" else period_s
        return self.kind != "" and period > 0 and row.order - self.order > factor * period * (1 + 1e-9)

    def summary(self) -> dict[str, Any]:
        """What the list of streams shows."""
        keys = ("time", "score", "threshold", "alarm")
        shown = {key: self.sample.get(key) for key in keys}
        return {"id": self.name, "rows": self.rows, **shown, "drifted": int(self.drift.drifted.sum())}

    def details(self, alarms: list[str], names: tuple[str, ...]) -> dict[str, Any]:
        """All that is known of the stream; alarms: as JSON, the newest first."""
        events, lasting = [json.loads(alarm) for alarm in alarms], self.events.lasting
        if lasting is not None and events:
            events[0] |= lasting.to_dict()  # its peak so far
        return {
            **self.summary(),
            "duplicates": self.duplicates,
            "gaps": self.gaps,
            "drift": self.drift.to_dict(names),
            "alarms": events,
            "recent": [json.loads(sample) for sample in self.recent]
            or ([self.sample] if self.sample else []),
        }

    def stored(self) -> StoredStream:
        """As a row of the store."""
        lasting = self.events.lasting
        record = {
            "row": self.events.row, "lasting": None if lasting is None else asdict(lasting),
            "kind": self.kind, "order": self.order, "duplicates": self.duplicates, "gaps": self.gaps,
        }  # fmt: skip
        last = self.recent[-1] if self.recent else json.dumps(self.sample)
        return StoredStream(self.name, self.state, self.drift.to_bytes(), json.dumps(record), last)

    @staticmethod
    def of(stored: StoredStream, stream: Stream) -> Record:
        """What ``stored`` wrote."""
        record = json.loads(stored.record)
        lasting = record.pop("lasting")
        events = EventStream(
            stream.names, stream.scored, record.pop("row"), None if lasting is None else Event(**lasting)
        )
        drift, sample = Drift.from_bytes(stored.drift), json.loads(stored.sample)
        return Record(stored.name, stored.state, drift, events, **record, sample=sample)
