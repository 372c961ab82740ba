"""Every kind of pixels as upright RGB."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from curator.core.images import Limits, decode, probe
from tests.kit.pictures import ALL, PHOTO, chunk, notes, pixels, png, reason, saved, with_exif


def test_cmyk() -> None:
    # Full cyan, nothing else. Pillow writes it inverted with Adobe's marker, as Photoshop does.
    data = saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG")
    assert b"Adobe" in data
    assert pixels(data)[0][0] == (0, 255, 255)
    assert notes(data) == ("mode_was.CMYK",)


def test_cmyk_without_adobes_marker() -> None:
    data = saved(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG")
    at = data.index(b"\xff\xee")
    length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    assert pixels(data[:at] + data[at + length :])[0][0] == (0, 255, 255)


def test_lab() -> None:
    # Pillow keeps a and b with 128 as neutral. L 255 of 255 is white (within rounding), L 0 black.
    for lightness, rgb in ((255, (255, 255, 255)), (0, (0, 0, 0))):
        data = saved(Image.new("LAB", (4, 4), (lightness, 128, 128)), "TIFF")
        assert np.abs(np.subtract(pixels(data, ALL)[0][0], rgb)).max() <= 1
        assert notes(data, ALL) == ("mode_was.LAB",)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_pixels_are_white(kind: str) -> None:
    # Hidden red behind alpha 0 must not show; half of pure red over white is (255, 127, 127):
    # 255 - 255 * 128 / 255 = 127.
    image = Image.new("RGBA", (2, 1))
    image.putdata([(255, 0, 0, 0), (255, 0, 0, 128)])
    options = {} if kind == "PNG" else {"lossless": True, "exact": True}
    assert pixels(saved(image, kind, **options))[0] == [(255, 255, 255), (255, 127, 127)]
    assert notes(saved(image, kind, **options)) == ("mode_was.RGBA",)


def test_grey_with_alpha() -> None:
    data = saved(Image.new("LA", (1, 1), (0, 0)), "PNG")
    assert pixels(data) == [[(255, 255, 255)]]


PALETTE = chunk(b"PLTE", bytes((255, 0, 0, 0, 0, 255)))  # 0 red, 1 blue


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (b"\0", [(255, 255, 255), (0, 0, 255)]),  # one index clear: Pillow gives an int
        (b"\x80\0", [(255, 127, 127), (255, 255, 255)]),  # alpha values: Pillow gives bytes
        (None, [(255, 0, 0), (0, 0, 255)]),
    ],
    ids=["index", "bytes", "none"],
)
def test_palette(alpha: bytes | None, expected: list[tuple[int, ...]]) -> None:
    extra = PALETTE if alpha is None else PALETTE + chunk(b"tRNS", alpha)
    data = png(2, 1, bits=8, color=3, rows=[b"\0\1"], extra=extra)
    assert pixels(data)[0] == expected
    assert notes(data) == ("mode_was.P",)


def test_a_colour_that_is_transparent() -> None:
    key = chunk(b"tRNS", struct.pack(">3H", 255, 0, 0))
    data = png(2, 1, bits=8, color=2, rows=[bytes((255, 0, 0, 1, 2, 3))], extra=key)
    assert pixels(data)[0] == [(255, 255, 255), (1, 2, 3)]


RAMP = struct.pack(">6H", 0, 0x00FF, 0x1234, 0x7FFF, 0x8000, 0xFFFF)
SHIFTED = [0, 0, 0x12, 0x7F, 0x80, 0xFF]


def test_sixteen_bit_grey_png() -> None:
    # Clipping would make all but the first two 255.
    data = png(6, 1, bits=16, color=0, rows=[RAMP])
    assert pixels(data)[0] == [(value,) * 3 for value in SHIFTED]
    assert notes(data) == ("mode_was.I;16",)


def test_sixteen_bit_grey_png_with_a_transparent_value() -> None:
    key = chunk(b"tRNS", struct.pack(">H", 0x1234))
    data = png(6, 1, bits=16, color=0, rows=[RAMP], extra=key)
    assert pixels(data)[0][2] == (255, 255, 255)
    assert pixels(data)[0][3] == (0x7F,) * 3


def test_sixteen_bit_rgb_png() -> None:
    data = png(2, 1, bits=16, color=2, rows=[RAMP])
    assert pixels(data)[0] == [tuple(SHIFTED[:3]), tuple(SHIFTED[3:])]


def test_sixteen_bit_grey_with_alpha_png() -> None:
    data = png(1, 1, bits=16, color=4, rows=[struct.pack(">2H", 0x1234, 0xFFFF)])
    assert pixels(data)[0] == [(0x12,) * 3]


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_sixteen_bit_grey_tiff(order: str) -> None:
    # A TIFF by hand: Pillow writes the byte order of the machine only.
    tags = [(256, 6), (257, 1), (258, 16), (259, 1), (262, 1), (273, 110), (277, 1), (278, 1)]
    tags.append((279, 12))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    entries = b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    data = head + struct.pack(f"{order}H", len(tags)) + entries
    data = data.ljust(8 + 2 + 12 * 9 + 4, b"\0")
    at = len(data)  # 122: put the offset of the pixels right
    data = data.replace(
        struct.pack(f"{order}HHIH", 273, 3, 1, 110), struct.pack(f"{order}HHIH", 273, 3, 1, at)
    )
    data += struct.pack(f"{order}6H", *struct.unpack(">6H", RAMP))
    assert pixels(data, ALL)[0] == [(value,) * 3 for value in SHIFTED]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_thirty_two_bits_have_no_known_range(mode: str) -> None:
    assert reason(saved(Image.new(mode, (4, 4)), "TIFF"), ALL) == "image.format_not_allowed"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), color) for color in ("red", "blue", "lime")]
    options = {"save_all": True, "append_images": frames[1:], "duration": 100}
    if kind == "WEBP":
        options["lossless"] = True
    data = saved(frames[0], kind, **options)
    assert pixels(data, ALL)[0][0] == (255, 0, 0)
    assert "n_frames.3" in notes(data, ALL)
    assert probe(data, limits=ALL).n_frames == 3
    still = Limits(formats=ALL.formats, animated=False)
    assert reason(data, still) == "image.format_not_allowed"


# 2 x 2 pixels as they are to be seen, and for each orientation the stored pixels that must be
# turned into them (EXIF 2.32: where row 0 and column 0 of the stored image are to be seen).
A, B, C, D = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
STORED = {
    1: [A, B, C, D],  # row 0 at the top, column 0 at the left
    2: [B, A, D, C],  # top, right
    3: [D, C, B, A],  # bottom, right
    4: [C, D, A, B],  # bottom, left
    5: [A, C, B, D],  # left, top
    6: [B, D, A, C],  # right, top: a camera held upright
    7: [D, B, C, A],  # right, bottom
    8: [C, A, D, B],  # left, bottom
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation_once(kind: str, orientation: int) -> None:
    image = Image.new("RGB", (2, 2))
    image.putdata(STORED[orientation])
    image = image.resize((64, 32), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(image, kind, exif=exif, **options)
    seen = decode(data, limits=ALL)
    assert (seen.info.width, seen.info.height) == ((64, 32) if orientation < 5 else (32, 64))
    assert seen.image.size == (seen.info.width, seen.info.height)
    assert probe(data, limits=ALL) == seen.info
    assert seen.info.orientation == orientation
    assert seen.info.notes == (() if orientation == 1 else (f"exif.orientation.{orientation}",))
    width, height = seen.image.size
    quarters = [(x * width // 4, y * height // 4) for y in (1, 3) for x in (1, 3)]
    found = [seen.image.getpixel(at) for at in quarters]
    for got, want in zip(found, (A, B, C, D), strict=True):
        assert np.abs(np.subtract(got, want)).max() <= 8  # JPEG rounds


def test_exif_behind_the_pixels_of_a_png() -> None:
    block = b"II\x2a\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"
    data = PHOTO["PNG"][:-12] + chunk(b"eXIf", block) + PHOTO["PNG"][-12:]
    assert (probe(data).width, probe(data).height) == (48, 64)
    assert decode(data).image.size == (48, 64)


@pytest.mark.parametrize(
    "block",
    [
        b"Exif\0\0garbage!",
        b"Exif\0\0",
        b"Exif\0\0II\x2a\0\x08\0\0\0\xff\xff",  # an IFD of 65,535 entries that is not there
        b"Exif\0\0II\x2a\0\xff\xff\xff\x7f",  # an IFD beyond the end
        b"Exif\0\0II\x2a\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x63\0\0\0\0\0\0\0",  # orientation 99
    ],
    ids=["no_tiff", "nothing", "entries", "offset", "orientation_99"],
)
def test_broken_exif_is_ignored_with_a_note(block: bytes) -> None:
    data = with_exif(block)
    assert notes(data) == ("exif.broken",)
    assert pixels(data) == pixels(PHOTO["JPEG"])


def test_orientation_0_means_unknown() -> None:
    block = b"Exif\0\0II\x2a\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\0\0\0\0\0\0\0\0"
    assert notes(with_exif(block)) == ()
