"""Write the README.md of an exported version: a dataset card for the Hugging Face Hub.

Names, prompts and policies are untrusted, so they are put into code fences that they cannot close.
Card: https://github.com/huggingface/hub-docs/blob/main/datasetcard.md (YAML block on top).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from curator.core.clock import iso
from curator.core.errors import UsageError
from curator.export.croissant import UNKNOWN
from curator.export.huggingface import ImageNames
from curator.export.tables import OVERLAY_COLUMNS
from curator.policy.model import ALT_TEXT
from curator.store.versions import Version

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
    (10**12, "100B<n<1T"),
)
_LARGEST = "n>1T"
_TICKS = re.compile("`+")


_TEMPLATE = """---
license: {license}
task_categories:
- image-to-text
- text-to-image
- zero-shot-image-classification
size_categories:
- {size}
tags:
- {tag}
- image-captions
- croissant
configs:
- config_name: default
  data_files:
  - split: train
    path: {data_files}
---

# {title}

One caption version of {num_shards:,} shards of image-text pairs, made by caption-curator {tool}
on {created}.

- version id: `{version}` (the same shards, captions, scores and policy give the same id)
- policy: {policy_name}, shown below

## What is in it

| samples | number |
|---|---|
| in the source shards | {num_source:,} |
| exported, with a generated caption | {captioned:,} |
| exported, with the alt text | {kept:,} |
| dropped by the policy | {dropped:,} |
| unusable (damaged image or file) | {quarantined:,} |

{num_captions:,} captions: {num_written:,} written by models, {num_alt:,} alt texts.

{sources}

{contents}

## How it was made

Who wrote captions and who scored them, with revision, prompt and sampling:

{makers}

The policy:

{policy}

Thresholds that its percentiles came out at:

{thresholds}

## Limits

- Captions written by models can be wrong: invented objects, wrong counts, wrong relations.
- Scores are similarities by the named scorer, with its blind spots and its length limit. They are
  no measure of truth, and scores of different scorers cannot be compared.
- A policy that selects by score also selects by what its scorer has learnt, biases included.
- Nothing was filtered for safety, personal data or copyright beyond what the policy says.
  {license_note}
"""

_TARS = """Each sample is `KEY.{image_ext}` ({images}), `KEY.txt` (the
first caption) and `KEY.json`: the fields of the source, and `curator.captions` with the text,
source, sampling weight and score of every caption (`curator_export.captions` where the source has
a field `curator` of its own). Trainers that read only the `.txt` see the first caption. To sample
one of them by weight:

```python
import random

import webdataset as wds

def one_caption(sample):
    fields = sample["json"]
    captions = fields.get("curator_export", fields.get("curator"))["captions"]
    weights = [caption["weight"] for caption in captions]
    sample["txt"] = random.choices([caption["text"] for caption in captions], weights)[0]
    return sample

data = wds.WebDataset("data/00000.tar").decode(only=["txt", "json"]).map(one_caption)
```"""

_OVERLAY = """There are no images here. Each row of `data/*.parquet` is one caption:

| column | meaning |
|---|---|
{columns}

To lay the captions over your own copy of the images, match `image_sha256` where your files are
byte for byte those of the shards, `uid` (DataComp) or `url` where they were downloaded again, and
`key` only with the same shards. An image that was downloaded again may have changed, and a caption
of another picture is wrong: compare the SHA-256 of the downloaded file before you use it. With the
tables that img2dataset writes beside its shards (`--compute_hash sha256`):

```python
import polars as pl

captions = pl.read_parquet("data/*.parquet")
mine = pl.read_parquet("my-shards/*.parquet").filter(pl.col("status") == "success")
images = captions.filter(pl.col("slot") == 0).join(
    mine.select("url", "sha256"), on="url", how="left"
)
counts = images.select(
    same=(pl.col("sha256") == pl.col("original_sha256")).sum(),
    changed=(pl.col("sha256") != pl.col("original_sha256")).sum(),
    missing=pl.col("sha256").is_null().sum(),
)
print(counts)
```

caption-curator trains on them where they lie, found by `image_sha256`:
`curator pretrain 'my-shards/@data/*.parquet:text'`."""

_STATED = """The license above was stated by whoever made this export; it does not follow from the
  tool."""
_NOT_STATED = """The license is unknown: nobody stated one when this export was made. Images and
  alt texts have the rights of their sources."""


def check_license(license_id: str) -> None:
    """Refuse what cannot be the license id of a card.

    Raises:
        UsageError: it is not a license id.
    """
    if not _LICENSE.fullmatch(license_id):
        raise UsageError(
            f"{license_id!r} is not a license id",
            did="nothing was written",
            hint="--license cc-by-4.0, for instance; `other` if none fits, `unknown` (the default) "
            "if you do not know it",
            reason="option.value",
        )


def size_category(num_samples: int) -> str:
    """Return the Hub's size category for a number of samples."""
    return next((name for limit, name in _SIZES if num_samples < limit), _LARGEST)


def card(
    version: Version,
    *,
    license_id: str,
    num_samples: int,
    num_captions: int,
    sources: Mapping[str, int],
    data_files: str | Sequence[str],
    names: ImageNames | None,
) -> str:
    """Return the text of README.md. `sources` counts captions by source.

    `names` are the images of the tars, None for an overlay.
    """
    written = sum(number for name, number in sources.items() if name != ALT_TEXT)
    is_overlay = names is None
    return _TEMPLATE.format(
        license=json.dumps(license_id),
        license_note=_NOT_STATED if license_id == UNKNOWN else _STATED,
        size=size_category(num_captions if is_overlay else num_samples),
        tag="parquet" if is_overlay else "webdataset",
        title=f"Captions of {num_samples:,} images, without the images"
        if is_overlay
        else f"{num_samples:,} images with curated captions",
        contents=_columns() if names is None else _tars(names),
        data_files=json.dumps(data_files),
        num_samples=num_samples,
        num_shards=len(version.shards),
        tool=version.tool_version,
        created=iso(version.created),
        version=version.id,
        policy_name=_inline(version.policy.get("name")),
        num_source=version.num_samples,
        num_captions=num_captions,
        num_written=written,
        num_alt=num_captions - written,
        sources=_source_table(sources),
        makers=_fence(version.makers),
        policy=_fence(version.policy),
        thresholds=_fence(version.thresholds),
        **version.counts,
    )


def _tars(names: ImageNames) -> str:
    images = "the bytes of the source, not re-encoded"
    if names.is_mixed:
        formats = names.formats_in_words()
        images += f": {formats}, all with one extension, because `load_dataset` needs that"
    return _TARS.format(image_ext=names.image_ext, images=images)


def _columns() -> str:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in OVERLAY_COLUMNS.items()]
    return _OVERLAY.format(columns="\n".join(rows))


def _source_table(sources: Mapping[str, int]) -> str:
    lines = [f"| {_inline(name)} | {number:,} |" for name, number in sorted(sources.items())]
    return "\n".join(["| captions by | number |", "|---|---|", *lines])


def _inline(value: object) -> str:
    text = re.sub(r"[^\w.:@/ +-]", "_", str(value))
    return f"`{text}`"


def _fence(value: Mapping[str, object]) -> str:
    text = json.dumps(value, indent=2, sort_keys=True)
    longest = max((len(run) for run in _TICKS.findall(text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}json\n{text}\n{ticks}"
