"""Find tar shards and scan their content.

One pass over a shard returns its digest, every sample with the offsets of its files, and every
problem. Damaged data raises nothing: an unusable sample has a reason and is still counted, and
problems of the shard are listed beside the samples.

Files are memory-mapped, and mapped pages are released, so memory does not grow with the shard.
Every byte is hashed once, for its image and for the shard (`curator.shards.digest`). A file that
another process truncates while it is mapped kills the process (SIGBUS), which the executor reports;
any other change is detected at the end of the pass.

`curator.shards.grouping` groups members into samples, `curator.shards.alttext` picks the alt text.
Two rules that are easy to miss: a json member is opened only if the alt text is in it, or to search
for other texts if there is none, so a broken one is otherwise harmless; members of an unsafe type
(.pkl, .pth, ...) are counted and belong to no sample.
"""

from __future__ import annotations

import json
import mmap
import os
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from curator.core import images
from curator.core.errors import StorageError, Unusable, UsageError
from curator.shards import alttext, alttext_counts
from curator.shards.alttext_counts import AltTexts
from curator.shards.dataset import ShardRef
from curator.shards.digest import Parts, release
from curator.shards.grouping import Fragment, Grouping
from curator.shards.objects import Remote
from curator.shards.places import Place, changed, local, read_small
from curator.shards.samples import Member, ScannedSample
from curator.shards.tar import (
    DEFAULT_MAX_MEMBER_BYTES,
    MAX_NAME_HEADER_BYTES,
    Buffer,
    Problem,
    walk,
)

MAX_STATS_BYTES = 10_000_000
_STEP_BYTES = 8 * 1024 * 1024

# Extension -> format, to note a name that contradicts its content. All of them count as images,
# including refused ones: an .svg is a refused image, not a sample without an image.
_FORMAT_OF_EXT = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "JPEG"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **{ext: ext.upper() for ext in ("png", "webp", "gif", "bmp", "avif", "heic", "heif", "svg")},
    **{ext: ext.upper() for ext in ("jp2", "jxl", "ico", "psd", "eps", "ppm")},
}
IMAGE_EXT = frozenset(_FORMAT_OF_EXT)


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """Options for reading shards.

    `caption_field` is where the alt text is, as `alttext.Place` parses it: a field of the .json
    (a dotted path), or a file such as .caption; None looks for a text file. `image_ext` are the
    only extensions that count as images, for samples with several images; ("any",) is every image,
    as is None, but stated. The others are limits; those of images as in `images.Limits`.

    Raises:
        UsageError: a field is out of range; names the field.
    """

    caption_field: str | None = None
    image_ext: tuple[str, ...] | None = None
    max_member_bytes: int = DEFAULT_MAX_MEMBER_BYTES
    image_formats: tuple[str, ...] = images.DEFAULT_LIMITS.formats
    max_pixels: int = images.DEFAULT_LIMITS.max_pixels
    min_side_px: int = images.DEFAULT_LIMITS.min_side_px
    max_aspect: float = images.DEFAULT_LIMITS.max_aspect

    def __post_init__(self) -> None:
        if self.caption_field is not None:
            alttext.Place.parse(self.caption_field)
        if self.image_ext is not None and not all(
            ext and ext == ext.lower().lstrip(".") for ext in self.image_ext or ("",)
        ):
            raise UsageError(
                f"image_ext is {', '.join(map(repr, self.image_ext)) or 'empty'}",
                hint="allowed: an extension in lower case, without a dot, such as jpg or seg.png",
                reason="option.value",
            )
        if self.max_member_bytes < MAX_NAME_HEADER_BYTES:
            raise UsageError(
                f"max_member_bytes is {self.max_member_bytes}",
                hint=f"allowed: {MAX_NAME_HEADER_BYTES} or more",
                reason="option.value",
            )
        self.limits  # noqa: B018 - evaluated here so that a bad limit raises here

    @cached_property
    def pictures(self) -> frozenset[str]:
        """Return the extensions that count as images."""
        is_any = self.image_ext is None or self.image_ext == ("any",)
        return IMAGE_EXT if is_any else frozenset(self.image_ext or ())

    @cached_property
    def limits(self) -> images.Limits:
        """Return the limits on images; all later decoding uses the same."""
        return images.Limits(
            formats=self.image_formats,
            max_pixels=self.max_pixels,
            min_side_px=self.min_side_px,
            max_aspect=self.max_aspect,
        )


@dataclass(frozen=True, slots=True)
class ShardScan:
    """A scanned shard. `digest` is that of `curator.shards.digest`; empty if it was not opened."""

    name: str
    digest: str
    size_bytes: int
    samples: list[ScannedSample]
    problems: list[Problem]
    num_unsafe: int
    alt_texts: AltTexts = field(default_factory=AltTexts)


def scan_shard(ref: ShardRef, *, options: ScanOptions) -> ShardScan:
    """Scan one shard from its first byte to its last.

    A shard that cannot be opened returns a scan with the single problem `shard.missing`.

    Raises:
        DamageError: source.changed, the file changed during the scan.
        StorageError: the file was opened, but reading it fails.
    """
    if isinstance(ref.path, Remote):
        if not ref.path.exists():
            problem = Problem("shard.missing", "no such object", 0)
            return ShardScan(ref.name, "", 0, [], [problem], 0)
        with local(ref.path) as path:
            return _scan_file(ref, path, options)
    return _scan_file(ref, ref.path, options)


def _scan_file(ref: ShardRef, path: Path, options: ScanOptions) -> ShardScan:
    """Scan the bytes in a local file, which is the shard or a copy of it."""
    try:
        if not path.is_file():  # opening a FIFO would wait for a writer
            raise FileNotFoundError("no such file")
        file = path.open("rb")
    except OSError as exc:
        problem = Problem("shard.missing", exc.strerror or str(exc), 0)
        return ShardScan(ref.name, "", 0, [], [problem], 0)
    try:
        with file:
            before = os.fstat(file.fileno())
            size = before.st_size
            # An empty file cannot be mapped.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
            try:
                scan = _scan(ref, b"" if mapped is None else mapped, options)
            finally:
                if mapped is not None:
                    mapped.close()
            after = os.fstat(file.fileno())
    except OSError as exc:
        raise StorageError(f"cannot read: {exc.strerror or exc}", where=ref.path) from exc
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise changed(ref.path, "it was written to during the scan")
    return scan


def _scan(ref: ShardRef, buffer: Buffer, options: ScanOptions) -> ShardScan:
    grouping = Grouping()
    parts = Parts(buffer)
    samples: list[ScannedSample] = []
    behind = 0
    found = walk(buffer, max_member_bytes=options.max_member_bytes)
    for fragment in grouping.run(found):
        samples.append(_examine(fragment, len(samples), buffer, parts, options))
        reached = fragment.members[-1].offset if fragment.members else 0
        if reached - behind > _STEP_BYTES:
            parts.advance(reached)
            behind = release(buffer, behind, reached)
    for row, reason, detail in grouping.unusable_keys():
        samples[row] = replace(samples[row], reason=reason, detail=detail)
    return ShardScan(
        ref.name,
        parts.finish(),
        len(buffer),
        samples,
        grouping.problems() + _compare_stats(ref.path, len(samples)),
        grouping.num_unsafe,
        alttext_counts.tally(samples, partial(_bytes_of, buffer)),
    )


def _bytes_of(buffer: Buffer, member: Member) -> bytes:
    return buffer[member.offset : member.offset + member.length]


def _examine(
    fragment: Fragment, row: int, buffer: Buffer, parts: Parts, options: ScanOptions
) -> ScannedSample:
    """Check one fragment. The first reason wins: the archive's, the image's, the alt text's."""
    read = partial(_bytes_of, buffer)
    members = tuple(fragment.members)
    flags = ["key.dotted"] if any("." in member.ext for member in members) else []
    sha256 = info = alt = None
    reason, detail = fragment.reason, fragment.detail
    pictures = alttext.pick(members, options.pictures)
    image = pictures[0] if len(pictures) == 1 else None
    try:
        if reason is not None:
            raise Unusable(reason, detail)
        if image is None:
            raise _no_one_image(fragment, pictures)
        sha256 = parts.sha256(image.offset, image.length)
        info = images.probe(read(image), limits=options.limits)
        flags += info.notes
        if _FORMAT_OF_EXT.get(image.ext.lower().rpartition(".")[2], info.format) != info.format:
            flags.append("image.ext_mismatch")
        alt = alttext.read_alt_text(members, image=image, read=read, field=options.caption_field)
        flags += alt.flags
        if alt.text is None and fragment.loss is not None:
            raise Unusable(
                fragment.loss.reason, f"no alt text, next to damage: {fragment.loss.detail}"
            )
    except Unusable as unusable:
        reason, detail = unusable.reason, unusable.detail
    return ScannedSample(
        key=fragment.key,
        row=row,
        members=members,
        image=image,
        image_sha256=sha256,
        width=info.width if info else None,
        height=info.height if info else None,
        image_format=info.format if info else None,
        alt_text=alt.text if alt else None,
        alt_raw=alt.raw if alt else None,
        alt_source=alt.source if alt else None,
        flags=tuple(flags),
        reason=reason,
        detail=detail,
    )


def _no_one_image(fragment: Fragment, pictures: list[Member]) -> Unusable:
    if len(pictures) > 1:
        return Unusable("sample.ambiguous_image", ", ".join(one.ext for one in pictures)[:500])
    if fragment.loss is not None:
        return Unusable(fragment.loss.reason, f"no image, next to damage: {fragment.loss.detail}")
    return Unusable("sample.no_image", ", ".join(one.ext for one in fragment.members)[:500])


def _compare_stats(tar: Place, num_samples: int) -> list[Problem]:
    """Compare with the count that img2dataset writes beside a shard (00000_stats.json), if any."""
    path = tar.with_name(f"{tar.stem}_stats.json")
    try:
        data = read_small(path, most_bytes=MAX_STATS_BYTES)
        if data is None:
            return []
        expected = int(json.loads(data)["successes"])
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as exc:
        return [Problem("shard.count_mismatch", f"{path.name} cannot be read: {exc}"[:500], 0)]
    if expected <= num_samples:
        return []
    return [Problem("shard.count_mismatch", f"{num_samples} of {expected} samples found", 0)]
