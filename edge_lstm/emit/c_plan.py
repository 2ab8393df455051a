"""Tasks -> Plan: what runs in one loop, and where in memory the rows of every value lie.

A streaming network is one block of straight code, run once a row.  A network with a window is a series of
blocks: loops over its rows, in which neighbouring operators work row by row, so that most of them keep one
row only, and straight code for what is computed once a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from edge_lstm.emit.c_tasks import LSTMS, Place, Task, Tasks, Value
from edge_lstm.program import Program


@dataclass(eq=False)
class Block:
    """Tasks that run in one loop over the rows of a window, or once (rows is 1).

    start: index of the first task.  backwards: the loop's order.
    """

    rows: int
    loops: bool
    start: int
    tasks: list[Task] = field(default_factory=list)

    @property
    def backwards(self) -> bool | None:
        return next((task.backwards for task in self.tasks if task.backwards is not None), None)

    @property
    def end(self) -> int:
        """Index of the last task."""
        return self.start + len(self.tasks) - 1

    @property
    def last_row(self) -> int:
        """The row that is computed last."""
        return 0 if self.backwards else self.rows - 1


class Plan:
    """The tasks of a program in blocks, and a place for all that they read and write.

    scratch: bits -> codes of working memory, which values share whose times do not overlap.
    """

    def __init__(self, program: Program) -> None:
        tasks = Tasks(program)
        self.profile, self.window = program.profile, program.window
        self.values, self.tasks, self.constants = tasks.values, tasks.tasks, tasks.constants
        self._producers = tasks.producers
        self.blocks = self._blocks()
        self._homes = {task.value: block for block in self.blocks for task in block.tasks}
        self._keep_rows()
        self.scratch = {bits: self._allocate(bits) for bits in (16, 8)}

    def _blocks(self) -> list[Block]:
        """Put every layer's tasks into the block before it where they can run there, else into a new one."""
        blocks: list[Block] = []
        homes: dict[int, Block] = {}
        start = 0
        for _, group in groupby(self.tasks, key=lambda task: task.unit):
            tasks = list(group)
            if not (blocks and self._can_join(tasks, blocks[-1], homes)):
                loops = tasks[0].loops
                blocks.append(Block(self.window if loops else 1, loops, start))
            blocks[-1].tasks += tasks
            homes |= {task.value: blocks[-1] for task in tasks}
            start += len(tasks)
        return blocks

    def _can_join(self, tasks: Sequence[Task], block: Block, homes: dict[int, Block]) -> bool:
        """Whether ``tasks`` run as ``block`` does and read of its values only the row at hand."""
        orders = {task.backwards for task in (*tasks, *block.tasks)} - {None}
        if tasks[0].loops != block.loops or len(orders) > 1:
            return False
        read = [self.values[index].rows for task in tasks for index in task.reads]
        return not block.loops or all(
            homes.get(rows.root) is not block or (rows.first, rows.step) == (0, 1) for rows in read
        )

    def _keep_rows(self) -> None:
        """Decide which values keep all rows of a window, and how long each needs its memory."""
        reads = [
            (self.values[index].rows, self._homes[task.value], position)
            for position, task in enumerate(self.tasks)
            for index in task.reads
        ]
        for rows, reader, _ in reads:
            home, root = self._homes.get(rows.root), self.values[rows.root]
            if home is not None and home is not reader and (rows.first, rows.step) != (home.last_row, 0):
                root.whole |= root.sequence
        for position, task in enumerate(self.tasks):
            value, home = self.values[task.value], self._homes[task.value]
            if self.window and not home.loops:  # an LSTM's row before lies beside its row
                value.whole |= value.sequence or isinstance(task.layer, LSTMS)
            value.first, value.last = (home.start, home.end) if value.whole else (position, position)
        for rows, reader, position in reads:
            root = self.values[rows.root]
            root.last = max(root.last, position if reader is self._homes.get(rows.root) else reader.end)

    def toggles(self, task: Task) -> bool:
        """Whether an LSTM keeps two rows of hidden codes in turn."""
        return isinstance(task.layer, LSTMS) and not self.values[task.value].whole

    def _allocate(self, bits: int) -> int:
        """Give values of ``bits`` bits their place in the scratch memory, first fit; returns its codes."""
        sizes: list[tuple[int, Value, bool]] = []
        for task in self.tasks:
            value = self.values[task.value]
            lstm = isinstance(task.layer, LSTMS)
            if self.toggles(task):
                value.place = Place(f"state->{task.symbol}_hidden[next]", value.width, value.bits)
            elif value.bits == bits and value.place is None:
                rows = self.window if value.whole and value.sequence else 1
                sizes.append(((rows + lstm) * value.width, value, lstm and not task.layer.backwards))
        taken: list[tuple[int, int, Value]] = []
        for size, value, moved in sorted(sizes, key=lambda entry: -entry[0]):
            offset = 0
            for begin, end, other in sorted(taken, key=lambda entry: entry[:2]):
                overlap = other.last >= value.first and value.last >= other.first
                if overlap and begin < offset + size:
                    offset = max(offset, end)
            taken.append((offset, offset + size, value))
            stride = value.width if value.whole and value.sequence else 0
            start = offset + (value.width if moved else 0)
            value.place = Place(f"state->scratch{bits}", value.width, bits, start, stride)
        return max((end for _, end, _ in taken), default=0)

    def place(self, index: int, block: Block) -> Place:
        """Where tasks of ``block`` find the rows of a value."""
        rows = self.values[index].rows
        place = self.values[rows.root].place
        assert place is not None  # _allocate leaves none without
        producer, home = self._producers.get(rows.root), self._homes.get(rows.root)
        if producer is not None and home is not None and home is not block and self.toggles(producer):
            turn = 1 if home.backwards else home.rows & 1  # of the row that was computed last
            place = replace(place, base=f"state->{producer.symbol}_hidden[{turn}]")
        offset = place.offset + rows.offset + place.stride * rows.first
        return Place(place.base, self.values[index].width, place.bits, offset, place.stride * rows.step)
