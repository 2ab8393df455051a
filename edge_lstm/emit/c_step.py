"""What an emitter of ``c_layers`` reads and writes: one task where it runs, and what it adds to the C."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge_lstm.emit.c_plan import Block, Plan
from edge_lstm.emit.c_tables import Constant, one_line
from edge_lstm.emit.c_tasks import Place, Task


@dataclass(frozen=True)
class Field:
    """One member of the state struct.  bytes: of its largest element."""

    bytes: int
    declaration: str
    comment: str


@dataclass(frozen=True)
class Call:
    """One call statement.  note: what it is for, where the arguments do not say so."""

    function: str
    arguments: tuple[str, ...]
    note: str = ""


@dataclass
class Code:
    """What one operator adds to a model's C.  resets: before the first row."""

    constants: list[Constant] = field(default_factory=list)
    fields: list[Field] = field(default_factory=list)
    resets: list[Call] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)


@dataclass(frozen=True)
class Step:
    """One task where it runs: its operator, and the places that it reads and writes."""

    plan: Plan
    block: Block
    task: Task

    @property
    def layer(self) -> Any:
        return self.task.layer

    @property
    def symbol(self) -> str:
        return self.task.symbol

    @property
    def name(self) -> str:
        return one_line(self.layer.name)

    @property
    def t(self) -> str | int:
        """The row at hand."""
        return "t" if self.block.loops else 0

    @property
    def reads(self) -> list[Place]:
        return [self.plan.place(index, self.block) for index in self.task.reads]

    @property
    def writes(self) -> Place:
        return self.plan.place(self.task.value, self.block)

    @property
    def x(self) -> str:
        """The row that it reads first."""
        return self.reads[0].at(self.t)

    @property
    def y(self) -> str:
        """The row that it writes."""
        return self.writes.at(self.t)


def hidden_rows(step: Step) -> tuple[list[Field], str, str]:
    """How an LSTM keeps its hidden codes: members of the state, the row before, and that before the first."""
    writes, rows, backwards = step.writes, step.block.rows, step.layer.backwards
    if not step.plan.toggles(step.task):
        before = writes.moved(writes.width if backwards else -writes.width)
        return [], before.at(step.t), before.at(rows - 1 if backwards else 0)
    member = f"state->{step.symbol}_hidden"
    what = " of two rows in turn" if step.plan.window else "; [turn] are those of the last step"
    declaration = f"int{writes.bits}_t {step.symbol}_hidden[2][{writes.width}]"
    fields = [Field(writes.bits // 8, declaration, f"{step.name}: hidden codes{what}")]
    return fields, f"{member}[now]", f"{member}[{(rows - 1) & 1 if backwards else 0}]"


def cell_field(step: Step) -> Field:
    """The member of the state that holds the cell codes."""
    layer = step.layer
    comment = f"{step.name}: int16 cell codes, scale 2**{layer.cell_power}"
    return Field(2, f"int16_t {step.symbol}_cell[{layer.units}]", comment)
