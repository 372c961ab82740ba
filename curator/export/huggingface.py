"""What Hugging Face asks of tars, checked before anything is written, and how to upload them.

`load_dataset` takes the columns from the first five samples of the first tar: all five must have
the same extensions, and an extension that first occurs later is not read at all (datasets,
packaged_modules/webdataset). So every image gets the same extension, whatever its format: readers
detect the format from the bytes. Other files must have the same extensions in all samples.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from curator.core.errors import UsageError
from curator.export.samples import others_of
from curator.export.shards import exported_samples
from curator.shards.places import Place
from curator.store.store import Store
from curator.store.versions import Version


@dataclass(frozen=True, slots=True)
class ImageNames:
    """`image_ext` is the extension of every image; `formats` counts the source's extensions."""

    image_ext: str
    formats: Mapping[str, int]

    @property
    def is_mixed(self) -> bool:
        """Whether the source has several image extensions, so that some images are renamed."""
        return len(self.formats) > 1

    def formats_in_words(self) -> str:
        """Format the counts, such as `4 jpg, 2 png`."""
        return ", ".join(f"{number:,} {ext}" for ext, number in self.formats.items())


def layout(store: Store, version: Version, *, other_members: bool) -> ImageNames:
    """Determine the image extension that an export must use.

    Raises:
        UsageError: with `other_members`, the samples do not all have the same files.
    """
    formats: Counter[str] = Counter()
    others: Counter[tuple[str, ...]] = Counter()
    for entry in version.shards:
        for sample in exported_samples(store, entry):
            formats[sample.plain_ext] += 1
            others[tuple(sorted(one.ext.lower() for one in others_of(sample)))] += 1
    ranked = dict(sorted(formats.items(), key=lambda item: (-item[1], item[0])))
    image_ext = next(iter(ranked), "jpg")
    clash = any(image_ext in names for names in others)
    if other_members and (len(others) > 1 or clash):
        shown = "; ".join(
            f"{', '.join(names) or 'none'} in {number:,} samples"
            for names, number in others.most_common(3)
        )
        raise UsageError(
            f"load_dataset reads only members that every sample has; the other members are {shown}",
            did="nothing was written",
            hint="leave out --other-members, or export --to wds",
            reason="option.value",
        )
    return ImageNames(image_ext, ranked)


def upload_command(out: Place) -> str:
    """Return the command of `huggingface_hub` that publishes a folder and can be run again."""
    return f"hf upload ORGANISATION/NAME {shlex.quote(str(out))} . --repo-type dataset"
