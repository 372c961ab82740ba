"""Decode the bytes of one image to its header, or to RGB pixels. The only image decoder here.

Scorers, captioners, dashboard and export all decode here, so they see the same image: first frame,
EXIF orientation applied once, transparency over white, 16 bits scaled to 8.

Nothing is guessed or decoded blindly: the format is taken from the bytes, never from a file name;
the size is checked in the header before a pixel is decoded; an image that ends early is refused.
Unusable images raise `errors.Unusable` with a reason of the decode stage. A decoder that hangs or
crashes is not handled here: that needs a process around it (`curator.engine.executors`).

Thread-safe: calls share nothing, and decoding releases the GIL. Reading the header
of a JPEG costs about 30 us.

Colour profiles are not applied, as in open_clip and img2dataset: CLIP models were trained on such
pixels. CMYK JPEGs are read as Adobe writes them (inverted), with or without its marker, as browsers
do. A JPEG that was cut and then closed with an end marker is detected if the missing part is flat
grey; a progressive one that lost only its finer scans cannot be detected.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from curator.core.errors import Unusable, check_value

DEFAULT_FORMATS = ("JPEG", "PNG", "WEBP")

# The plugin classes are called directly: `Image.open` would import plugins on first use (a race
# between threads), turn a JPEG with a second image inside into an MPO, and check the size against a
# global variable.
_OPENERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "WEBP": WebPImageFile,
    "GIF": GifImageFile,
    "BMP": BmpImageFile,
    "TIFF": TiffImageFile,
}

_MAGIC: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), name)
    for pattern, name in (
        (rb"\xff\xd8\xff", "JPEG"),
        (rb"\x89PNG\r\n\x1a\n", "PNG"),
        (rb"RIFF....WEBP", "WEBP"),
        (rb"GIF8[79]a", "GIF"),
        (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
        (rb"II[\x2a\x2b]\0|MM\0[\x2a\x2b]", "TIFF"),
        (rb"....ftyp(hei|hev|mif1|msf1)", "HEIC"),
        (rb"....ftypavi[fs]", "AVIF"),
        (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL"),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "EPS"),
        (rb"%PDF-", "PDF"),
        (rb"SIMPLE  =", "FITS"),
        (rb"8BPS", "PSD"),
        (rb"\0\0\x01\0", "ICO"),
        (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg", "SVG"),
    )
)

# More scans than any encoder writes (about 10). Each costs a pass over all coefficients, so a small
# file with thousands keeps a core busy for minutes. The two bytes also occur in metadata by chance,
# about 16 times per megabyte.
MAX_JPEG_SCANS = 500
_START_OF_SCAN = b"\xff\xda"
_END_OF_IMAGE = b"\xff\xd9"

# EXIF orientation -> the operation that turns the pixels upright (EXIF 2.32, tag 0x0112)
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {5, 6, 7, 8}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on accepted images.

    `formats` are names among JPEG, PNG, WEBP, GIF, BMP, TIFF. The defaults of `min_side_px` and
    `max_aspect` (long side / short side) are what vision-language models with 14-pixel patches
    accept: 28 and 200. `animated=False` refuses animations instead of taking their first frame.

    Raises:
        UsageError: a field is out of range; names the field.
    """

    formats: tuple[str, ...] = DEFAULT_FORMATS
    max_pixels: int = 89_500_000
    min_side_px: int = 28
    max_aspect: float = 200.0
    animated: bool = True

    def __post_init__(self) -> None:
        unknown = sorted(set(self.formats) - set(_OPENERS))
        known = bool(self.formats) and not unknown
        check_value(known, "formats", unknown or self.formats, ", ".join(_OPENERS))
        for name in ("max_pixels", "min_side_px", "max_aspect"):
            value = getattr(self, name)
            check_value(value >= 1, name, value, "1 or more")


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Header of an image. `width` and `height` are as displayed, after the EXIF orientation.

    `mode` is Pillow's name for the stored pixels. `notes` are codes for people and policies:
    `mode_was.<mode>` when the pixels are not plain RGB, grey or 1-bit, `n_frames.<n>`,
    `exif.orientation.<n>`, `exif.broken`.
    """

    format: str
    width: int
    height: int
    mode: str
    n_frames: int
    orientation: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An RGB `image`, upright, of `info.width` x `info.height` pixels divided by `reduction`.

    Sizes are rounded up, so the last column and row may extend past the image.
    """

    image: Image.Image
    info: ImageInfo
    reduction: int = 1


def sniff(data: bytes) -> str | None:
    """Return the format that the first bytes announce, allowed or not; None if not an image."""
    head = data[:1024]
    return next((name for magic, name in _MAGIC if magic.match(head)), None)


def probe(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> ImageInfo:
    """Read the header only and check it against `limits`.

    Raises:
        Unusable: reason image.*; an image that passes may still be damaged after its header.
    """
    with _decoding(data):
        return _describe(_open(data, limits), data, limits)


def decode(
    data: bytes,
    *,
    limits: Limits = DEFAULT_LIMITS,
    at_least: Callable[[ImageInfo], tuple[int, int]] | None = None,
) -> DecodedImage:
    """Decode the first frame to upright RGB over white.

    `at_least` returns the (width, height) needed for an image with that header. An upright JPEG is
    then decoded at a half, a quarter or an eighth of its size where that suffices, in half the
    time: libjpeg skips the fine detail of each block.

    Raises:
        Unusable: reason image.*; a truncated image is refused, never padded.
    """
    with _decoding(data):
        image = _open(data, limits)
        info = _describe(image, data, limits)
        if info.format == "JPEG" and data.count(_START_OF_SCAN) > MAX_JPEG_SCANS:
            raise Unusable("image.decode_timeout", f"more than {MAX_JPEG_SCANS} scans")
        reduction = 1
        if at_least is not None and info.format == "JPEG" and info.orientation == 1:
            reduction = _reduce(image, at_least(info))
        image.load()
        if info.format == "JPEG" and _is_grey_filled(image, data, reduction):
            raise Unusable("image.truncated", "data is missing before the end marker")
        # Pillow applies a TIFF's orientation itself while loading.
        turn = _UPRIGHT.get(info.orientation) if info.format != "TIFF" else None
        rgb = _to_rgb(image)
        upright = rgb if turn is None else rgb.transpose(turn)
        return DecodedImage(upright, info, reduction)


def _reduce(image: ImageFile.ImageFile, size: tuple[int, int]) -> int:
    """Have a JPEG decoded at reduced size, not below `size`; return the divisor."""
    width = image.width
    drafted = image.draft(None, size)
    # The box that Pillow returns is the image size in units of reduced pixels.
    return 1 if drafted is None else round(width / drafted[1][2])


def _open(data: bytes, limits: Limits) -> ImageFile.ImageFile:
    if not data:
        raise Unusable("image.empty", "0 bytes")
    name = sniff(data)
    if name is None:
        raise Unusable("image.not_an_image", f"starts with {data[:24]!r}")
    if name not in limits.formats:
        raise Unusable("image.format_not_allowed", name)
    if name == "WEBP":
        # Pillow allocates the canvas while opening, so the size must be checked first.
        _check_size(_webp_size(data), limits)
    image = _OPENERS[name](BytesIO(data))
    if name == "JPEG" and not image.tile:
        raise Unusable("image.truncated", "ends before its first scan")
    return image


def _webp_size(data: bytes) -> tuple[int, int]:
    """Read (width, height) from the first 30 bytes (RFC 9649, 2.5 to 2.7); (1, 1) if odd."""
    head = data[:30].ljust(30, b"\0")
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = (int.from_bytes(head[at : at + 2], "little") & 0x3FFF for at in (26, 28))
        return width, height
    return 1, 1


def _check_size(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise Unusable(
            "image.too_many_pixels", f"{width} x {height} px, limit {limits.max_pixels} pixels"
        )


def _describe(image: ImageFile.ImageFile, data: bytes, limits: Limits) -> ImageInfo:
    _check_size(image.size, limits)
    width, height = image.size
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Unusable("image.aspect", f"{width} x {height} px")
    if min(width, height) < limits.min_side_px:
        raise Unusable("image.too_small", f"{width} x {height} px")
    kind = str(image.format)
    n_frames = int(getattr(image, "n_frames", 1))
    if n_frames > 1 and (kind == "TIFF" or not limits.animated):
        raise Unusable("image.format_not_allowed", f"{kind} of {n_frames} pages or frames")
    orientation, broken = _orientation(image, data)
    if orientation in _SIDEWAYS and kind != "TIFF":  # Pillow's size of a TIFF is upright already
        width, height = height, width
    plain = image.mode in {"RGB", "L", "1"} and "transparency" not in image.info
    notes = (
        (not plain, f"mode_was.{image.mode}"),
        (n_frames > 1, f"n_frames.{n_frames}"),
        (orientation != 1, f"exif.orientation.{orientation}"),
        (broken, "exif.broken"),
    )
    said = tuple(note for holds, note in notes if holds)
    return ImageInfo(kind, width, height, image.mode, n_frames, orientation, said)


def _orientation(image: Image.Image, data: bytes) -> tuple[int, bool]:
    """Return (EXIF orientation 1 to 8, whether the EXIF is broken); broken counts as upright."""
    try:
        if image.format == "TIFF":
            exif = image.getexif()
        else:
            # Not `getexif()`: for a PNG it decodes all pixels first.
            block = _png_exif(data) if image.format == "PNG" else image.info.get("exif")
            if block is None:
                return 1, False
            exif = Image.Exif()
            exif.load(block)
        value = exif.get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - broken EXIF raises any of a dozen types
        return 1, True
    if value == 0:  # written by some tools for "unknown"
        return 1, False
    if not isinstance(value, int) or not 1 <= value <= 8:  # noqa: PLR2004 - the range of the tag
        return 1, True
    # Pillow skips a tag it cannot read with a warning; if no tag is left, the block is broken.
    return value, len(exif) == 0


def _png_exif(data: bytes) -> bytes | None:
    """Return the eXIf chunk, which may be before or after the pixels (PNG 3, 11.3.4.5)."""
    at = 8
    if b"eXIf" not in data:
        return None
    while at + 8 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"eXIf":
            return data[at + 8 : end]
        at = end + 4
    return None


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to RGB; transparency over white, 16 bits lose their low byte."""
    transparency = image.info.get("transparency")
    if image.mode.startswith("I;16"):
        grey_HW = np.asarray(image)
        eight_HW = np.right_shift(grey_HW, 8).astype(np.uint8)
        if isinstance(transparency, int):
            eight_HW = np.where(grey_HW == transparency, np.uint8(255), eight_HW)
        return Image.fromarray(eight_HW).convert("RGB")
    if image.mode in {"I", "F"}:
        raise Unusable("image.format_not_allowed", f"pixels of 32 bits (mode {image.mode})")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None, "None is returned for in-place conversion only"
        return converted
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _is_grey_filled(image: Image.Image, data: bytes, reduction: int) -> bool:
    """Whether libjpeg padded a cut JPEG that was closed with an end marker.

    libjpeg only warns then, and Pillow drops the warning. The missing part decodes to exact
    mid-grey, so only an image whose last pixel is grey is decoded again: bytes inserted before the
    end marker change the pixels if data is missing there, and are skipped if it is not.
    """
    corner = image.getpixel((image.width - 1, image.height - 1))
    grey = 128
    if set(corner if isinstance(corner, tuple) else (corner,)) - {grey, 255 - grey}:
        return False
    end = data.rfind(_END_OF_IMAGE)
    stuffed = data[:end] + b"\x5a\xa5\x3c" * 32 + data[end:]
    with JpegImageFile(BytesIO(stuffed)) as again:
        _reduce(again, (again.width // reduction, again.height // reduction))
        again.load()
        return again.tobytes() != image.tobytes()


_QUIET = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def _decoding(data: bytes) -> Iterator[None]:
    """Convert everything Pillow reports: drop its warnings, map its exceptions to `Unusable`."""
    # Not `catch_warnings`, which swaps global state and is not safe in threads. The filter holds
    # for Pillow's modules only; `ImageInfo.notes` reports the same facts.
    if warnings.filters[:1] != [_QUIET]:
        warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    except (Unusable, MemoryError):
        raise
    except Image.DecompressionBombError as exc:
        raise Unusable("image.too_many_pixels", str(exc)) from exc
    except Exception as exc:  # Pillow raises a dozen types on damaged data, some of them unintended
        raise Unusable(_reason(exc, data), f"{type(exc).__name__}: {exc}"[:500]) from exc


def _reason(exc: Exception, data: bytes) -> str:
    text = str(exc).lower()
    if "decompressed data too large" in text or "too much memory used in text" in text:
        return "image.metadata_bomb"
    if "cannot handle" in text:  # 12-bit and lossless JPEGs
        return "image.format_not_allowed"
    cut_webp = data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data)
    cut_png = data[:4] == b"\x89PNG" and b"IEND" not in data
    cut_jpeg = data[:2] == b"\xff\xd8" and _START_OF_SCAN not in data
    if "truncated" in text or "incomplete" in text or cut_webp or cut_png or cut_jpeg:
        return "image.truncated"
    return "image.corrupt"
