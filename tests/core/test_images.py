"""Which images are refused, and why."""

from __future__ import annotations

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from curator.core.errors import UsageError
from curator.core.images import DecodedImage, ImageInfo, Limits, decode, probe, sniff
from curator.core.reasons import REASONS
from tests.kit.pictures import (
    ALL,
    NOISE,
    PHOTO,
    chunk,
    outcome,
    pixels,
    png,
    reason,
    refused_by_probe,
    saved,
    with_exif,
)
from tests.kit.tars import image_bytes


@pytest.mark.parametrize("kind", PHOTO)
def test_what_the_header_says(kind: str) -> None:
    expected = ImageInfo(kind, 64, 48, "RGB", 1, 1, ())
    assert probe(PHOTO[kind]) == expected
    decoded = decode(PHOTO[kind])
    assert isinstance(decoded, DecodedImage)
    assert decoded.info == expected


def test_pixels_are_those_of_the_decoder() -> None:
    assert np.array_equal(np.asarray(decode(PHOTO["PNG"]).image), NOISE)


def test_empty() -> None:
    assert reason(b"") == "image.empty"


@pytest.mark.parametrize("kind", PHOTO)
def test_truncated_anywhere(kind: str) -> None:
    # Refused at every length, or decoded to exactly the pixels of the whole (a PNG that lost no
    # more than the end of its checksums).
    whole = PHOTO[kind]
    want = np.asarray(decode(whole).image)
    for length in range(20, len(whole) - 1, 61):
        found = outcome(whole[:length])
        if not isinstance(found, str):
            assert kind == "PNG"
            assert length > len(whole) - 20
            assert np.array_equal(np.asarray(found), want)
        else:
            assert found == "image.truncated", length
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_probing_decodes_no_pixel(kind: str) -> None:
    assert probe(PHOTO[kind][:800]).width == 64


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("part", [0.3, 0.5, 0.8])
def test_truncated_and_closed_with_an_end_marker(mode: str, part: float) -> None:
    # libjpeg fills up with grey and only warns; the marker is what a careless tool appends.
    whole = saved(Image.fromarray(NOISE).convert(mode), "JPEG")
    assert reason(whole[: int(len(whole) * part)] + b"\xff\xd9") == "image.truncated"


def test_a_grey_image_is_no_truncated_image() -> None:
    data = saved(Image.new("RGB", (64, 48), (128, 128, 128)), "JPEG")
    assert pixels(data)[47][63] == (128, 128, 128)


@pytest.mark.parametrize(
    "data", [b"<!DOCTYPE html>", b'{"error": 404}', b"not found", b"\0" * 100, b"II", b"\xff\xd8"]
)
def test_not_an_image(data: bytes) -> None:
    assert reason(data) == "image.not_an_image"


def test_the_content_decides() -> None:
    # There is no file name to be misled by.
    assert probe(PHOTO["PNG"]).format == "PNG"


@pytest.mark.parametrize("side", [13_400, 65_535])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_too_many_pixels_before_decoding(kind: str, side: int) -> None:
    if kind == "PNG":
        data = png(side, side, bits=8, color=2, rows=[b""])
    elif kind == "JPEG":
        # the frame header: FF C0, length, 8 bits, height, width
        at = PHOTO["JPEG"].index(b"\xff\xc0")
        size = struct.pack(">HH", side, side)
        data = PHOTO["JPEG"][: at + 5] + size + PHOTO["JPEG"][at + 9 :]
    else:
        # extended WebP: flags, reserved, width - 1 and height - 1 in 24 bits each
        canvas = b"\0" * 4 + (side - 1).to_bytes(3, "little") * 2
        chunks = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + PHOTO["WEBP"][12:]
        data = b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    assert reason(data) == "image.too_many_pixels"
    assert refused_by_probe(data)


def test_the_limit_is_an_option() -> None:
    assert reason(PHOTO["PNG"], Limits(max_pixels=64 * 48 - 1)) == "image.too_many_pixels"
    assert probe(PHOTO["PNG"], limits=Limits(max_pixels=64 * 48)).width == 64


BOMB = zlib.compress(bytes(50_000_000), 9)


@pytest.mark.parametrize(
    ("name", "data"),
    [(b"zTXt", b"Comment\0\0" + BOMB), (b"iCCP", b"icc\0\0" + BOMB)],
    ids=["zTXt", "iCCP"],
)
def test_metadata_bombs(name: bytes, data: bytes) -> None:
    bomb = png(2, 1, bits=8, color=0, rows=[b"ab"], extra=chunk(name, data))
    assert reason(bomb) == "image.metadata_bomb"


def test_a_bomb_behind_the_pixels() -> None:
    whole = png(2, 1, bits=8, color=0, rows=[b"ab"])
    bomb = whole[:-12] + chunk(b"zTXt", b"Comment\0\0" + BOMB) + whole[-12:]
    assert reason(bomb) == "image.metadata_bomb"


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (1, 1, "image.too_small"),
        (3, 100, "image.too_small"),
        (27, 27, "image.too_small"),
        (5000, 10, "image.aspect"),
        (28 * 201, 28, "image.aspect"),
    ],
)
def test_too_small_or_too_long(width: int, height: int, expected: str) -> None:
    data = saved(Image.new("RGB", (width, height)), "PNG")
    assert reason(data, Limits()) == expected
    assert refused_by_probe(data, Limits())


def test_the_smallest_that_passes() -> None:
    assert probe(saved(Image.new("RGB", (28 * 200, 28)), "PNG")).height == 28


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0", "EPS"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- made by hand -->\n<svg>", "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"SIMPLE  =                    T", "FITS"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
        (saved(Image.new("RGB", (32, 32)), "GIF"), "GIF"),
        (saved(Image.new("RGB", (32, 32)), "BMP"), "BMP"),
        (saved(Image.new("RGB", (32, 32)), "TIFF"), "TIFF"),
        (saved(Image.new("RGB", (32, 32)), "JPEG2000"), "JPEG 2000"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_formats_that_are_not_read(data: bytes, name: str) -> None:
    assert sniff(data) == name
    assert reason(data) == "image.format_not_allowed"


def test_a_tiff_of_several_pages_even_where_tiff_is_allowed() -> None:
    page = Image.new("RGB", (32, 32))
    data = saved(page, "TIFF", save_all=True, append_images=[page])
    assert reason(data, ALL) == "image.format_not_allowed"


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_formats_by_option(kind: str) -> None:
    data = saved(Image.new("RGB", (32, 32), (255, 0, 0)), kind)
    assert pixels(data, ALL)[0][0] == (255, 0, 0)


def progressive(num_scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = saved(Image.fromarray(NOISE), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * num_scans + b"\xff\xd9"


def test_a_progressive_jpeg_of_10_000_scans() -> None:
    assert reason(progressive(10_000)) == "image.decode_timeout"


def test_a_usual_progressive_jpeg() -> None:
    assert pixels(progressive(1))


def test_a_jpeg_with_a_second_picture_inside_is_a_jpeg() -> None:
    # What phones write (MPO); Pillow's own opener would announce another format.
    frames = [Image.fromarray(NOISE), Image.new("RGB", (64, 48))]
    data = saved(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert probe(data).format == "JPEG"
    assert probe(data).n_frames == 1


def test_twelve_bit_jpeg() -> None:
    at = PHOTO["JPEG"].index(b"\xff\xc0")
    data = PHOTO["JPEG"][: at + 4] + b"\x0c" + PHOTO["JPEG"][at + 5 :]
    assert reason(data) == "image.format_not_allowed"


def test_limits_are_checked() -> None:
    for options in (
        {"formats": ("EPS",)},
        {"formats": ()},
        {"max_pixels": 0},
        {"min_side_px": 0},
        {"max_aspect": 0.5},
    ):
        with pytest.raises(UsageError, match=next(iter(options))):
            Limits(**options)  # type: ignore[arg-type]  # wrong on purpose


def test_decoding_in_threads() -> None:
    # Good ones, broken ones and ones that make Pillow warn, side by side; warnings are errors here.
    broken = with_exif(b"Exif\0\0II\x2a\0\x08\0\0\0\xff\xff")
    jobs = [*PHOTO.values(), broken, b"", PHOTO["JPEG"][:500]] * 40

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(outcome, jobs)) == [outcome(data) for data in jobs]


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(sorted(PHOTO)),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(min_size=1, max_size=8)), max_size=5),
    cut=st.integers(0, 10**6),
)
def test_damaged_bytes_raise_nothing_but_unusable(
    kind: str, edits: list[tuple[int, bytes]], cut: int
) -> None:
    data = bytearray(PHOTO[kind])
    for at, new in edits:
        # Half of the edits into the header, where the interesting fields are.
        start = at % (200 if at % 2 else len(data))
        data[start : start + len(new)] = new
    damaged = bytes(data[: len(data) - (cut % len(data) if cut % 3 == 0 else 0)])
    found = outcome(damaged, Limits(min_side_px=1, max_pixels=10**6))
    assert found in REASONS if isinstance(found, str) else found.mode == "RGB"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_unusable(data: bytes) -> None:
    reason(data)


def test_the_small_image_of_the_shard_builders_is_valid() -> None:
    assert probe(image_bytes()).width == 32
