"""The time that a suite has left, on a fake clock: by the size of the work, corrected by what it took."""

from __future__ import annotations

from edge_lstm.verbs.suite_clock import SCORE, SIMPLE, TRAIN, Clock


class Wall:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def clock(told: list[tuple[int, int, str]], workers: int = 2, cores: int = 2) -> tuple[Clock, Wall]:
    wall = Wall()
    return Clock(workers, cores, lambda *at: told.append(at), wall), wall


def test_the_time_left_follows_the_size_of_the_work_and_not_its_count() -> None:
    found, _ = clock([], workers=1)
    for _ in range(9):
        found.plan(SCORE, 1.0)
    found.plan(SCORE, 91.0)  # one recording of ten is nine tenths of the work
    assert found.left_s() is None
    for _ in range(9):
        found.finish(SCORE, 1.0, 2.0)  # on a machine of half the speed
    assert found.left_s() == 182.0


def test_work_of_which_nothing_is_done_is_as_slow_as_the_rest() -> None:
    found, _ = clock([], workers=2, cores=8)
    found.plan(SIMPLE, 10.0)
    found.plan(SCORE, 40.0)
    found.plan(TRAIN, 100.0)
    found.finish(SIMPLE, 10.0, 30.0)
    assert found.left_s() == 300.0  # training, three times as slow; scoring takes 120 / 2 beside it
    found.plan(SCORE, 400.0)
    assert found.left_s() == 660.0  # now the two that score are the last


def test_cores_that_are_shared_count_once() -> None:
    found, _ = clock([], workers=2, cores=2)
    found.plan(TRAIN, 110.0)
    found.plan(SCORE, 100.0)
    found.begin(TRAIN, 10.0)
    found.end()
    found.finish(TRAIN, 0.0, 10.0)
    assert found.left_s() == 100.0  # (100 + 100) / 2 cores


def test_work_that_is_running_counts_as_it_goes_but_never_beyond_its_share() -> None:
    told: list[tuple[int, int, str]] = []
    found, wall = clock(told, workers=1, cores=1)
    found.plan(TRAIN, 60.0)
    found.plan(TRAIN, 600.0)
    found.begin(TRAIN, 60.0)
    wall.seconds += 60
    found.end()
    found.begin(TRAIN, 600.0)
    wall.seconds += 300
    assert found.left_s() == 300.0
    found.show("training")
    assert told[-1] == (9, 100, "training, about 5 minutes left")
    wall.seconds += 3000
    assert found.left_s() == 0.0
    found.end()
    assert found.left_s() == 0.0
    found.show("done")
    assert told[-1] == (100, 100, "done, less than a minute left")


def test_before_anything_is_done_no_time_is_told() -> None:
    told: list[tuple[int, int, str]] = []
    found, _ = clock(told)
    found.plan(TRAIN, 60.0)
    found.show("reading")
    assert told == [(0, 100, "reading")]
