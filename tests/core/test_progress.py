"""Progress where there is no terminal, told by a clock that the tests turn."""

from __future__ import annotations

import io
import sys
from threading import Event

import pytest

from curator.core import progress
from curator.core.progress import Lines, bar


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_line_has_what_is_done_the_rate_and_the_time_left() -> None:
    clock = Clock()
    lines = Lines("caption (local)", 10_000, "captions", clock)
    clock.now += 60
    lines.advance(1200)
    assert lines.line() == "caption (local): 1,200 of 10,000 captions, 20/s, 7 min left"
    clock.now += 60  # the rate is that of the last minute: 300 in 60 s, 8,500 left
    lines.advance(300)
    assert lines.line() == "caption (local): 1,500 of 10,000 captions, 5.0/s, 28 min left"
    clock.now += 60
    assert lines.line() == "caption (local): 1,500 of 10,000 captions, 0.0/s, ? left"
    clock.now += 60
    lines.advance(3)
    assert lines.line() == "caption (local): 1,503 of 10,000 captions, 3.0/min, 47.2 h left"
    clock.now += 60
    lines.advance(8497)
    assert lines.line() == "caption (local): 10,000 of 10,000 captions, 142/s"


def test_what_was_there_already_says_nothing_about_the_rate() -> None:
    clock = Clock()
    lines = Lines("train", 1000, "steps", clock)
    lines.advance(400)  # a resumed run
    clock.now += 60
    lines.advance(60)
    assert lines.line() == "train: 460 of 1,000 steps, 1.0/s, 9 min left"


def test_a_number_that_nobody_knows() -> None:
    clock = Clock()
    lines = Lines("pack", None, "rows", clock)
    clock.now += 10
    lines.advance(20)
    assert lines.line() == "pack: 20 rows, 2.0/s"


class Log(io.StringIO):
    """A stderr that is not a terminal, and says when a line came."""

    def __init__(self) -> None:
        super().__init__()
        self.came = Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        self.came.set()
        return written


def test_work_that_stands_still_is_told_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr(progress, "_MINUTE_SEC", 0.001)
    monkeypatch.delenv("RANK", raising=False)
    with bar("index", 7, "shards"):
        assert log.came.wait(60)  # nothing was advanced
    assert log.getvalue().splitlines()[0] == "index: 0 of 7 shards, 0.0/s, ? left"


def test_one_process_of_several_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(progress, "Thread", None)  # none is started
    with bar("train", 7, "steps") as advance:
        advance(1)


def test_short_work_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("index", 7, "shards") as advance:
        advance(7)
    assert capsys.readouterr().err == ""
