"""Assign seeds to images, so that training, shards and labelled images never share a scene.

    0 ... 9,999,999                                training of the bundled models
    10,000,000 + 2,000,000 w + 0 ... 999,999       images in the shards of world w
    10,000,000 + 2,000,000 w + 1,000,000 ...       labelled images of world w

Image seed p uses the scene seeds from p * `render.ATTEMPTS` up to those of p + 1, so disjoint
image seeds give disjoint scenes. The seeds of the last world still fit into 64 bits.
"""

from __future__ import annotations

from curator.core.errors import UsageError

HELD_OUT = 10_000_000
"""Images from this seed on are not used for training."""
MOST_IMAGES = 1_000_000
"""Maximum number of images in the shards of one world, and of its labelled images."""
MOST_WORLDS = 2**32


def training_seeds(first: int, count: int) -> range:
    """Return image seeds for training.

    Raises:
        UsageError: they would overlap the held-out seeds.
    """
    if first < 0 or count < 1 or first + count > HELD_OUT:
        raise UsageError(
            f"scenes {first} to {first + count - 1} are not for training",
            hint=f"train on some of 0 to {HELD_OUT - 1:,}; those behind are held out",
            reason="option.value",
        )
    return range(first, first + count)


def shard_seeds(world: int, count: int) -> range:
    """Return the image seeds of the shards of a world.

    Raises:
        UsageError: no such world, or more images than it has.
    """
    return _of_world(world, count, "images", first=0)


def labelled_seeds(world: int, count: int) -> range:
    """Return the seeds of a world's images with dense labels.

    Raises:
        UsageError: as for `shard_seeds`.
    """
    return _of_world(world, count, "labelled", first=MOST_IMAGES)


def _of_world(world: int, count: int, option: str, *, first: int) -> range:
    for name, value, most in (("seed", world, MOST_WORLDS - 1), (option, count, MOST_IMAGES)):
        if not 0 <= value <= most:
            raise UsageError(
                f"{name} must be 0 to {most:,}, not {value:,}",
                hint="another --seed is another world" if name == option else None,
                reason="option.value",
            )
    start = HELD_OUT + world * 2 * MOST_IMAGES + first
    return range(start, start + count)
