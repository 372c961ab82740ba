"""Whose pictures have which seeds: training, shards and labelled pictures never share a scene.

    0 ... 9,999,999                                training of the bundled models
    10,000,000 + 2,000,000 w + 0 ... 999,999       pictures in the shards of world w
    10,000,000 + 2,000,000 w + 1,000,000 ...       labelled pictures of world w

A picture seed p has the scene seeds p * `render.ATTEMPTS` and up to its successor's, so that what
is disjoint here is so in scenes as well. The seed of the last world still fits into 64 bits.
"""

from __future__ import annotations

from curator.core.errors import UsageError

HELD_OUT = 10_000_000
"""No picture from this seed on is used for training."""
MOST_PICTURES = 1_000_000
"""In the shards of one world, and as many labelled ones."""
MOST_WORLDS = 2**32


def training_seeds(first: int, count: int) -> range:
    """Seeds of pictures to train on.

    Raises:
        UsageError: they would reach into those that are held out.
    """
    if first < 0 or count < 1 or first + count > HELD_OUT:
        raise UsageError(
            f"scenes {first} to {first + count - 1} are not for training",
            hint=f"train on some of 0 to {HELD_OUT - 1:,}; those behind are held out",
            reason="option.value",
        )
    return range(first, first + count)


def shard_seeds(world: int, count: int) -> range:
    """Seeds of the pictures in the shards of a world.

    Raises:
        UsageError: no such world, or more pictures than it has.
    """
    return _of_world(world, count, "images", first=0)


def labelled_seeds(world: int, count: int) -> range:
    """Seeds of the pictures of a world that have dense labels.

    Raises:
        UsageError: as for `shard_seeds`.
    """
    return _of_world(world, count, "labelled", first=MOST_PICTURES)


def _of_world(world: int, count: int, option: str, *, first: int) -> range:
    for name, value, most in (("seed", world, MOST_WORLDS - 1), (option, count, MOST_PICTURES)):
        if not 0 <= value <= most:
            raise UsageError(
                f"{name} must be 0 to {most:,}, not {value:,}",
                hint="another --seed is another world" if name == option else None,
                reason="option.value",
            )
    start = HELD_OUT + world * 2 * MOST_PICTURES + first
    return range(start, start + count)
