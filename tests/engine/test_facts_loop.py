"""The loop that makes facts lets go of a shard when it is finished."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from curator.core.stopping import StopRequest
from curator.engine.executors import Done, Failed
from curator.engine.executors.local import InlineExecutor
from curator.engine.facts_loop import FactsLoop, Record
from curator.store import fsops
from curator.store.facts import CAPTIONS, SHARD, Facts
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


@pytest.mark.parametrize("share", [False, True])
def test_every_shard_is_forgotten_after_its_last_batch(tmp_path: Path, share: bool) -> None:
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
        items_a_journal=6 if share else 3,
    )
    shards = [
        (name, [Item(name, name * 8 + str(number)) for number in range(3)]) for name in ("s", "t")
    ]
    tally = loop.run(shards, stop=StopRequest())
    assert tally.made == 6
    s, t = [("batch", "s")], [("batch", "t")]  # the second of three batches holds items of both
    together = [*s, *s, *t, *t, ("forget", "s"), ("forget", "t")]
    assert seen == (together if share else [*s, *s, ("forget", "s"), *t, *t, ("forget", "t")])
    names = sorted(path.name.split(".")[0] for path in store.root.rglob("*.parquet"))
    assert names == ["s", "t"]
    assert not list(store.root.rglob("*.jnl"))


def loop_over(store: Store, *, items_a_journal: int = 100) -> FactsLoop[Item, str]:
    return FactsLoop(
        facts=Facts(store, CAPTIONS, "g"),
        build=build,
        to_records=to_records,
        executor=InlineExecutor(),
        batch_size=4,
        advance=lambda _count: None,
        items_a_journal=items_a_journal,
    )


def shards(number: int) -> list[tuple[str, list[Item]]]:
    """Shards of three items."""
    names = [f"{shard:02d}" for shard in range(number)]
    keys = {name: [f"{name}{row}".ljust(64, "0") for row in range(3)] for name in names}
    return [(name, [Item(name, key) for key in keys[name]]) for name in names]


def files(store: Store) -> dict[str, bytes]:
    found = (store.root / "facts").rglob("*.parquet")
    return {path.name: path.read_bytes() for path in found}


def test_small_shards_share_batches_and_syncs_and_have_files_of_their_own(tmp_path: Path) -> None:
    alone, shared = Store.create(tmp_path / "alone"), Store.create(tmp_path / "shared")
    loop_over(alone, items_a_journal=1).run(shards(20), stop=StopRequest())
    steps: list[str] = []
    fsops.set_step_hook(lambda operation, _path: steps.append(operation))
    try:
        loop_over(shared).run(shards(20), stop=StopRequest())
    finally:
        fsops.set_step_hook(None)
    assert files(shared) == files(alone)
    assert len(files(shared)) == 20
    # 60 items in batches of 4: one fsync each, one for each file, and two of the listing.
    assert steps.count("fsync") == 15 + 20 + 2
    assert steps.count("fsync_dir") == 12  # 8 new folders; journal, files, twice the listing


def test_a_journal_of_many_shards_left_by_a_crash_gives_the_same_files(tmp_path: Path) -> None:
    whole, crashed = Store.create(tmp_path / "whole"), Store.create(tmp_path / "crashed")
    loop_over(whole).run(shards(5), stop=StopRequest())
    facts = Facts(crashed, CAPTIONS, "g")
    writer = facts.writer("00")
    done = [item for _, items in shards(5) for item in items][:8]  # all of 00 and 01, two of 02
    for item in done:
        (record,) = to_records(Done(item, item.image_sha256.upper()))
        writer.add([{**record, SHARD: item.shard}])
    writer.close()
    known = {item.image_sha256 for item in done}
    rest = [(name, [i for i in items if i.image_sha256 not in known]) for name, items in shards(5)]
    assert [len(items) for _, items in rest] == [0, 0, 1, 3, 3]
    loop_over(crashed).run(rest, stop=StopRequest())
    assert files(crashed) == files(whole)
    assert not list(crashed.root.rglob("*.jnl"))
