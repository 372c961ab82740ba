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
- webdataset
- image-captions
configs:
- config_name: default
  data_files:
  - split: train
    path: {data_files}
---

# {num_samples:,} images with curated captions

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

Each sample is `KEY.{image_ext}` ({images}), `KEY.txt` (the
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
```

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
- Nothing was filtered for safety, personal data or copyright beyond what the policy says. The
  license above was stated by whoever made this export; it does not follow from the tool.
"""


def check_license(license_id: str | None) -> None:
    """Refuse a card without a license.

    Raises:
        UsageError: no license was given, or it is not a license id.
    """
    if license_id is None or not _LICENSE.fullmatch(license_id):
        raise UsageError(
            "the dataset card needs the license of the images and texts"
            if license_id is None
            else f"{license_id!r} is not a license id",
            did="nothing was written",
            hint="--license cc-by-4.0, for instance; `other` if none fits, `unknown` if you do not "
            "know it",
            reason="option.missing" if license_id is None else "option.value",
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
    image_ext: str,
    formats: str | None,
) -> str:
    """Return the text of README.md. `sources` counts captions by source.

    `image_ext` is the extension of all images in the export; `formats` lists their extensions in
    the source if there were several.
    """
    images = "the bytes of the source, not re-encoded"
    if formats is not None:
        images += f": {formats}, all with one extension, because `load_dataset` needs that"
    written = sum(number for name, number in sources.items() if name != ALT_TEXT)
    return _TEMPLATE.format(
        license=json.dumps(license_id),
        size=size_category(num_samples),
        data_files=json.dumps(data_files),
        image_ext=image_ext,
        images=images,
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
