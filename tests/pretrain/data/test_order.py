"""Every sample once an epoch, whatever the ranks, windows and the step a run begins with."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator.core.errors import UsageError
from pretrain.data.batches import BatchPlan
from pretrain.data.loader import Pipeline
from pretrain.data.options import DataOptions
from pretrain.data.order import SampleOrder
from pretrain.data.rng import hashes, shuffled, uniforms
from pretrain.data.source import Source
from tests.kit.data import counted, fake_source, lengths

some_counts = st.lists(st.integers(0, 7), min_size=1, max_size=6).filter(any)


def pipeline(source: Source, *, rank: int = 0, world: int = 1, **options: int) -> Pipeline:
    return Pipeline(
        source,
        DataOptions(image_px=8, **options),  # type: ignore[arg-type]  # all of them are integers
        tokenize=lengths,
        rank=rank,
        world_size=world,
    )


def take(source: Source, steps: int, *, start: int = 0, **options: int) -> list[BatchPlan]:
    return list(itertools.islice(pipeline(source, **options).plans(start), steps))


def where(plans: list[BatchPlan]) -> list[tuple[int, int]]:
    """(epoch, sample) of each place of a sequence of batches."""
    return [
        place
        for plan in plans
        for place in zip(plan.epochs.tolist(), plan.samples.tolist(), strict=True)
    ]


@settings(max_examples=30, deadline=None)
@given(
    counts=some_counts,
    rank_batch=st.integers(1, 4),
    world=st.integers(1, 3),
    window=st.integers(1, 20),
    start=st.integers(0, 8),
    seed=st.integers(0, 5),
)
def test_ranks_and_resumed_runs_share_one_sequence_in_which_every_epoch_is_whole(
    counts: list[int], rank_batch: int, world: int, window: int, start: int, seed: int
) -> None:
    source = fake_source(*counts)
    total, batch = sum(counts), rank_batch * world
    steps = 2 * total // batch + start + 2
    options = {"batch_size": batch, "window_samples": window, "seed": seed}
    alone = take(source, steps, **options)
    places = where(alone)
    for epoch in range(2):
        once = places[epoch * total : (epoch + 1) * total]
        assert sorted(once) == [(epoch, sample) for sample in range(total)]
    ranks = [take(source, steps, rank=rank, world=world, **options) for rank in range(world)]
    together = [where([rank[step]]) for step in range(steps) for rank in ranks]
    assert list(itertools.chain(*together)) == places
    late = take(source, steps - start, start=start, **options)
    assert where(late) == places[start * batch :]
    rank = world - 1
    late_rank = take(source, steps - start, start=start, rank=rank, world=world, **options)
    assert where(late_rank) == where(ranks[rank][start:])


def test_the_place_of_a_sample_carries_its_own_row() -> None:
    """Sample numbers count over the shards in order: shard 0 has 0 to 2, shard 2 has 3 and 4."""
    for plan in take(fake_source(3, 0, 2), 5, batch_size=2):
        for place, sample in enumerate(plan.samples.tolist()):
            shard, row = (0, sample) if sample < 3 else (2, sample - 3)
            assert plan.keys[place] == f"{shard}-{row}"
            assert plan.texts[place] == [f"text {shard} {row}"]
            assert plan.offsets[place] == row
            assert plan.paths[plan.file_of[place]] == f"{shard}.tar"
            assert plan.sha256[place] is None


def test_epochs_and_seeds_have_other_orders() -> None:
    def first_of(seed: int, epoch: int) -> list[tuple[int, int]]:
        return where(take(fake_source(20, 20), 1, batch_size=40, seed=seed, start=epoch))

    orders = [
        [sample for _, sample in first_of(seed, epoch)] for seed in (0, 1) for epoch in (0, 1)
    ]
    assert all(a != b for a, b in itertools.combinations(orders, 2))
    # Both shards are in one window, so the first half is not one shard.
    assert {sample < 20 for sample in orders[0][:20]} == {True, False}


def test_what_is_skipped_is_not_read_and_a_window_is_read_only_once() -> None:
    tables = counted(*[10] * 50)
    source = Source(tables, name="fake", source_id="0", about={})
    steps = pipeline(source, batch_size=10, window_samples=10).plans(47)
    next(steps)
    steps.close()
    assert tables.num_reads <= 3  # the window of the step, and up to two ahead
    tables.num_reads = 0
    take(source, 50, batch_size=10, window_samples=20)
    assert 50 <= tables.num_reads <= 54


def test_windows_are_as_small_as_asked_for() -> None:
    order = SampleOrder([4, 3, 0, 5, 1], seed=0, window_samples=5)
    found = order.windows(0)
    assert [one.start for one in found] == list(
        np.cumsum([0, *(one.num_samples for one in found)])[:-1]
    )
    assert sorted(shard for one in found for shard in one.shards) == [0, 1, 3, 4]
    assert all(one.num_samples >= 5 for one in found[:-1])
    # Without its last shard no window would be large enough.
    counts = [4, 3, 0, 5, 1]
    assert all(one.num_samples - counts[one.shards[-1]] < 5 for one in found)


def test_opening_is_cheap_for_a_hundred_thousand_shards() -> None:
    """A billion samples: any position is found from the counts alone."""
    order = SampleOrder(np.full(100_000, 10_000), seed=0, window_samples=1 << 16)
    window = next(order.from_position(1_500_000_000))
    behind = window.epoch * order.num_samples + window.start
    assert behind <= 1_500_000_000 < behind + window.num_samples
    assert window.num_samples == 70_000
    assert len(order.rows(window)) == 70_000


def test_ranks_must_divide_a_batch() -> None:
    with pytest.raises(UsageError, match="batch_size is 5 for 2 processes; allowed: a multiple"):
        pipeline(fake_source(10), world=2, batch_size=5)


def test_draws_depend_on_every_part_and_never_change() -> None:
    """The figures pin the hash: another one would change every run that is resumed."""
    assert hashes(0, 1, 2).tolist() == [1646607747437816789]  # worked out with Python's integers
    assert hashes(0, [9, 1], 2).tolist()[1:] == hashes(0, 1, 2).tolist()
    assert len(set(hashes(0, np.arange(1000)).tolist())) == 1000
    for other in (hashes(1, 1, 2), hashes(0, 2, 1), hashes(0, 1, 3), hashes(0, 1), hashes(-1, 1)):
        assert other[0] != hashes(0, 1, 2)[0]
    drawn = uniforms(3, np.arange(100_000))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.003  # 3 standard errors of the mean
    assert shuffled(5, 7).tolist() == [4, 2, 0, 1, 3]
