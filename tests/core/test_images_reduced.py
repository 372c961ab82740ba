"""Pictures decoded at a part of their size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from curator.core.errors import Unusable
from curator.core.images import decode
from tests.kit.pictures import saved


def picture(width: int = 203, height: int = 101) -> Image.Image:
    """A smooth one, so that reducing it changes little."""
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 6, height))
    waves = [127 + 120 * np.sin(x + phase) * np.cos(y) for phase in (0, 1, 2)]
    return Image.fromarray(np.stack(waves, -1).astype(np.uint8))


@pytest.mark.parametrize(
    ("wanted", "size", "reduction"),
    [
        ((203, 101), (203, 101), 1),
        ((102, 51), (203, 101), 1),  # 2 x 51 rows would be more than there are
        ((101, 50), (102, 51), 2),
        ((50, 25), (51, 26), 4),
        ((10, 10), (26, 13), 8),  # an eighth is the most
        ((999, 1), (203, 101), 1),
    ],
)
def test_a_jpeg_comes_as_small_as_will_do(
    wanted: tuple[int, int], size: tuple[int, int], reduction: int
) -> None:
    data = saved(picture(), "JPEG", quality=95)
    found = decode(data, at_least=lambda _: wanted)
    assert (found.image.size, found.reduction) == (size, reduction)
    assert (found.info.width, found.info.height) == (203, 101)
    # The same picture: pixels of the reduced one are `reduction` wide.
    box = (0, 0, 203 / reduction, 101 / reduction)
    small = found.image.resize((10, 5), Image.Resampling.BILINEAR, box=box)
    whole = decode(data).image.resize((10, 5), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(small, int) - np.asarray(whole, int)).mean() < 3


def test_what_is_turned_or_of_another_format_comes_whole() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(picture(), "JPEG", exif=exif.tobytes())
    assert decode(data, at_least=lambda _: (10, 10)).image.size == (101, 203)
    data = saved(picture(), "PNG")
    assert decode(data, at_least=lambda _: (10, 10)).image.size == (203, 101)


def test_a_cut_jpeg_is_refused_and_a_grey_one_is_not() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), "JPEG")
    for half in (data[: len(data) // 2], data[: len(data) // 2] + b"\xff\xd9"):
        with pytest.raises(Unusable, match=r"image\.truncated"):
            decode(half, at_least=lambda _: (50, 50))
    grey = saved(Image.new("RGB", (200, 200), (128, 128, 128)), "JPEG")
    assert decode(grey, at_least=lambda _: (50, 50)).image.size == (50, 50)
