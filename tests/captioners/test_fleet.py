"""How many requests a server gets at once."""

from __future__ import annotations

from curator.captioners.fleet import FIRST_LIMIT, MAX_LIMIT, Limit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def run(limit: Limit, clock: Clock, seconds: float, *, room: float, latency_sec: float) -> None:
    """A server that has room for so many requests and is always given as many as the limit."""
    until = clock.now + seconds
    while clock.now < until:
        clock.now += latency_sec / min(limit.now, room)
        limit.answered(limit.now)


def test_it_grows_to_what_the_server_has_room_for_and_steps_back() -> None:
    clock = Clock()
    limit = Limit(clock=clock)
    assert limit.now == FIRST_LIMIT == 32
    # 32, 64, 128, 256 in a second each; 512 takes two and is no faster
    run(limit, clock, 3.5, room=256, latency_sec=1.0)
    assert limit.now == 256
    run(limit, clock, 1.0, room=256, latency_sec=1.0)
    assert limit.now == 512
    run(limit, clock, 2.0, room=256, latency_sec=1.0)
    assert limit.now == 256
    run(limit, clock, 30, room=256, latency_sec=1.0)
    assert limit.now == 256


def test_it_tries_again_after_a_minute() -> None:
    clock = Clock()
    limit = Limit(clock=clock)
    run(limit, clock, 20, room=64, latency_sec=1.0)
    assert limit.now == 64
    run(limit, clock, 100, room=256, latency_sec=1.0)  # another one was stopped beside it
    assert limit.now == 256


def test_a_fast_server_is_not_measured_by_a_few_answers() -> None:
    clock = Clock()
    limit = Limit(clock=clock)
    run(limit, clock, 0.2, room=1e9, latency_sec=0.01)
    assert limit.now == 32
    run(limit, clock, 3, room=1e9, latency_sec=0.01)
    assert limit.now == MAX_LIMIT == 1024


def test_it_does_not_grow_while_there_is_too_little_work() -> None:
    clock = Clock()
    limit = Limit(clock=clock)
    for _ in range(1000):
        clock.now += 0.1
        limit.answered(10)
    assert limit.now == 32


def test_a_busy_server_halves_it_once_a_second() -> None:
    clock = Clock()
    limit = Limit(clock=clock)
    clock.now = 5.0
    for _ in range(20):
        limit.busy()
    assert limit.now == 16
    clock.now = 6.5
    limit.busy()
    assert limit.now == 8
    run(limit, clock, 20, room=256, latency_sec=0.5)
    assert limit.now == 8  # it does not grow back at once
    run(limit, clock, 60, room=256, latency_sec=0.5)
    assert limit.now > 8


def test_a_fixed_limit_stays() -> None:
    clock = Clock()
    limit = Limit(7, clock)
    run(limit, clock, 100, room=256, latency_sec=1.0)
    clock.now += 100
    limit.busy()
    assert limit.now == 7
