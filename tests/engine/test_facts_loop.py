"""The loop that makes facts lets go of a shard when it is finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from curator.core.stopping import StopRequest
from curator.engine.executors import Done, Failed
from curator.engine.executors.local import InlineExecutor
from curator.engine.facts_loop import FactsLoop, Record
from curator.store.facts import CAPTIONS, Facts
from curator.store.store import Store


@dataclass(frozen=True, slots=True)
class Item:
    shard: str
    image_sha256: str


def build() -> Callable[[Sequence[Item]], list[str]]:
    return lambda items: [item.image_sha256.upper() for item in items]


def to_records(outcome: Done[Item, str] | Failed[Item]) -> list[Record]:
    assert isinstance(outcome, Done)
    key = {"image_sha256": outcome.item.image_sha256, "candidate": 0}
    return [{**key, "text": outcome.result, "attempt": 0, "created": 1.0}]


def test_every_shard_is_forgotten_after_its_last_batch(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store")
    seen: list[tuple[str, str]] = []

    def review(shard: str, records: list[Record]) -> list[Record]:
        seen.append(("batch", shard))
        return records

    loop = FactsLoop(
        facts=Facts(store, CAPTIONS, "g"),
        build=build,
        to_records=to_records,
        executor=InlineExecutor(),
        batch_size=2,
        advance=lambda _count: None,
        review=review,
        forget=lambda shard: seen.append(("forget", shard)),
    )
    shards = [
        (name, [Item(name, name * 8 + str(number)) for number in range(3)]) for name in ("s", "t")
    ]
    tally = loop.run(shards, stop=StopRequest())
    assert tally.made == 6
    assert seen == [
        *[("batch", "s"), ("batch", "s"), ("forget", "s")],
        *[("batch", "t"), ("batch", "t"), ("forget", "t")],
    ]
